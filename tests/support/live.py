"""A whole engine in processes of its own, as an operator starts it: `doorbuster up --demo`."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

START_SECONDS_MAX: Final = 90.0
STOP_SECONDS_MAX: Final = 90.0
COMMAND_SECONDS_MAX: Final = 120.0
CLI: Final = [sys.executable, "-m", "api.cli.main"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveEngine:
    """`doorbuster up --demo` on a folder and port of its own. A context manager: stops on exit."""

    def __init__(self, data_dir: Path, **settings: object) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.lines: list[str] = []
        self._environ = {
            **{name: value for name, value in os.environ.items() if "DOORBUSTER" not in name},
            "DOORBUSTER_DATA_DIR": str(data_dir),
            "DOORBUSTER_PORT": str(self.port),
            **{f"DOORBUSTER_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self._process: subprocess.Popen[str] | None = None
        self._heard = threading.Condition()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [*CLI, "up", "--demo"],
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._listener = threading.Thread(target=self._listen, args=[self._process], daemon=True)
        self._listener.start()
        self.wait_for(r"^ready http://", START_SECONDS_MAX)

    def stop(self) -> int:
        """Ctrl-C; the exit status."""
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            self._listener.join(STOP_SECONDS_MAX)

    def wait_for(self, pattern: str, seconds: float, *, after: int = 0) -> re.Match[str]:
        """The first line (from number `after` on) that matches; AssertionError if none comes."""
        deadline = time.monotonic() + seconds
        with self._heard:
            while True:
                for line in self.lines[after:]:
                    if match := re.search(pattern, line):
                        return match
                alive = self._process is not None and self._process.poll() is None
                left = deadline - time.monotonic()
                if left <= 0 or not alive:
                    raise AssertionError(f"no {pattern!r} in:\n" + "\n".join(self.lines))
                self._heard.wait(min(left, 0.2))

    def pid_of(self, name: str) -> int:
        """The present process of a part: Valkey, Postgres, worker, sandbox, front-0 …"""
        found = [
            int(match.group(1))
            for line in self.lines
            if (match := re.match(rf"{name} runs (?:again )?as process (\d+)", line))
        ]
        return found[-1]

    def kill(self, name: str) -> None:
        """kill -9, then wait until the supervisor has started it again."""
        heard = len(self.lines)
        os.kill(self.pid_of(name), signal.SIGKILL)
        self.wait_for(rf"^{name} runs again", 30, after=heard)

    def command(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        """A `doorbuster` command on this engine."""
        return subprocess.run(
            [*CLI, *words],
            env=self._environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )

    def background(self, *words: str) -> subprocess.Popen[str]:
        """A `doorbuster` command that runs while the test goes on."""
        return subprocess.Popen(
            [*CLI, *words],
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as said:
            for line in said:
                with self._heard:
                    self.lines.append(line.rstrip("\n"))
                    self._heard.notify_all()
