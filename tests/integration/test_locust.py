"""The locust kit against a whole engine: a crowd that waits for the doors, and the books afterwards."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.runtime import read_running
from tests.support.locust import FOLDER, Locust, Told, shop
from tests.support.program import SECONDS_MAX, UpProcess, environ, free_port, run
from tests.support.sales import sale_document

STOCK = {"phone-black": 15, "phone-white": 10}
UNITS = 25
# Twice as many shoppers as units, and every one of them wants one.
CROWD = {
    "calm_users": 4,
    "spike_users": 50,
    "spike_seconds": 2,
    "decay_seconds": 1,
    "calm_seconds": 1,
}


class Site:
    """A running engine, and tokens of a thousand buyers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = environ(folder / "var", port=str(free_port()))
        self.tokens = folder / "tokens.txt"
        self.url = ""

    def put_up(self, sale_id: str, **changes: Any) -> dict[str, object]:
        """A sale, and the options to shop there."""
        document = self.folder / f"{sale_id}.json"
        document.write_bytes(sale_document(sale_id, STOCK, **changes))
        done = run(f"sale create --file {document}", self.env)
        assert done.returncode == 0, done.stderr
        return {"host": self.url, "sale": sale_id, "tokens": self.tokens, **CROWD}

    def rows(self, query: str, sale_id: str) -> list[Any]:
        running = read_running(self.folder / "var")
        assert running is not None
        return asyncio.run(_fetch(running.postgres_url, query, sale_id))

    def units(self, sale_id: str) -> int:
        [row] = self.rows("SELECT sum(ordered) FROM sale_items WHERE sale_id = $1", sale_id)
        return int(row[0])

    def buyers(self, sale_id: str) -> list[str]:
        return [
            row[0] for row in self.rows("SELECT user_id FROM orders WHERE sale_id = $1", sale_id)
        ]


async def _fetch(postgres_url: str, query: str, sale_id: str) -> list[Any]:
    connection = await asyncpg.connect(postgres_url)
    try:
        return list(await connection.fetch(query, sale_id))
    finally:
        await connection.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("locust"))
    up = UpProcess(site.env, "--demo")
    try:
        site.url = up.wait_until_ready()
        made = run("token --count 1000 --prefix load", site.env)
        site.tokens.write_text(made.stdout)
        yield site
    finally:
        up.stop()


def test_crowd_that_waits_for_the_doors_buys_every_unit_once(site: Site) -> None:
    options = site.put_up("doors", opens_in=6)

    told = shop(options | {"abandon": 0, "spike_seconds": 4})

    assert told.code == 0, told.text
    assert "Every acknowledged reservation was seen as an order." in told.text
    tally = told.tally
    assert tally["acknowledged"] == tally["ordered"] == UNITS
    assert tally["clicks"] == tally["acknowledged"] + tally["refused"]
    assert 0 < tally["paid"] <= UNITS
    assert (tally["unknown"], tally["missing"], tally["abandoned"]) == (0, 0, 0)
    assert " 0(0.00%) " in told.text.partition("Aggregated")[2]
    assert site.units("doors") == UNITS
    buyers = site.buyers("doors")
    assert len(buyers) == len(set(buyers)) == UNITS
    assert run("check doors", site.env).returncode == 0


def test_crowd_goes_through_the_waiting_room_and_home_when_nothing_is_left(site: Site) -> None:
    room = {"pace_max": 20, "proof_difficulty": 500, "admission_seconds": 10}
    options = site.put_up("lobby", opens_in=6, auto_capture=True, room=room)

    # Long enough for everybody's turn to come where other tests keep the machine busy.
    told = shop(options | {"abandon": 0, "spike_seconds": 16})

    assert told.code == 0, told.text
    tally = told.tally
    assert tally["acknowledged"] == tally["ordered"] == UNITS == site.units("lobby")
    assert tally["queued"] >= 50
    assert tally["gone"] > 0
    # Nobody clicks without a turn, and the turns are about as many as the units.
    assert UNITS <= tally["clicks"] < tally["queued"]
    assert (tally["unknown"], tally["missing"]) == (0, 0)
    assert "ticket_required" not in told.text
    assert run("check lobby", site.env).returncode == 0


def test_master_and_two_workers_share_buyers_without_overlap_and_add_up_one_tally(
    site: Site,
) -> None:
    options = site.put_up("shared") | {"abandon": 0}
    port = free_port()

    workers = [Locust(worker=True, master_port=port, tokens=site.tokens) for _ in range(2)]
    master = Locust(
        master=True,
        headless=True,
        only_summary=True,
        expect_workers=2,
        expect_workers_max_wait=30,
        master_bind_host="127.0.0.1",
        master_bind_port=port,
        **options,
    ).end()
    ends = [worker.end() for worker in workers]

    assert master.code == 0, master.text + "".join(end.text for end in ends)
    assert "Every acknowledged reservation was seen as an order." in master.text
    buyers = site.buyers("shared")
    assert master.tally["acknowledged"] == master.tally["ordered"] == len(buyers) == UNITS
    assert len(set(buyers)) == len(buyers)
    # One worker has the even lines of the file, the other the odd ones; both bought.
    assert {int(buyer.removeprefix("load-")) % 2 for buyer in buyers} == {0, 1}
    assert all("Doorbuster tally" not in end.text for end in ends)
    assert run("check shared", site.env).returncode == 0


def test_make_load_opens_a_sale_shops_there_and_proves_the_invariants(site: Site) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/load.py", "20", "9"],
        cwd=FOLDER,
        env=site.env,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "POST /v1/sales/[sale]/reservations" in done.stdout
    assert "Every acknowledged reservation was seen as an order." in done.stdout
    assert done.stdout.endswith("All 11 invariants hold.\n")
    [sale_id] = re.findall(r"^Sale (load-\S+): 40 units", done.stdout)
    assert len(site.buyers(sale_id)) == Told(0, done.stdout).tally["acknowledged"] > 0


def test_run_without_tokens_is_refused_in_one_sentence(site: Site, tmp_path: Path) -> None:
    told = shop({"host": site.url, "tokens": tmp_path / "none.txt"})

    assert told.code != 0
    assert "holds no tokens: `doorbuster token --count 10000" in told.text
    assert "Traceback" not in told.text
