"""The access rules over HTTP: who is let in past throttles and checks, and who is kept out."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from aiohttp import web

from api.answers import Answer, personal
from api.front import Front
from api.paging import cursor, cursor_text, page_size
from api.problems import Code, Refusal
from engine.admission.access import (
    PAGE_MAX,
    REASON_CHARACTERS_MAX,
    RULES_MAX,
    AccessControl,
    AccessRule,
    Verdict,
)
from engine.model import SALE_ID

RULES_SHOWN_MAX: Final = 100  # Beside a sale; the list has them all.
SUBJECT_CHARACTERS_MAX: Final = 200
_RULE_ID_DIGITS_MAX: Final = 18  # bigint


class RuleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule to make, in place of the one that its subject has in that sale, or in all (null)."""

    subject: Annotated[str, msgspec.Meta(max_length=SUBJECT_CHARACTERS_MAX)]
    verdict: Verdict
    sale_id: Annotated[str, msgspec.Meta(pattern=rf"^(?:{SALE_ID.pattern})\Z")] | None = None
    reason: Annotated[str, msgspec.Meta(max_length=REASON_CHARACTERS_MAX)] = ""
    expires_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class PageEnd(msgspec.Struct, frozen=True, array_like=True):
    """The last rule of a page."""

    rule_id: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class RulesPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Newest first; `next` where there is more."""

    rules: list[AccessRule]
    next: str | None = None


_decoder: Final = msgspec.json.Decoder(RuleBody)
_end_decoder: Final = msgspec.json.Decoder(PageEnd)


async def list_rules(front: Front, request: web.Request, _actor: str) -> Answer:
    """Those that count now, newest first."""
    size = page_size(request)
    end = cursor(request, _end_decoder)
    rules = await front.engine.access_control.list(
        before=end.rule_id if end else None, rows_max=size
    )
    more = cursor_text(PageEnd(rules[-1].rule_id)) if len(rules) == size else None
    return personal(RulesPage(rules, more))


async def add_rule(front: Front, request: web.Request, actor: str) -> Answer:
    """201 with the rule. Every front goes by it within about a second, this one at once."""
    wanted = await front.bodies.json(request, _decoder)
    rule = await front.engine.access_control.add(
        actor,
        subject=wanted.subject,
        verdict=wanted.verdict,
        sale_id=wanted.sale_id,
        reason=wanted.reason,
        expires_at=wanted.expires_at,
    )
    await front.engine.access.refresh_once()
    return personal(rule, 201, ("Location", f"/v1/admin/access-rules/{rule.rule_id}"))


async def remove_rule(front: Front, request: web.Request, actor: str) -> Answer:
    """200 with the rule that is no more."""
    await front.bodies.none(request)
    control = front.engine.access_control
    rule = await find_rule(control, request.match_info["rule"])
    if rule is None or not await control.remove(actor, subject=rule.subject, sale_id=rule.sale_id):
        raise Refusal(Code.NOT_FOUND)
    await front.engine.access.refresh_once()
    return personal(rule)


async def find_rule(control: AccessControl, text: str) -> AccessRule | None:
    """The rule of this id, if it counts now."""
    if not (text.isascii() and text.isdigit() and len(text) <= _RULE_ID_DIGITS_MAX):
        return None
    found = await control.list(before=int(text) + 1, rows_max=1)
    return found[0] if found and found[0].rule_id == int(text) else None


async def rules_for(control: AccessControl, sale_id: str) -> list[AccessRule]:
    """The newest RULES_SHOWN_MAX rules that concern a sale: its own and those for all sales."""
    found: list[AccessRule] = []
    before = None
    for _ in range(RULES_MAX // PAGE_MAX + 1):
        page = await control.list(before=before, rows_max=PAGE_MAX)
        found += [rule for rule in page if rule.sale_id in {None, sale_id}]
        if len(page) < PAGE_MAX or len(found) >= RULES_SHOWN_MAX:
            break
        before = page[-1].rule_id
    return found[:RULES_SHOWN_MAX]
