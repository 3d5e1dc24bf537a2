"""`doorbuster admission`: who comes in and how fast, straight on the engine's servers."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

import typer
from rich.console import Console, Group

from api.admin.access_rules import find_rule, rules_for
from api.admin.room_changes import read_changes
from api.cli.admission_tables import admission_of, rules_table
from api.cli.running import actor, on_engine
from engine.admission.access import AccessRule, Verdict
from engine.admission.room.glance import glance
from engine.admission.room.settings import RoomOrder
from engine.core import Engine
from engine.errors import Invalid, Unavailable

HELP = """
Waiting rooms, and who is always or never let in.

* `doorbuster admission set double-11 --on --order draw` gives a sale a waiting room, and draws lots
* `doorbuster admission set double-11 --pace 500` lets at most 500 people a second try to buy
* `doorbuster admission show double-11` shows the room's settings and how it stands now
* `doorbuster admission deny address:203.0.113.0/24 --for 2h --reason "bots"` keeps a network out
* `doorbuster admission allow user:inspector` lets a user in past throttles and checks
* `doorbuster admission rules` lists such rules, `forget 7` ends one

Running fronts know of a change within about a second.
"""

NO_CEILING: Final = "none"
UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}

app = typer.Typer(
    help=HELP, rich_markup_mode="markdown", no_args_is_help=True, add_completion=False
)

SaleId = Annotated[str, typer.Argument(help="The sale's id.", metavar="SALE")]
Subject = Annotated[
    str, typer.Argument(help="user:ID, or address:ADDRESS or NETWORK.", metavar="SUBJECT")
]
OfSale = Annotated[str | None, typer.Option("--sale", help="In this sale only.", metavar="SALE")]
Until = Annotated[
    str | None, typer.Option("--for", help="How long, as 30m, 2h or 7d.", metavar="TIME")
]
Reason = Annotated[str, typer.Option(help="Why, for whoever reads the list.")]


@app.command()
def show(sale_id: SaleId) -> None:
    """Show a sale's waiting room: its settings, how it stands, and the rules that concern it."""
    Console().print(on_engine(lambda engine: _shown(engine, sale_id)))


@app.command("set")
def set_(
    *,
    sale_id: SaleId,
    on: Annotated[
        bool | None, typer.Option("--on/--off", help="Whether buyers need a queue ticket.")
    ] = None,
    order: Annotated[
        RoomOrder | None, typer.Option(help="Of those who come before the opening.")
    ] = None,
    prequeue: Annotated[
        int | None, typer.Option(help="Seconds before the opening from which tickets are given.")
    ] = None,
    pace: Annotated[
        str | None, typer.Option(help="People per second at most, or none: as many as are stored.")
    ] = None,
    over: Annotated[
        float | None, typer.Option(help="People let in per unit that is left: not all of them buy.")
    ] = None,
    admission: Annotated[
        int | None, typer.Option(help="Seconds to reserve in, once it is one's turn.")
    ] = None,
    absent: Annotated[
        int | None, typer.Option(help="Seconds without a poll, after which one is passed over.")
    ] = None,
    proof: Annotated[
        int | None, typer.Option(help="Hashes to try for a ticket, at most; 0: no proof of work.")
    ] = None,
    captcha: Annotated[
        bool | None, typer.Option("--captcha/--no-captcha", help="Whether tickets need a captcha.")
    ] = None,
) -> None:
    """Change a sale's waiting room, live. What is not given stays as it is; nobody loses a number."""
    given = {
        "on": on,
        "order": None if order is None else order.value,
        "prequeue_seconds": prequeue,
        "pace_max": pace,
        "over_admission": over,
        "admission_seconds": admission,
        "absent_seconds": absent,
        "proof_difficulty": proof,
        "captcha": captcha,
    }
    values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if not values:
        raise typer.BadParameter("Nothing is given that should change.")
    if pace is not None:
        values["pace_max"] = _ceiling(pace)
    on_engine(lambda engine: _change(engine, sale_id, values))
    print(f"Sale {sale_id}: {', '.join(values)} changed.")


@app.command()
def allow(
    subject: Subject, sale_id: OfSale = None, until: Until = None, reason: Reason = ""
) -> None:
    """Let a user or an address in past throttles and anti-bot checks; never past the stock's rules."""
    _add(Verdict.ALLOW, subject, sale_id, until, reason)


@app.command()
def deny(
    subject: Subject, sale_id: OfSale = None, until: Until = None, reason: Reason = ""
) -> None:
    """Keep a user, an address or a network out: 403 `forbidden`. The narrowest rule counts."""
    _add(Verdict.DENY, subject, sale_id, until, reason)


@app.command()
def forget(
    rule: Annotated[str, typer.Argument(help="Its number, as `rules` shows it.", metavar="RULE")],
) -> None:
    """End a rule."""
    ended = on_engine(lambda engine: _forget(engine, rule))
    print(f"Rule {rule} is no more: {ended.verdict} {ended.subject}.")


@app.command()
def rules(sale_id: OfSale = None) -> None:
    """List the rules that count, newest first; with --sale, those that concern it."""
    Console().print(rules_table(on_engine(lambda engine: _rules(engine, sale_id))))


async def _shown(engine: Engine, sale_id: str) -> Group:
    sale = await engine.sales.get(sale_id)
    try:
        look = await glance(engine.redis, sale_id)
    except Unavailable:
        look = None
    rules = await rules_for(engine.access_control, sale_id)
    return admission_of(sale.sale_id, await engine.room_control.get(sale_id), look, rules)


async def _change(engine: Engine, sale_id: str, values: dict[str, Any]) -> None:
    changes = read_changes(values, engine.settings)
    await engine.room_control.change(sale_id, actor(), changes)


async def _forget(engine: Engine, rule_id: str) -> AccessRule:
    control = engine.access_control
    rule = await find_rule(control, rule_id)
    if rule is None or not await control.remove(
        actor(), subject=rule.subject, sale_id=rule.sale_id
    ):
        raise Invalid("", f"There is no rule {rule_id}.")
    return rule


async def _rules(engine: Engine, sale_id: str | None) -> Sequence[AccessRule]:
    if sale_id is None:
        return await engine.access_control.list()
    return await rules_for(engine.access_control, (await engine.sales.get(sale_id)).sale_id)


def _add(
    verdict: Verdict, subject: str, sale_id: str | None, until: str | None, reason: str
) -> None:
    expires_at = None if until is None else datetime.now(UTC) + span(until)
    rule = on_engine(
        lambda engine: engine.access_control.add(
            actor(),
            subject=subject,
            verdict=verdict,
            sale_id=sale_id,
            reason=reason,
            expires_at=expires_at,
        )
    )
    where = "in all sales" if rule.sale_id is None else f"in sale {rule.sale_id}"
    end = "" if expires_at is None else f" until {expires_at:%Y-%m-%d %H:%M:%S}Z"
    print(f"Rule {rule.rule_id}: {rule.verdict} {rule.subject} {where}{end}.")


def span(text: str) -> timedelta:
    """A time span of a number and a unit, as 2h. Raises Invalid."""
    number, unit = text[:-1], text[-1:]
    if unit not in UNITS or not (number.isascii() and number.isdigit()) or len(number) > 6:
        raise Invalid("--for", "must be a whole number of s, m, h or d, as 30m or 2h")
    return int(number) * UNITS[unit]


def _ceiling(text: str) -> int | None:
    """People per second; None for `none`."""
    if text == NO_CEILING:
        return None
    if not (text.isascii() and text.isdigit()):
        raise Invalid("--pace", f"must be a whole number or {NO_CEILING}")
    return int(text)
