"""Starts the engine's own processes and starts again whatever dies. Knows not what they do."""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from prometheus_client.multiprocess import mark_process_dead

from api.up.environment import METRICS_VARIABLE
from engine.clock import Clock
from engine.errors import DoorbusterError
from engine.servers.process import child_setup

STOP_SECONDS_MAX: Final = 60.0  # A worker drains what is left; a front finishes what is in flight.
RESTARTS_MAX: Final = 10  # within the period below; beyond it something is wrong for good
RESTARTS_PERIOD_SECONDS: Final = 60.0
BACK_OFF_SECONDS: Final = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # The last one repeats.
LAST_WORDS_BYTES: Final = 4096


class Process(Protocol):
    """What the supervisor needs to know of anything it keeps alive."""

    @property
    def pid(self) -> int | None: ...

    def alive(self) -> bool: ...

    def start(self) -> None: ...

    def stop(self) -> object: ...


Kind = TypeVar("Kind", bound=Process)


class GivenUp(DoorbusterError):
    """A process died too often. Everything is stopped."""


class Child:
    """One `doorbuster <command>` in a session of its own; it is told to stop if we die."""

    def __init__(
        self, command: Sequence[str], *, environ: Mapping[str, str], log_path: Path
    ) -> None:
        self._command = [sys.executable, "-m", "api.cli.main", *command]
        self._environ = dict(environ)
        self._log_path = log_path
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the process; whether it serves shows later."""
        self._forget_predecessor()
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the supervisor alone.
                preexec_fn=child_setup(death_signal=signal.SIGTERM),
            )

    def _forget_predecessor(self) -> None:
        """A process that died holds no requests in work and has no breaker open."""
        metrics_dir = self._environ.get(METRICS_VARIABLE)
        if self._process is not None and metrics_dir is not None:
            mark_process_dead(self._process.pid, metrics_dir)  # type: ignore[no-untyped-call]

    def ask_to_stop(self) -> None:
        if self.alive() and self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Asks the process to finish, waits, and kills it if it will not. Idempotent."""
        self.ask_to_stop()
        if self._process is None:
            return
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Watched(Generic[Kind]):
    """One process that has to live, and the story of its deaths."""

    def __init__(
        self, name: str, process: Kind, log_path: Path, clock: Clock, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self.process = process
        self._log_path = log_path
        self._clock = clock
        self._say = say
        self._deaths: deque[float] = deque(maxlen=RESTARTS_MAX)
        self._due: float | None = None  # when to start it again; None: it is thought alive

    def look_after(self) -> bool:
        """One look: starts the process again if it is dead and due. Whether it was started.

        Raises GivenUp if it died too often.
        """
        if self.process.alive():
            return False
        if self._due is None:
            self._mourn()
        if self._due is None or self._clock.monotonic() < self._due:
            return False
        self._due = None
        return self._start_again()

    def _start_again(self) -> bool:
        try:
            self.process.start()
        except DoorbusterError as error:
            self._say(str(error))
            return False
        self._say(f"{self.name} runs again as process {self.process.pid}.")
        return True

    def _mourn(self) -> None:
        now = self._clock.monotonic()
        if len(self._deaths) == RESTARTS_MAX and now - self._deaths[0] < RESTARTS_PERIOD_SECONDS:
            raise GivenUp(
                f"{self.name} died {RESTARTS_MAX} times within {RESTARTS_PERIOD_SECONDS:.0f} s: "
                f"{last_words(self._log_path)}"
            )
        self._deaths.append(now)
        recent = sum(now - death < RESTARTS_PERIOD_SECONDS for death in self._deaths)
        delay = BACK_OFF_SECONDS[min(recent, len(BACK_OFF_SECONDS)) - 1]
        self._due = now + delay
        later = f" in {delay:g} s" if delay else ""
        self._say(f"{self.name} died; starting it again{later}. See {self._log_path}.")


def last_words(log_path: Path) -> str:
    """The end of a log, in one line."""
    try:
        with log_path.open("rb") as log:
            log.seek(max(0, log_path.stat().st_size - LAST_WORDS_BYTES))
            lines = log.read().decode(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return lines[-1] if lines else f"see {log_path}"
