"""What a check found, invariant by invariant. Pure values; the numbers are those of DESIGN §5."""

from collections import Counter, defaultdict
from typing import Final

import msgspec

PROBLEMS_MAX: Final = 100  # Kept per invariant; the rest is counted.
PROBLEMS_SHOWN: Final = 3  # In the one line.

INVARIANTS: Final = {
    1: "no oversell",
    2: "conservation",
    3: "one fate",
    4: "per-user limit",
    5: "same key, same answer",
    6: "one charge per order",
    7: "no lost webhook",
    8: "no hidden holds",
    9: "bounded queues",
    10: "one epoch",
    11: "ledger",
}


class Finding(msgspec.Struct, frozen=True):
    """One invariant, and whether it holds. `figures` says what was counted."""

    number: int
    name: str
    figures: str
    problems: tuple[str, ...]
    problem_count: int

    @property
    def ok(self) -> bool:
        return self.problem_count == 0

    @property
    def line(self) -> str:
        """The finding in one line, as `doorbuster check` prints it."""
        verdict = "ok  " if self.ok else "FAIL"
        parts = [self.figures, *self.problems[:PROBLEMS_SHOWN]]
        if self.problem_count > PROBLEMS_SHOWN:
            parts.append(f"and {self.problem_count - PROBLEMS_SHOWN:,} more")
        return f"{verdict} {self.number:2}. {self.name} — {'; '.join(filter(None, parts))}"


class Evidence:
    """Problems and counts while they are gathered. Bounded, however bad things are."""

    def __init__(self) -> None:
        self.problems: defaultdict[int, list[str]] = defaultdict(list)
        self.problem_counts: Counter[int] = Counter()
        self.figures: defaultdict[int, Counter[str]] = defaultdict(Counter)

    def blame(self, number: int, problem: str, *, times: int = 1) -> None:
        """Notes that an invariant is broken."""
        self.problem_counts[number] += times
        if len(self.problems[number]) < PROBLEMS_MAX:
            self.problems[number].append(problem)

    def count(self, number: int, what: str, amount: int) -> None:
        """Adds to a figure of an invariant's line."""
        self.figures[number][what] += amount

    def add(self, other: "Evidence") -> None:
        """Takes over what somebody else found."""
        for number, problems in other.problems.items():
            room = PROBLEMS_MAX - len(self.problems[number])
            self.problems[number] += problems[:room]
        self.problem_counts.update(other.problem_counts)
        for number, figures in other.figures.items():
            self.figures[number].update(figures)

    @property
    def clean(self) -> bool:
        return not self.problem_counts.total()

    def findings(self) -> list[Finding]:
        """One per invariant, in their order."""
        return [
            Finding(
                number,
                name,
                ", ".join(f"{amount:,} {what}" for what, amount in self.figures[number].items()),
                tuple(self.problems[number]),
                self.problem_counts[number],
            )
            for number, name in INVARIANTS.items()
        ]
