"""A whole engine that a test may kill, process by process."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path

from tests.support.program import COMMAND, UpProcess, environ, get, run, until
from tests.support.sales import sale_document

STOCK = {"phone-black": 600, "phone-white": 400}
UNITS = sum(STOCK.values())
BUYERS = 4_000
RATE = 2_000  # per second: the crowd is still coming when the process dies


class Shop:
    """A whole engine, and what a test does to it."""

    def __init__(self, up: UpProcess, url: str, env: dict[str, str]) -> None:
        self.up = up
        self.url = url
        self.env = env

    def available(self, sale_id: str) -> int:
        status, text = get(f"{self.url}/v1/sales/{sale_id}")
        if status != 200:
            return UNITS
        return sum(item["available"] or 0 for item in json.loads(text)["items"])

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

    def sell(self, folder: Path, sale_id: str) -> None:
        """Puts a sale up that captures by itself."""
        document = folder / "sale.json"
        document.write_bytes(sale_document(sale_id, STOCK, auto_capture=True))
        assert run(f"sale create --file {document}", self.env).returncode == 0

    def assert_all_is_proven(self, sale_id: str) -> None:
        until(lambda: self.available(sale_id) == 0, "everything is taken")
        checked = run("check", self.env)
        assert checked.returncode == 0, checked.stdout
        assert len(re.findall(r"(?m)^ok ", checked.stdout)) == 11, checked.stdout


def start(data_dir: Path, port: int) -> Shop:
    up = UpProcess(environ(data_dir, port=str(port), front_processes="2"), "--demo")
    try:
        return Shop(up, up.wait_until_ready(), environ(data_dir))
    except BaseException:
        up.stop()
        raise
