"""Shoppers for locust: joins the shopper, the shape, the tokens and the tally to a locust run.

Closed-loop by nature: locust measures what users feel, not the engine's ceiling; for that there is `doorbuster rush`.
"""

import logging
from argparse import ArgumentParser
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, Final

import gevent  # type: ignore[import-untyped]
import msgspec
from locust import events
from locust.env import Environment
from locust.runners import LocalRunner, MasterRunner, WorkerRunner

from loadtest.audit import Auditor
from loadtest.buyers import TOKENS_DEFAULT, NoTokens
from loadtest.ledger import Summary, as_text, total
from loadtest.shape import Burst
from loadtest.shopper import HOST, Shopper, shop

__all__ = ["Burst", "Shopper"]  # locust looks for them here

logger = logging.getLogger(__name__)

SHARE: Final = "doorbuster_share"  # the message that gives a worker its share of the tokens
REPORT: Final = "doorbuster"  # the field of a worker's report that holds its summary


class Run:
    """What the processes of this run have told: one summary each, the newest."""

    def __init__(self) -> None:
        self.summaries: dict[str, Summary] = {}
        self.users: Callable[[], int] = lambda: 0  # who shop in this process

    def total(self) -> Summary:
        return total(self.summaries.values())


run: Final = Run()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: ArgumentParser) -> None:
    """Each is an option, a LOADTEST_* variable and a field of the web page."""
    group = parser.add_argument_group("Doorbuster")
    for name, default, meaning in (
        ("sale", "demo", "The sale to buy from"),
        ("tokens", TOKENS_DEFAULT, "File of tokens, from `doorbuster token --count N`"),
        ("calm-users", 20, "Shoppers before the rush, and after the decay"),
        ("calm-seconds", 5.0, "Until the rush, where the sale is open already"),
        ("spike-users", 200, "Shoppers in the rush"),
        ("arrivals", 100.0, "Shoppers who come to the rush per second, all of them before T0"),
        ("spike-seconds", 15.0, "How long the rush lasts after T0"),
        ("decay-seconds", 10.0, "How long the crowd takes to go home"),
        ("settle-seconds", 30.0, "How long is waited at most until every outcome is known"),
        ("abandon", 0.1, "Share of those who reserve and never pay"),
    ):
        group.add_argument(
            f"--{name}",
            type=type(default),
            default=default,
            env_var=f"LOADTEST_{name.replace('-', '_').upper()}",
            help=f"{meaning}. Default: {default}",
        )


@events.init.add_listener  # type: ignore[untyped-decorator]
def join(environment: Environment, **_: Any) -> None:
    """Before anybody shops, so that a missing file is one sentence."""
    runner = environment.runner
    Burst.standing = staticmethod(lambda: _awaited(environment))
    if environment.parsed_options is not None and environment.parsed_options.arrivals <= 0:
        raise SystemExit("--arrivals must be more than 0.")
    if isinstance(runner, WorkerRunner):
        runner.register_message(SHARE, _take_share)
    if not isinstance(runner, MasterRunner):
        _open_tokens(environment, 0, 1, keep=isinstance(runner, WorkerRunner))
        run.users = lambda: runner.user_count if runner else 0
        auditor = Auditor(shop, lambda: environment.host or HOST, run.users)
        gevent.spawn(auditor.run)
    web_ui = environment.web_ui
    if web_ui is not None and web_ui.app is not None:
        web_ui.app.add_url_rule(
            "/tally", "tally", lambda: f"<pre>{escape(as_text(_standing(environment)))}</pre>"
        )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def begin(environment: Environment, **_: Any) -> None:
    """A new tally; on the master, a share of the tokens for each worker."""
    runner, options = environment.runner, environment.parsed_options
    run.summaries.clear()
    if isinstance(runner, MasterRunner):
        workers = sorted(runner.clients, key=runner.get_worker_index)
        for part, client_id in enumerate(workers):
            share = {"part": part, "parts": len(workers)}
            runner.send_message(SHARE, share, client_id)
        return
    assert options is not None
    shop.begin(options.sale, options.abandon)


def _take_share(environment: Environment, msg: Any, **_: Any) -> None:
    _open_tokens(environment, msg.data["part"], msg.data["parts"])


def _open_tokens(environment: Environment, part: int, parts: int, *, keep: bool = False) -> None:
    """`keep` only looks whether there are tokens: a worker is told its share by the master."""
    assert environment.parsed_options is not None
    path = Path(environment.parsed_options.tokens)
    try:
        if keep:
            shop.buyers.check(path)
        else:
            shop.buyers.open(path, part, parts)
    except NoTokens as error:
        raise SystemExit(str(error)) from error


@events.report_to_master.add_listener  # type: ignore[untyped-decorator]
def report(data: dict[str, Any], **_: Any) -> None:
    """A worker tells the master how things stand; locust packs it."""
    data[REPORT] = msgspec.to_builtins(shop.ledger.summary(run.users()))


@events.worker_report.add_listener  # type: ignore[untyped-decorator]
def read_report(client_id: str, data: dict[str, Any], **_: Any) -> None:
    """The master keeps the newest summary of each worker."""
    if REPORT in data:
        run.summaries[client_id] = msgspec.convert(data[REPORT], Summary)


@events.quitting.add_listener  # type: ignore[untyped-decorator]
def tell(environment: Environment, **_: Any) -> None:
    """Prints the tally where the run ends, and makes locust fail if a promise was not kept."""
    if isinstance(environment.runner, WorkerRunner):
        return
    summary = _standing(environment)
    print(f"\n{as_text(summary)}\n", flush=True)
    if not summary.holds:
        environment.process_exit_code = 1


def _awaited(environment: Environment) -> Summary:
    """As `_standing`; a worker that has not told anything yet counts as somebody who shops."""
    summary, runner = _standing(environment), environment.runner
    if isinstance(runner, MasterRunner):
        summary.users += max(0, runner.worker_count - len(run.summaries))
    return summary


def _standing(environment: Environment) -> Summary:
    """Over all processes of the run."""
    if isinstance(environment.runner, LocalRunner):
        return shop.ledger.summary(run.users())
    return run.total()
