"""What shoppers were promised and what became of it: the tally of a locust run. No I/O, no locust.

Counts are cumulative, so a report that comes late, twice or not at all does no harm.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec

SHOWN_MAX: Final = 20  # Of the ids that are told in full.
ANSWERED_MAX: Final = 10_000  # Nobody asks with an older key again.


class Click(NamedTuple):
    """One wish, as it is repeated until somebody says what became of it."""

    headers: dict[str, str]
    body: dict[str, Any]


class Summary(msgspec.Struct):
    """A ledger in numbers. Sums of summaries are summaries."""

    users: int = 0
    queued: int = 0  # tickets of the waiting room
    gone: int = 0  # turned away there: nothing was left
    clicks: int = 0
    acknowledged: int = 0  # reservations promised
    ordered: int = 0  # of them seen as orders
    paid: int = 0  # of those seen paid
    abandoned: int = 0  # walked away from, on purpose
    released: int = 0  # given back, on purpose
    refused: dict[str, int] = {}  # by code
    repeats: int = 0  # requests sent again with the same key
    open_clicks: int = 0  # nobody knows yet
    open_orders: int = 0  # promised and not seen yet
    contradictions: list[str] = []
    missing: list[str] = []  # some of the promised and unseen

    @property
    def settled(self) -> bool:
        return not (self.users or self.open_clicks or self.open_orders)

    @property
    def holds(self) -> bool:
        """Whether every promise was kept, as far as buyers can see."""
        return not (self.contradictions or self.open_clicks or self.open_orders)

    def add(self, other: "Summary") -> None:
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refused = dict(Counter(self.refused) + Counter(other.refused))
        self.contradictions = [*self.contradictions, *other.contradictions][:SHOWN_MAX]
        self.missing = [*self.missing, *other.missing][:SHOWN_MAX]


_NUMBERS: Final = (
    *(
        "users",
        "queued",
        "gone",
        "clicks",
        "acknowledged",
        "ordered",
        "paid",
        "abandoned",
        "released",
    ),
    *("repeats", "open_clicks", "open_orders"),
)


class Ledger:
    """One process' book. Keeps single entries only while they are open."""

    def __init__(self) -> None:
        self._summary = Summary()
        self._answered: dict[str, str] = {}  # key → reservation, of the newest ANSWERED_MAX
        self.open_clicks: dict[str, Click] = {}
        self.open_orders: dict[str, Click] = {}

    def queue(self, tickets: int) -> None:
        """Somebody took so many tickets of the waiting room and has done with waiting."""
        self._summary.queued += tickets

    def turn_away(self) -> None:
        """The room said that nothing is left, so nobody clicked."""
        self._summary.gone += 1

    def click(self, key: str, click: Click) -> None:
        """Somebody is about to ask, for the first time with this key."""
        self._summary.clicks += 1
        self.open_clicks[key] = click

    def repeat(self) -> None:
        self._summary.repeats += 1

    def promise(self, key: str, reservation_id: str) -> None:
        """A 201, or a 200 for a key that was asked before."""
        click = self.open_clicks.pop(key, None)
        if click is not None:
            self._summary.acknowledged += 1
            self._answered[key] = reservation_id
            if len(self._answered) > ANSWERED_MAX:
                del self._answered[next(iter(self._answered))]
            self.open_orders[reservation_id] = click
        elif self._answered.get(key, reservation_id) != reservation_id:
            self._contradict(f"one key, two reservations: {self._answered[key]}, {reservation_id}")

    def refuse(self, key: str, code: str) -> None:
        """The outcome is known: nothing was promised."""
        if self.open_clicks.pop(key, None) is not None:
            self._summary.refused[code] = self._summary.refused.get(code, 0) + 1

    def order(self, reservation_id: str) -> None:
        """The reservation is an order."""
        if self.open_orders.pop(reservation_id, None) is not None:
            self._summary.ordered += 1

    def vanish(self, reservation_id: str) -> None:
        """The engine does not know what it promised."""
        self._contradict(f"{reservation_id} was promised and is not known")

    def pay(self) -> None:
        self._summary.paid += 1

    def abandon(self) -> None:
        self._summary.abandoned += 1

    def release(self) -> None:
        self._summary.released += 1

    def summary(self, users: int) -> Summary:
        """How things stand. `users` are those who shop now."""
        now = msgspec.structs.replace(
            self._summary, users=users, refused=dict(self._summary.refused)
        )
        now.open_clicks, now.open_orders = len(self.open_clicks), len(self.open_orders)
        now.missing = list(self.open_orders)[:SHOWN_MAX]
        return now

    def _contradict(self, sentence: str) -> None:
        if len(self._summary.contradictions) < SHOWN_MAX:
            self._summary.contradictions = [*self._summary.contradictions, sentence]


def total(summaries: Iterable[Summary]) -> Summary:
    result = Summary()
    for summary in summaries:
        result.add(summary)
    return result


def as_text(summary: Summary) -> str:
    """The tally for a terminal, its verdict in the last line."""
    refused = Counter(summary.refused)
    codes = ", ".join(f"{code} {count:,}" for code, count in refused.most_common())
    rows = [
        ("queued", summary.queued, "tickets of the waiting room"),
        ("gone", summary.gone, "left it without a click: told that nothing is left"),
        ("clicks", summary.clicks, f"with {summary.repeats:,} repeats under the same key"),
        ("refused", refused.total(), codes),
        ("acknowledged", summary.acknowledged, "reservations promised"),
        ("ordered", summary.ordered, "of them seen as orders"),
        ("paid", summary.paid, "of those seen paid"),
        ("abandoned", summary.abandoned, f"never paid on purpose; {summary.released:,} given back"),
        ("unknown", summary.open_clicks, "clicks whose outcome nobody told"),
        ("missing", summary.open_orders, "acknowledged and not seen as orders"),
    ]
    lines = [f"  {name:<13}{count:>10,}  {meaning}".rstrip() for name, count, meaning in rows]
    told = [f"  {line}" for line in (*summary.contradictions, *summary.missing)]
    return "\n".join(["Doorbuster tally", *lines, *told, _verdict(summary)])


def _verdict(summary: Summary) -> str:
    if summary.holds and not summary.acknowledged:
        return "Nothing was acknowledged, so nothing is proved."
    if summary.holds:
        return "Every acknowledged reservation was seen as an order."
    return "NOT every promise was seen to be kept."
