"""kill -9 of any one process during a rush: nothing oversold, nothing acknowledged is lost."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.mortal import UNITS, Shop, start
from tests.support.program import free_port, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

RUSH_SECONDS_MAX = 120


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = start(tmp_path_factory.mktemp("chaos"), free_port())
    yield shop
    shop.up.stop()


@pytest.mark.parametrize("name", ["front-0", "worker", "Valkey", "Postgres", "sandbox"])
def test_kill_during_a_rush_loses_and_oversells_nothing(
    shop: Shop, tmp_path: Path, name: str
) -> None:
    sale_id = f"kill-{name.lower()}"
    shop.sell(tmp_path, sale_id)

    with shop.start_rush(sale_id) as rush:
        until(lambda: shop.available(sale_id) < UNITS, "the crowd is in")
        shop.kill(name)
        report, _ = rush.communicate(timeout=RUSH_SECONDS_MAX)

    # The rush looks up every acknowledged reservation and checks all invariants.
    assert rush.returncode == 0, report
    shop.assert_all_is_proven(sale_id)


def test_kill_of_everything_at_once_loses_and_oversells_nothing(tmp_path: Path) -> None:
    port = free_port()
    before = start(tmp_path / "var", port)
    before.sell(tmp_path, "kill-all")
    with before.start_rush("kill-all") as rush:
        until(lambda: before.available("kill-all") < UNITS, "the crowd is in")
        before.up.stop(signal.SIGKILL)  # Its children are told by the kernel and end too.
        after = start(tmp_path / "var", port)
        try:
            report, _ = rush.communicate(timeout=RUSH_SECONDS_MAX)
            assert rush.returncode == 0, report
            after.assert_all_is_proven("kill-all")
        finally:
            after.up.stop()
