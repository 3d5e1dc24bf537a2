"""kill -9 of any one process during a rush: nothing oversold, nothing acknowledged is lost."""

import json
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.live import LiveEngine
from tests.support.sales import sale_document

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

UNITS = 1_000
BUYERS = 4_000
RATE = 2_000  # per second: the crowd is still coming when the process dies


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveEngine]:
    with LiveEngine(tmp_path_factory.mktemp("chaos")) as engine:
        yield engine


def units(live: LiveEngine, sale_id: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{live.url}/v1/sales/{sale_id}") as answer:
        [item] = json.load(answer)["items"]
    return {"stocked": item["stocked"], "available": item["available"]}


def wait_for_first_orders(live: LiveEngine, sale_id: str) -> None:
    """Polls until the crowd is in: some units are taken, but not all."""
    while units(live, sale_id)["available"] == UNITS:
        pass


@pytest.mark.parametrize("name", ["front-0", "worker", "Valkey", "Postgres", "sandbox"])
def test_kill_during_a_rush_loses_and_oversells_nothing(
    live: LiveEngine, tmp_path: Path, name: str
) -> None:
    sale_id = f"kill-{name.lower()}"
    document = tmp_path / "sale.json"
    document.write_bytes(sale_document(sale_id, {"phone-black": UNITS}, auto_capture=True))
    created = live.command("sale", "create", "--file", str(document))
    assert created.returncode == 0, created.stderr

    rush = live.background(
        "rush", "--sale", sale_id, "--buyers", str(BUYERS), "--rate", str(RATE), "--seed", "1"
    )
    wait_for_first_orders(live, sale_id)
    live.kill(name)
    report, _ = rush.communicate(timeout=120)

    assert rush.returncode == 0, report  # rush checks all invariants and every acknowledged id
    assert units(live, sale_id)["available"] == 0, report
    checked = live.command("check")
    assert checked.returncode == 0, checked.stdout
    assert len(re.findall(r"(?m)^ok ", checked.stdout)) == 11, checked.stdout
