"""`doorbuster rush` as its user runs it: a crowd against a whole engine, and the proof afterwards."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from api.cli.rush_orders import count_orders, crowd_name, missing_orders
from engine.clock import SystemClock
from engine.model import public_id
from engine.runtime import read_running
from engine.store.database import Pool
from tests.support.program import UpProcess, environ, free_port, run
from tests.support.sales import make_inventory, open_sale, reserve_for, sale_document

STOCK = {"phone-black": 60, "phone-white": 40}
UNITS = 100
BUYERS = 600


class Site:
    """A running engine whose sales are ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data_dir = folder / "var"
        self.env = environ(self.data_dir)

    def put_up(self, sale_id: str) -> None:
        document = self.folder / f"{sale_id}.json"
        document.write_bytes(sale_document(sale_id, STOCK, auto_capture=True))
        done = run(f"sale create --file {document}", self.env)
        assert done.returncode == 0, done.stderr

    def rush(self, sale_id: str, options: str = "") -> tuple[int, str, dict[str, Any]]:
        """(exit code, what it said, its report)"""
        report = self.folder / f"{sale_id}-report.json"
        return self.report_of(f"rush --sale {sale_id} --buyers {BUYERS} {options}", report)

    def report_of(self, words: str, report: Path) -> tuple[int, str, dict[str, Any]]:
        done = run(f"{words} --json {report}", self.env)
        assert report.exists(), done.stdout + done.stderr
        return done.returncode, done.stdout, json.loads(report.read_text())


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("rush"))
    up = UpProcess(environ(site.data_dir, port=str(free_port())), "--demo")
    try:
        up.wait_until_ready()
        yield site
    finally:
        up.stop()


def test_crowd_buys_every_unit_once_however_often_it_comes(site: Site) -> None:
    site.put_up("all")

    code, said, report = site.rush("all", "--seed 7 --duplicates 0.3")

    assert code == 0, said
    assert report["units"] == {"stocked": UNITS, "ordered": UNITS, "sold": UNITS}
    assert report["outcomes"]["accepted"] == report["acknowledged"]
    assert report["orders"]["stored"] == report["orders"]["paid"] == report["acknowledged"]
    assert report["outcomes"]["replayed"] > 0
    assert sum(report["outcomes"].values()) == report["clicks"] > BUYERS
    assert "--seed 7" in said
    assert said.count("\nok ") == 11
    assert "all invariants hold" in said

    # The same seed is the same crowd with the same keys: it is told the same and gets no more.
    code, said, again = site.rush("all", "--seed 7 --duplicates 0.3 --rate 2000")

    assert code == 0, said
    assert again["acknowledged"] == report["acknowledged"]
    assert again["orders"]["stored"] == report["orders"]["stored"]
    assert again["units"] == report["units"]


def test_rush_on_a_sale_of_its_own_says_how_fast_orders_were_accepted_and_stored(
    site: Site,
) -> None:
    file = site.folder / "own.json"

    code, said, report = site.report_of("rush --units 1001 --buyers 700 --seed 9", file)

    assert code == 0, said
    assert report["sale_id"].startswith("rush-")
    assert report["units"]["stocked"] == 1001
    # Stock for all: whoever came first with a key got what they asked for.
    assert "sold_out" not in report["outcomes"]
    assert report["acknowledged"] == report["orders"]["stored"] == report["outcomes"]["accepted"]
    assert report["acknowledged"] >= 700
    assert report["orders"]["awaiting_payment"] == report["acknowledged"]
    assert report["stored_per_second"] > 0
    assert report["accepted_per_second"] > 0
    assert report["stored_seconds"] >= 0
    assert 0 < report["generator_cpu_us"] < 10_000
    assert f"Rush on {report['sale_id']}" in said


def test_own_sale_sells_out_to_two_generators_and_is_paid_by_itself(site: Site) -> None:
    file = site.folder / "paid.json"

    code, said, report = site.report_of("rush --units 50 --paid --buyers 200 --generators 2", file)

    assert code == 0, said
    assert report["units"] == {"stocked": 50, "ordered": 50, "sold": 50}
    assert report["orders"]["paid"] == report["acknowledged"]
    assert report["paid_seconds"] is not None


def test_speed_is_not_shown_where_an_invariant_is_broken(site: Site) -> None:
    site.put_up("broken")
    running = read_running(site.data_dir)
    assert running is not None
    asyncio.run(invent_a_sold_unit(running.postgres_url, "broken"))

    code, said, report = site.rush("broken")

    assert code == 1
    assert "BROKEN" in said
    assert "p50" not in said
    assert [line for line in report["broken"] if "ledger" in line]


async def invent_a_sold_unit(postgres_url: str, sale_id: str) -> None:
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "INSERT INTO ledger (sale_id, sku, counter, units, reason) "
        "VALUES ($1, 'phone-black', 'sold', 1, 'paid')",
        sale_id,
    )
    await connection.close()


@pytest.mark.parametrize(
    ("words", "sentence", "code"),
    [
        ("--sale nowhere", "There is no sale nowhere", 1),
        ("--sale shut", "Sale shut is closed", 1),
        ("--sale demo --rate 5 --burst", "choose one of --rate and --burst", 2),
        ("--sale demo --buyers 0", "--buyers", 2),
        ("--sale demo --units 5", "choose one of --sale and --units", 2),
        ("--paid", "--paid goes with --units", 2),
    ],
)
def test_rush_that_cannot_be_says_why(site: Site, words: str, sentence: str, code: int) -> None:
    if "shut" in words:
        site.put_up("shut")
        assert run("sale close shut", site.env).returncode == 0

    done = run(f"rush {words}", site.env)

    assert done.returncode == code
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_rush_without_an_engine_says_so(tmp_path: Path) -> None:
    done = run("rush", environ(tmp_path))
    assert done.returncode == 1
    assert "No engine runs on the data" in done.stderr


async def test_acknowledged_reservation_without_an_order_is_found(pool: Pool, redis: Any) -> None:
    inventory = make_inventory(redis, SystemClock())
    sale = await open_sale(pool, inventory)
    await reserve_for(inventory, sale, ["ann"])
    [held] = await inventory.reservations(sale.sale_id, "ann")
    promised = public_id(sale.sale_id, held.reservation_id)

    # Nobody drains here, so even the reservation that Redis holds is no order yet.
    assert await missing_orders(pool, {promised, "no id of ours"}) == [promised, "no id of ours"]
    assert (await count_orders(pool, sale.sale_id, crowd_name(1))).stored == 0


def test_a_rush_does_not_run_into_a_waiting_room(site: Site) -> None:
    site.put_up("roomy")
    assert run("admission set roomy --on", site.env).returncode == 0

    done = run("rush --sale roomy --buyers 10", site.env)

    assert done.returncode != 0
    assert "has its waiting room on" in done.stderr + done.stdout
