"""Runs the `doorbuster` program as its user does: another process, its words, its exit code."""

import http.client
import os
import queue
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

SECONDS_MAX = 60.0  # For anything the program is waited for; a hang is a failure.
COMMAND = [sys.executable, "-m", "api.cli.main"]


def environ(data_dir: Path, **settings: str) -> dict[str, str]:
    """An environment without settings of ours, but for these and a demo shop that is loaded quickly."""
    settings = {"demo_products": "60"} | settings
    foreign = {k: v for k, v in os.environ.items() if not k.startswith("DOORBUSTER_")}
    named = {f"DOORBUSTER_{name.upper()}": text for name, text in settings.items()}
    return foreign | {"DOORBUSTER_DATA_DIR": str(data_dir)} | named


def run(arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """One command, to its end."""
    return subprocess.run(
        [*COMMAND, *shlex.split(arguments)],
        env=dict(env),
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(condition: Callable[[], bool], what: str) -> None:
    """Returns once the condition holds; fails, naming `what`, if it never does."""
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        threading.Event().wait(0.02)


class UpProcess:
    """A `doorbuster up` that runs. `lines` is all it has said so far."""

    def __init__(self, env: Mapping[str, str], *options: str) -> None:
        self.lines: list[str] = []
        self._said: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [*COMMAND, "up", *options],
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait_for(self, start: str) -> str:
        """The next line that starts so."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            line = self._said.get(timeout=max(0.01, deadline - time.monotonic()))
            assert line is not None, "ended:\n" + "\n".join(self.lines)
            if line.startswith(start):
                return line

    def wait_until_ready(self) -> str:
        """Its URL, once it serves and has said all it says then."""
        url = self.wait_for("ready ").removeprefix("ready ")
        self.wait_for("curl -s " + url + "/v1/reservations/")
        return url

    def calls(self) -> list[str]:
        return [line for line in self.lines if line.startswith("curl ")]

    def pid_of(self, name: str) -> int:
        """Of the newest process of that name, as it was told."""
        told = [line for line in self.lines if line.startswith(f"{name} runs ")]
        return int(told[-1].rstrip(".").rpartition(" ")[2])

    def stop(self, number: int = signal.SIGINT) -> int:
        """Its exit code. Idempotent."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(SECONDS_MAX)
        self._reader.join(SECONDS_MAX)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            for line in stdout:
                self.lines.append(line.rstrip("\n"))
                self._said.put(line.rstrip("\n"))
        self._said.put(None)


def call(line: str) -> str:
    """What a printed curl line answers; read and sent by hand where there is no curl."""
    if shutil.which("curl"):
        done = subprocess.run(
            line, shell=True, capture_output=True, text=True, timeout=SECONDS_MAX, check=True
        )
        return done.stdout
    words = shlex.split(line)
    headers = dict(words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H")
    body = words[words.index("-d") + 1] if "-d" in words else None
    return get(words[2], headers, "POST" if body else "GET", body)[1]


def get(
    url: str, headers: Mapping[str, str] | None = None, method: str = "GET", body: str | None = None
) -> tuple[int, str]:
    """(status, text) of one HTTP call; status 0 where nobody answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request(method, parts.path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except OSError:
        return 0, ""
    finally:
        connection.close()
