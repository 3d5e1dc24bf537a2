"""Starts a server process that ends with its parent, waits until it serves, and stops it."""

import contextlib
import ctypes
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from engine.errors import DoorbusterError

START_SECONDS_MAX: Final = 60.0  # Replaying a large AOF or WAL takes its time.
STOP_SECONDS_MAX: Final = 30.0
POLL_SECONDS: Final = 0.02
SOCKET_PATH_MAX: Final = 90  # The kernel takes 107 bytes; servers append names of their own.
SOCKET_PATH = re.compile(r"[A-Za-z0-9._/-]+")  # What neither URLs nor Postgres' -k take apart.
PR_SET_PDEATHSIG: Final = 1
CLONE_NEWUSER: Final = 0x10000000


class ServerFailed(DoorbusterError):
    """A server could not be found, started or stopped. One sentence that says why."""


def socket_dir(data_dir: Path) -> Path:
    """A private folder for Unix sockets: under `data_dir`, or elsewhere if that path will not do."""
    folder = data_dir / "run"
    if len(str(folder)) > SOCKET_PATH_MAX or not SOCKET_PATH.fullmatch(str(folder)):
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
        folder = Path("/tmp") / f"doorbuster-{os.getuid()}-{name}"  # noqa: S108  # checked below
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise ServerFailed(f"{folder} belongs to somebody else; choose another data folder.")
    folder.chmod(0o700)
    return folder


def child_setup(*, death_signal: int, shed_root: bool = False) -> Callable[[], None]:
    """What a child does before exec: it gets `death_signal` when its parent dies.

    `shed_root` enters a user namespace without a mapping. Postgres refuses to run as root; there
    it sees itself as nobody, while the kernel still grants it what the owner of its files may do.
    """
    libc = ctypes.CDLL(None, use_errno=True)

    def setup() -> None:
        if shed_root and libc.unshare(CLONE_NEWUSER) != 0:
            os._exit(126)
        libc.prctl(PR_SET_PDEATHSIG, death_signal)

    return setup if sys.platform == "linux" else lambda: None


class ServerProcess:
    """One server process. `start` and `stop` block; both may be called again."""

    def __init__(
        self,
        name: str,
        command: list[str],
        *,
        log_path: Path,
        stop_signal: int = signal.SIGTERM,
        shed_root: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`environment` is added to ours; what the operator has set there himself stays."""
        self.name = name
        self._command = command
        self._log_path = log_path
        self._stop_signal = stop_signal
        self._shed_root = shed_root
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, ready: Callable[[], bool]) -> None:
        """Starts the process and returns once `ready()`. Raises ServerFailed with the log's last words."""
        if self.alive():
            return
        self._log_path.parent.mkdir(parents=True, exist_ok=True)
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self._environment, **os.environ},
                start_new_session=True,  # Ctrl-C reaches the supervisor alone; it stops us in order.
                preexec_fn=child_setup(death_signal=self._stop_signal, shed_root=self._shed_root),
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready():
            if not self.alive():
                raise ServerFailed(f"{self.name} did not start: {self._last_words()}")
            if time.monotonic() > deadline:
                self.stop()
                raise ServerFailed(f"{self.name} did not answer within {START_SECONDS_MAX:.0f} s.")
            time.sleep(POLL_SECONDS)

    def stop(self) -> bool:
        """Asks the process to stop, waits, and kills it if it will not. Idempotent.

        Returns whether it ran until now and ended by itself, without an error, when asked.
        """
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return False
        process.send_signal(self._stop_signal)
        try:
            return process.wait(STOP_SECONDS_MAX) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return False

    def _last_words(self) -> str:
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or f"see {self._log_path}"


def wait_for_predecessor(pid_path: Path, name: str) -> None:
    """Waits for a server of an earlier run that is still stopping; ServerFailed if it does not."""
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while (pid := _running_pid(pid_path, name)) is not None:
        if time.monotonic() > deadline:
            raise ServerFailed(f"{name} already runs on this data as process {pid}; stop it first.")
        time.sleep(POLL_SECONDS)


def _running_pid(pid_path: Path, name: str) -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        pid = int(pid_path.read_text().split()[0])
        if name in Path(f"/proc/{pid}/cmdline").read_text() and not _is_zombie(pid):
            return pid
    return None


def _is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
