"""What the calls under /v1/admin on sales and admission promise. Makes no answer."""

from typing import Any, Final

from api.admin.access_rules import RuleBody, RulesPage
from api.admin.bodies import AuditPage, AuditQuery, NewSale
from api.paging import PageQuery
from api.problems import Code
from api.sales.bodies import OperatorSaleBody, OperatorSalesBody
from api.spec import IDEMPOTENCY_KEY, LOCATION, Spec
from engine.admission.access import AccessRule
from engine.admission.room.settings import RoomChanges

TAG: Final = "Sales"
ADMISSION: Final = "Admission"
_NOT_IN_EFFECT: Final = (
    "503 with a word that the change is recorded: it takes effect once Redis answers."
)


def _steer(summary: str, description: str = "", *codes: Code, body: Any = None) -> Spec:
    return Spec(
        tag=TAG,
        summary=summary,
        description=" ".join(filter(None, (description, _NOT_IN_EFFECT))),
        body=body,
        answers={200: OperatorSaleBody},
        codes=(Code.CONFLICT, *codes),
    )


def open_sale(body: type) -> Spec:
    return _steer(
        "Open a sale", "`now` moves a later start to this moment.", Code.SALE_ENDED, body=body
    )._replace(body_required=False)


def extend_sale(body: type) -> Spec:
    return _steer("Move the end of a sale to a later time", body=body)


def restock_sale(body: type) -> Spec:
    spec = _steer(
        "Put up more units",
        "With a key, repeating it adds nothing.",
        Code.IDEMPOTENCY_MISMATCH,
        Code.SALE_CLOSED,
        body=body,
    )
    return spec._replace(headers=(IDEMPOTENCY_KEY,))


CREATE_SALE: Final = Spec(
    tag=TAG,
    summary="Make a sale",
    description=f"The document is checked as a whole: every problem at once, by field. {_NOT_IN_EFFECT}",
    body=NewSale,
    answers={201: OperatorSaleBody},
    tells={201: (LOCATION,)},
    codes=(Code.SALE_EXISTS, Code.CONFLICT),
)
LIST_SALES: Final = Spec(tag=TAG, summary="All sales", answers={200: OperatorSalesBody})
SHOW_SALE: Final = Spec(
    tag=TAG,
    summary="A sale with all counters",
    description="Straight from Redis; counters are null while it does not answer.",
    answers={200: OperatorSaleBody},
)
PAUSE_SALE: Final = _steer("Pause a sale", "Nobody reserves meanwhile.", Code.SALE_CLOSED)
RESUME_SALE: Final = _steer("Resume a paused sale", "", Code.SALE_CLOSED)
CLOSE_SALE: Final = _steer("Close a sale")
SHOW_AUDIT: Final = Spec(
    tag=TAG,
    summary="Who changed what, and when",
    description="Newest first.",
    query=AuditQuery,
    answers={200: AuditPage},
    codes=(Code.UNKNOWN_SALE,),
)


def show_admission(answer: type) -> Spec:
    return Spec(
        tag=ADMISSION,
        summary="A sale's waiting room, pace and rules",
        description="`look` is null where there is no room, or Redis does not answer.",
        answers={200: answer},
    )


def change_admission(answer: type) -> Spec:
    return Spec(
        tag=ADMISSION,
        summary="Change a sale's waiting room",
        description=f"PUT and PATCH alike: what is not given stays as it is. {_NOT_IN_EFFECT}",
        body=RoomChanges,
        answers={200: answer},
        codes=(Code.CONFLICT,),
    )


LIST_RULES: Final = Spec(
    tag=ADMISSION,
    summary="The access rules that count now",
    query=PageQuery,
    answers={200: RulesPage},
)
ADD_RULE: Final = Spec(
    tag=ADMISSION,
    summary="Let a client in past all rates, or keep it out",
    description=(
        "The subject is `user:<id>` or `address:<address or network>`. "
        "It takes the place of the subject's rule, and counts everywhere within a second."
    ),
    body=RuleBody,
    answers={201: AccessRule},
    tells={201: (LOCATION,)},
    codes=(Code.UNKNOWN_SALE, Code.CONFLICT),
)
REMOVE_RULE: Final = Spec(tag=ADMISSION, summary="Drop an access rule", answers={200: AccessRule})
