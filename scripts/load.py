"""load.py USERS SECONDS [--room]: opens a sale of its own, sends locust's shoppers to it, proves the invariants.

The exit status is 0 only if no call failed, every promise was seen to be kept, and every invariant holds.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.cli.minting import mint
from api.cli.rush_sale import draw_up, public_url, put_up
from engine.clock import SystemClock
from engine.config import Settings, read_settings
from engine.errors import DoorbusterError
from engine.runtime import resolve_settings
from engine.sales import SaleDocument

PROGRAMS: Final = Path(sys.executable).parent
LOCUSTFILE: Final = Path(__file__).parent.parent / "loadtest" / "locustfile.py"
# A shopper buys about three times in the rush: so the sale is sold out some time before its end.
UNITS_PER_USER: Final = 2
VISITS_PER_SECOND_MAX: Final = 2  # of one shopper; each as another buyer
PROOF: Final = (
    2_000  # Tries at most for a ticket: 2 ms, shoppers share their cores with the engine.
)
ARRIVALS: Final = 100  # shoppers per second, as in the locustfile
LEAD_SECONDS: Final = 4  # for locust to start, and for the first to look around
PERCENTS: Final = (0.5, 0.95, 0.99)


class Timed(msgspec.Struct):
    """One row of locust's statistics."""

    name: str
    method: str
    num_requests: int
    num_failures: int
    response_times: dict[float, int]  # ms → answers

    def percentile(self, share: float) -> float:
        wanted, seen = share * self.num_requests, 0
        for ms, count in sorted(self.response_times.items()):
            seen += count
            if seen >= wanted:
                return ms
        return 0.0


class Plan(msgspec.Struct, frozen=True):
    """A load test in numbers."""

    users: int
    seconds: int  # from the start to the end of the decay
    room: bool = False  # a waiting room before the sale

    @property
    def calm_seconds(self) -> float:
        return LEAD_SECONDS + self.users / ARRIVALS

    @property
    def decay_seconds(self) -> float:
        return self.seconds / 6

    @property
    def spike_seconds(self) -> float:
        return max(1.0, self.seconds - self.calm_seconds - self.decay_seconds)

    @property
    def total_seconds(self) -> float:
        return self.calm_seconds + self.spike_seconds + self.decay_seconds


def main(plan: Plan, console: Console) -> int:
    settings = resolve_settings(read_settings(), ["secret", "public_url"])
    opens_in = timedelta(seconds=plan.calm_seconds)
    sale = draw_up("load", plan.users * UNITS_PER_USER, opens_in=opens_in)
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        tokens, statistics = Path(folder) / "tokens.txt", Path(folder) / "statistics"
        write_tokens(settings, sale, plan, tokens)
        uvloop.run(put_up(settings, sale))
        if plan.room:
            open_room(sale.sale_id, plan)
        console.print(
            f"Sale {sale.sale_id}: {plan.users * UNITS_PER_USER:,} units, open in "
            f"{plan.calm_seconds:.0f} s. {plan.users:,} shoppers will be at the door.",
            highlight=False,
            soft_wrap=True,
        )
        options = [*options_of(settings, sale, plan), "--tokens", str(tokens)]
        code, said = shop([*options, "--json-file", str(statistics)], plan, console)
        told(code, said, statistics.with_suffix(".json"), console)
    checked = subprocess.run([str(PROGRAMS / "doorbuster"), "check", sale.sale_id], check=False)
    return code or checked.returncode


def open_room(sale_id: str, plan: Plan) -> None:
    """A room that is worth waiting in: its units last for about half of the rush."""
    pace = max(1, round(plan.users * UNITS_PER_USER / (plan.spike_seconds / 2)))
    command = [str(PROGRAMS / "doorbuster"), "admission", "set", sale_id, "--on"]
    command += ["--pace", str(pace), "--proof", str(PROOF)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def write_tokens(settings: Settings, sale: SaleDocument, plan: Plan, path: Path) -> None:
    """New buyers each time, and one for each visit: the limit per buyer would refuse the others."""
    assert settings.secret is not None
    count = int(plan.users * plan.total_seconds * VISITS_PER_SECOND_MAX)
    users = (f"{sale.sale_id}-{number}" for number in range(count))
    with path.open("w") as file:
        file.writelines(f"{token}\n" for token in mint(settings.secret, SystemClock(), users))


def options_of(settings: Settings, sale: SaleDocument, plan: Plan) -> list[str]:
    """What locust is told."""
    words: dict[str, object] = {
        "host": public_url(settings),
        "sale": sale.sale_id,
        "calm-users": max(1, plan.users // 10),
        "calm-seconds": plan.calm_seconds,
        "spike-users": plan.users,
        "arrivals": ARRIVALS,
        "spike-seconds": plan.spike_seconds,
        "decay-seconds": plan.decay_seconds,
        "loglevel": "WARNING",
    }
    return [word for name, value in words.items() for word in (f"--{name}", str(value))]


def shop(options: list[str], plan: Plan, console: Console) -> tuple[int, str]:
    """Runs locust. Its exit code, and what it said."""
    command = [str(PROGRAMS / "locust"), "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen([*command, *options], stdout=said, stderr=said)
        try:
            watch(running, plan, console)
        finally:
            running.terminate()
        code = running.wait()
        said.seek(0)
        return code, said.read()


def watch(running: "subprocess.Popen[bytes]", plan: Plan, console: Console) -> None:
    """Shows how far the run is until it ends."""
    columns = (TextColumn("{task.description:<6}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("calm", total=plan.total_seconds)
        start_s = time.monotonic()
        while running.poll() is None:
            run_s = time.monotonic() - start_s
            progress.update(task, completed=run_s, description=phase(plan, run_s))
            time.sleep(0.2)


def phase(plan: Plan, run_s: float) -> str:
    if run_s < plan.calm_seconds:
        return "calm"
    if run_s < plan.calm_seconds + plan.spike_seconds:
        return "rush"
    return "decay" if run_s < plan.total_seconds else "settle"


def told(code: int, said: str, statistics: Path, console: Console) -> None:
    """What locust measured and what its tally says; all of its words if something is wrong."""
    if statistics.exists():
        rows: list[Timed] = msgspec.json.decode(
            statistics.read_bytes(), type=list[Timed], strict=False
        )
        console.print(as_table(rows))
    _, found, tally = said.partition("Doorbuster tally")
    console.print(f"{found}{tally.rstrip()}\n" if found and not code else said, highlight=False)


def as_table(rows: list[Timed]) -> Table:
    table = Table(title="What shoppers felt, in ms", title_justify="left")
    table.add_column("call", no_wrap=True)
    for name in ("sent", "failed", "p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for row in sorted(rows, key=lambda row: -row.num_requests):
        times: list[Any] = [f"{row.percentile(share):,.0f}" for share in PERCENTS]
        table.add_row(
            f"{row.method} {row.name}".replace("[", r"\["),
            f"{row.num_requests:,}",
            f"{row.num_failures:,}",
            *times,
        )
    return table


def read_plan() -> Plan:
    parser = argparse.ArgumentParser(prog="load.py", description=__doc__)
    parser.add_argument("users", type=int)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--room", action="store_true", help="with a waiting room before the sale")
    asked = parser.parse_args()
    return Plan(asked.users, asked.seconds, asked.room)


if __name__ == "__main__":
    try:
        sys.exit(main(read_plan(), Console()))
    except DoorbusterError as error:
        sys.exit(str(error))
