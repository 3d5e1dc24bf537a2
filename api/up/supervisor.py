"""Starts the whole engine in order, keeps it alive, and stops it in order so that nothing is lost.

Leaves serving to the fronts, draining to the worker, and what to prepare to `preparation`.
"""

import asyncio
import http.client
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from api.sandbox.gateway_keys import practised_gateways
from api.tokens import Tokens
from api.up.children import Child, Kind, Watched, last_words
from api.up.environment import child_environ, share_clients
from api.up.greeting import demo_greeting, greeting
from api.up.port import free_port, hold_port, local_url
from api.up.preparation import inspect_servers, note_clean_stop, prepare, reach_servers
from engine.clock import Clock
from engine.config import Settings
from engine.errors import ConfigError, DoorbusterError
from engine.ids import Ids
from engine.reach import redis_run_id
from engine.runtime import (
    DataDirLock,
    Running,
    carrier_secret,
    forget_running,
    gateway_settings,
    keep_secrets,
    write_running,
)
from engine.servers import EmbeddedPostgres, EmbeddedValkey

READY_SECONDS_MAX: Final = 60.0
PROBE_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 0.1  # How often deaths and signals are noticed.


class Interrupted(Exception):
    """The operator wants it to stop, before it was ready."""


class Supervisor:
    """Owns every process of one engine. `run` is the whole life; signals end it."""

    def __init__(
        self,
        settings: Settings,
        *,
        demo: bool,
        clock: Clock,
        ids: Ids,
        environ: Mapping[str, str],
        program: str,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._demo = demo
        self._clock = clock
        self._ids = ids
        self._environ = environ
        self._program = program
        self._say = say
        self._data_dir = Path(settings.data_dir).resolve()
        self._logs = self._data_dir / "logs"
        self._lock = DataDirLock(self._data_dir)
        self._port: socket.socket | None = None
        self._valkey: Watched[EmbeddedValkey] | None = None  # None: not ours
        self._postgres: Watched[EmbeddedPostgres] | None = None
        self._sandbox: Watched[Child] | None = None
        self._worker: Watched[Child] | None = None
        self._fronts: list[Watched[Child]] = []
        self._stopping = False

    def run(self) -> None:
        """Returns when everything was stopped in order. Raises DoorbusterError, with nothing left."""
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
        try:
            self._live()
        finally:
            self._stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _live(self) -> None:
        with suppress(Interrupted):
            self._take_place()
            self._start_servers()
            self._prepare()
            self._start_processes()
            self._wait_until_ready()
            self._greet()
            while True:
                self._look_after_all()

    def _on_signal(self, number: int, _: object) -> None:
        if not self._stopping:
            self._say(f"{signal.Signals(number).name}: stopping in order; nothing is lost.")
        self._stopping = True

    # Starting, in this order.

    def _take_place(self) -> None:
        settings = self._settings
        if settings.secret is None and not self._demo:
            raise ConfigError(
                ["DOORBUSTER_SECRET must be set: it signs the tokens (--demo makes a random one)."]
            )
        self._lock.take()
        self._port = hold_port(settings.host, settings.port)
        self._logs.mkdir(exist_ok=True)
        port = self._port.getsockname()[1]
        url = local_url(settings.host, port)
        self._settings = msgspec.structs.replace(
            settings,
            data_dir=str(self._data_dir),
            port=port,
            public_url=settings.public_url or url,
            **(self._demo_settings() if self._demo else {}),
        )

    def _demo_settings(self) -> dict[str, str]:
        kept = keep_secrets(self._data_dir)
        sandbox_url = self._settings.sandbox_url or local_url("127.0.0.1", free_port())
        return {
            **practised_gateways(self._settings, self._data_dir, sandbox_url),
            "secret": self._settings.secret or kept.secret,
            "sandbox_secret": self._settings.sandbox_secret or kept.sandbox_secret,
            "sandbox_url": sandbox_url,
            "carrier_secret": self._settings.carrier_secret or carrier_secret(kept),
            "carrier_url": self._settings.carrier_url or local_url("127.0.0.1", free_port()),
        }

    def _start_servers(self) -> None:
        # Those of others first: a wrong address is told at once, not after our own have started.
        asyncio.run(reach_servers(self._settings))
        if self._settings.redis_url is None:
            valkey = EmbeddedValkey(self._data_dir, self._settings.durability)
            self._valkey = self._start("Valkey", valkey, "valkey.log")
            self._settings = msgspec.structs.replace(self._settings, redis_url=valkey.url)
        if self._settings.postgres_url is None:
            postgres = EmbeddedPostgres(self._data_dir)
            self._postgres = self._start("Postgres", postgres, "postgres.log")
            self._settings = msgspec.structs.replace(self._settings, postgres_url=postgres.url)

    def _prepare(self) -> None:
        self._check_interrupt()
        for sentence in asyncio.run(prepare(self._settings, demo=self._demo)):
            self._say(sentence)
        write_running(self._data_dir, self._as_running())

    def _as_running(self) -> Running:
        settings = self._settings
        assert settings.public_url is not None
        assert settings.redis_url is not None
        assert settings.postgres_url is not None
        assert settings.secret is not None
        return Running(
            pid=os.getpid(),
            public_url=settings.public_url,
            redis_url=settings.redis_url,
            postgres_url=settings.postgres_url,
            secret=settings.secret,
            durability=settings.durability,
            sandbox_url=settings.sandbox_url,
            sandbox_secret=settings.sandbox_secret,
            gateways=gateway_settings(settings),
        )

    def _start_processes(self) -> None:
        metrics_dir = self._data_dir / "metrics"
        shutil.rmtree(metrics_dir, ignore_errors=True)  # Numbers of processes that are gone.
        metrics_dir.mkdir()
        settings = share_clients(self._settings, self._data_dir)
        environ = child_environ(settings, self._environ, metrics_dir)
        if self._demo:
            self._sandbox = self._start_child("sandbox", ["sandbox"], environ)
        self._worker = self._start_child("worker", ["work"], environ)
        count = self._settings.front_processes or len(os.sched_getaffinity(0))
        self._fronts = [
            self._start_child(f"front-{number}", ["serve"], environ) for number in range(count)
        ]

    def _start_child(
        self, name: str, command: list[str], environ: dict[str, str]
    ) -> Watched[Child]:
        log_name = f"{name}.log"
        child = Child(command, environ=environ, log_path=self._logs / log_name)
        return self._start(name, child, log_name)

    def _start(self, name: str, process: Kind, log_name: str) -> Watched[Kind]:
        self._check_interrupt()
        process.start()
        self._say(f"{name} runs as process {process.pid}.")
        return Watched(name, process, self._logs / log_name, self._clock, self._say)

    def _wait_until_ready(self) -> None:
        deadline = self._clock.monotonic() + READY_SECONDS_MAX
        while not _answers_ready(self._url):
            if self._clock.monotonic() > deadline:
                raise DoorbusterError(
                    f"The fronts were not ready within {READY_SECONDS_MAX:.0f} s: "
                    f"{last_words(self._logs / 'front-0.log')}"
                )
            self._look_after_all()

    def _greet(self) -> None:
        self._say(greeting(self._url, self._data_dir, self._program))
        if self._demo and self._settings.secret is not None:
            tokens = Tokens(self._settings.secret, self._clock)
            buyer = self._ids.new("buyer")
            self._say(demo_greeting(self._url, tokens, buyer))

    @property
    def _url(self) -> str:
        return local_url(self._settings.host, self._settings.port)

    # Living.

    def _look_after_all(self) -> None:
        time.sleep(LOOK_SECONDS)
        self._check_interrupt()
        for watched in self._all():
            started = watched.look_after()
            if started and watched is self._valkey:
                self._inspect_again()

    def _inspect_again(self) -> None:
        try:
            for sentence in asyncio.run(inspect_servers(self._settings)):
                self._say(sentence)
        except DoorbusterError as error:
            self._say(f"The stock could not be inspected yet: {error}")

    def _check_interrupt(self) -> None:
        if self._stopping:
            raise Interrupted

    def _all(self) -> list[Watched[Any]]:
        found: list[Watched[Any] | None] = [
            self._valkey,
            self._postgres,
            self._sandbox,
            self._worker,
            *self._fronts,
        ]
        return [watched for watched in found if watched is not None]

    # Stopping: producers before consumers, servers last.

    def _stop(self) -> None:
        for front in self._fronts:
            front.process.ask_to_stop()  # All at once; each is waited for below.
        for watched in [*self._fronts, self._worker, self._sandbox]:
            self._stop_one(watched)
        self._stop_valkey()
        self._stop_one(self._postgres)
        if self._port is not None:
            forget_running(self._data_dir)
            self._port.close()
            self._say("Stopped. The data is kept in " + str(self._data_dir) + ".")
        self._lock.release()

    def _stop_one(self, watched: Watched[Any] | None) -> None:
        if watched is not None:
            watched.process.stop()
            self._say(f"{watched.name} stopped.")

    def _stop_cleanly(self, valkey: Watched[EmbeddedValkey]) -> bool:
        clean = valkey.process.stop()
        self._say(f"{valkey.name} {'stopped' if clean else 'did not stop cleanly'}.")
        return clean

    def _stop_valkey(self) -> None:
        if self._valkey is None or not self._valkey.process.alive():
            return
        if self._settings.postgres_url is None:  # It never started: nothing was sold.
            self._stop_one(self._valkey)
            return
        try:
            run_id = asyncio.run(redis_run_id(self._settings))
            # Noted after the stop: a server that is killed in between must not look stopped.
            if self._stop_cleanly(self._valkey):
                asyncio.run(note_clean_stop(self._settings, run_id))
        except DoorbusterError as error:
            self._stop_one(self._valkey)
            self._say(f"The clean stop of Valkey could not be noted: {error}")


def _answers_ready(url: str) -> bool:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=PROBE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
