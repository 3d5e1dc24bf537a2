"""kill -9 of any one process during a rush: nothing oversold, nothing acknowledged is lost."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import COMMAND, UpProcess, environ, free_port, get, run, until
from tests.support.sales import sale_document

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

UNITS = 1_000
BUYERS = 4_000
RATE = 2_000  # per second: the crowd is still coming when the process dies
RUSH_SECONDS_MAX = 120


class Shop:
    """A whole engine, and what a test does to it."""

    def __init__(self, up: UpProcess, url: str, env: dict[str, str]) -> None:
        self.up = up
        self.url = url
        self.env = env

    def available(self, sale_id: str) -> int:
        status, text = get(f"{self.url}/v1/sales/{sale_id}")
        return int(json.loads(text)["items"][0]["available"]) if status == 200 else UNITS

    def start_rush(self, sale_id: str) -> "subprocess.Popen[str]":
        words = f"rush --sale {sale_id} --buyers {BUYERS} --rate {RATE} --seed 1".split()
        return subprocess.Popen(
            [*COMMAND, *words],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def kill(self, name: str) -> None:
        """kill -9, then wait until the supervisor has started it again."""
        os.kill(self.up.pid_of(name), signal.SIGKILL)
        self.up.wait_for(f"{name} runs again")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    data_dir = tmp_path_factory.mktemp("chaos")
    up = UpProcess(environ(data_dir, port=str(free_port()), front_processes="2"), "--demo")
    try:
        yield Shop(up, up.wait_until_ready(), environ(data_dir))
    finally:
        up.stop()


@pytest.mark.parametrize("name", ["front-0", "worker", "Valkey", "Postgres", "sandbox"])
def test_kill_during_a_rush_loses_and_oversells_nothing(
    shop: Shop, tmp_path: Path, name: str
) -> None:
    sale_id = f"kill-{name.lower()}"
    document = tmp_path / "sale.json"
    document.write_bytes(sale_document(sale_id, {"phone-black": UNITS}, auto_capture=True))
    assert run(f"sale create --file {document}", shop.env).returncode == 0

    with shop.start_rush(sale_id) as rush:
        until(lambda: shop.available(sale_id) < UNITS, "the crowd is in")
        shop.kill(name)
        report, _ = rush.communicate(timeout=RUSH_SECONDS_MAX)

    assert rush.returncode == 0, (
        report
    )  # It looks up every acknowledged id and checks all invariants.
    until(lambda: shop.available(sale_id) == 0, "everything is taken")
    checked = run("check", shop.env)
    assert checked.returncode == 0, checked.stdout
    assert len(re.findall(r"(?m)^ok ", checked.stdout)) == 11, checked.stdout
