"""What the calls of the waiting room promise. Makes no answer."""

from typing import Final

from api.problems import Code
from api.queue.bodies import EnterBody, PlaceBody, ProofBody
from api.queue.challenges import ChallengeBody
from api.spec import Param, Spec

TAG: Final = "Queue"
TICKET: Final = Param("Queue-Ticket", "The ticket got before, if there is one.")

SHOW_QUEUE: Final = Spec(
    tag=TAG,
    summary="Where do I stand?",
    description="Ask again after `poll_after_seconds`. Whoever stops asking is skipped.",
    headers=(TICKET,),
    answers={200: PlaceBody},
    codes=(Code.TICKET_REQUIRED, Code.TICKET_INVALID),
)
ENTER: Final = Spec(
    tag=TAG,
    summary="Take a queue ticket",
    description=(
        "201 with a new number, 200 with the one got before or where there is no room. "
        "A sale may ask for a proof of work (`altcha`) or a captcha."
    ),
    body=EnterBody,
    body_required=False,
    headers=(TICKET,),
    answers={200: PlaceBody, 201: PlaceBody},
    tells={201: (Param("Queue-Ticket", "To be sent with every call.", required=True),)},
    codes=(Code.NOT_STARTED, Code.SALE_ENDED),
)
CHALLENGE: Final = Spec(
    tag=TAG,
    summary="A proof of work to do",
    description="Made for altcha's widgets; its answer is `altcha` when a ticket is taken.",
    answers={200: ChallengeBody},
    codes=(Code.NOT_STARTED, Code.SALE_ENDED),
)
PROOF: Final = Spec(
    tag=TAG,
    summary="What it takes to recompute the draw",
    description="`doorbuster queue verify` recomputes it. With a ticket, also one's number and place.",
    headers=(TICKET,),
    answers={200: ProofBody},
)
