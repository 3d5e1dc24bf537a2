"""Shows waiting rooms and access rules on a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from engine.admission.access import AccessRule
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import RoomLook

NOT_KNOWN = "Nobody has asked for this room yet, or Redis does not tell how it stands."
ORDERS = {RoomOrder.FIFO: "first come, first served", RoomOrder.DRAW: "places drawn by lot"}


def admission_of(
    sale_id: str, settings: RoomSettings, look: RoomLook | None, rules: Sequence[AccessRule]
) -> Group:
    """A sale's room: its settings, how it stands, and the rules that concern the sale."""
    standing = Text(NOT_KNOWN) if look is None else _facts(_standing(look))
    return Group(
        Text(f"{sale_id}: waiting room {'on' if settings.on else 'off'}"),
        _facts(_settings(settings)),
        Text(),
        standing,
        *((Text(), rules_table(rules)) if rules else ()),
    )


def rules_table(rules: Sequence[AccessRule]) -> Table | Text:
    """One line per rule."""
    if not rules:
        return Text("No access rules.")
    table = Table(box=None, pad_edge=False)
    for title in ("rule", "verdict", "subject", "sale", "until", "by", "reason"):
        table.add_column(title, overflow="fold")
    for rule in rules:
        table.add_row(
            str(rule.rule_id),
            rule.verdict,
            Text(rule.subject),
            rule.sale_id or "all",
            "" if rule.expires_at is None else _time(rule.expires_at),
            Text(rule.actor),
            Text(rule.reason),
        )
    return table


def _settings(settings: RoomSettings) -> dict[str, str]:
    pace = settings.pace_max
    proof = settings.proof_difficulty
    return {
        "order": ORDERS[settings.order],
        "seed hash": settings.seed_hash,
        "tickets from": f"{settings.prequeue_seconds} s before the opening on",
        "pace": "as many as are stored" if pace is None else f"at most {pace:,} people/s",
        "let in": f"{settings.over_admission:g} people per unit that is left",
        "to reserve": f"{settings.admission_seconds} s",
        "passed over": f"after {settings.absent_seconds} s without a poll",
        "proof of work": f"up to {proof:,} hashes" if proof else "none",
        "captcha": "yes" if settings.captcha else "no",
        "revision": str(settings.revision),
    }


def _standing(look: RoomLook) -> dict[str, str]:
    drawn = "" if look.drawn is None else f", {look.drawn:,} of them drawn"
    return {
        "numbers": f"{look.issued:,} given{drawn}",
        "now serving": f"{look.serving:,}, at {look.rate:,.0f} people/s",
        "waiting": f"{look.waiting:,} present",
        "let in": f"{look.admitted:,} people, {look.used:,} have reserved",
        "units": f"{look.available:,} available, {look.reserved:,} reserved, {look.sold:,} sold",
        "as of": _time(datetime.fromtimestamp(look.now_ms / 1000, UTC)),
    }


def _facts(facts: dict[str, str]) -> Text:
    return Text("\n".join(f"{name:<14} {fact}" for name, fact in facts.items()))


def _time(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"
