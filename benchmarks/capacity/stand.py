"""The engine under test: servers, fronts and a worker of its own, kept off the generator's cores.

Started as operators start it: `doorbuster serve` and `doorbuster work`, default settings.
"""

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import asyncpg
import msgspec
import uvloop

from api.tokens import Tokens
from benchmarks.capacity.usage import cpu_seconds, on_cores, split_cores
from benchmarks.rig import SECRET, free_port, migrate, temporary_folder
from engine.clock import SystemClock
from engine.config import ENV_PREFIX, Durability, Settings
from engine.core import Engine
from engine.servers import EmbeddedPostgres, EmbeddedValkey
from engine.servers.process import ServerProcess
from engine.servers.valkey import find_valkey

BUYERS: Final = 30_000
BUYERS_QUICK: Final = 2_000
START_SECONDS_MAX: Final = 60
ROOT: Final = Path(__file__).resolve().parents[2]
COMMAND: Final = (sys.executable, "-m", "api.cli.main")
_numbers = itertools.count(1)
HOPS: Final = ("front", "redis", "worker", "postgres")


class RedisServer(Protocol):
    """What the stand needs of a Redis."""

    @property
    def url(self) -> str: ...
    @property
    def pid(self) -> int | None: ...
    def start(self) -> None: ...
    def stop(self) -> bool: ...


@dataclass
class Stand:
    """A running engine. `hops` are the processes whose CPU time is counted, by name."""

    folder: Path
    settings: Settings
    postgres_url: str  # the database itself, whatever the engine reaches it through
    port: int
    hops: dict[str, list[int]]
    tokens_file: Path
    generator_cores: tuple[int, ...]
    engine_cores: tuple[int, ...]

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by hop."""
        return {name: cpu_seconds(pids) for name, pids in self.hops.items()}

    @property
    def cores(self) -> dict[str, list[int]]:
        return {"engine": list(self.engine_cores), "generator": list(self.generator_cores)}


@contextmanager
def database(*, shared: bool = False) -> Iterator[EmbeddedPostgres]:
    """A Postgres for one stand after another, on the engine's cores; gone afterwards."""
    with temporary_folder() as folder:
        postgres = EmbeddedPostgres(folder)
        try:
            with on_cores(engine_cores(shared=shared)):
                postgres.start()
            yield postgres
        finally:
            postgres.stop()


def engine_cores(*, shared: bool) -> set[int]:
    """The engine's cores: its own, or, if `shared`, the generator's too."""
    own, generator = split_cores()
    return own | generator if shared else own


@contextmanager
def stand(
    postgres: EmbeddedPostgres,
    *,
    fronts: int = 1,
    durability: Durability = Durability.STRICT,
    buyers: int = BUYERS,
    shared: bool = False,
    changes: Mapping[str, object] | None = None,
    wire: Callable[[str], str] = str,
) -> Iterator[Stand]:
    """An engine with a Redis and a database of its own; gone afterwards. `changes` are settings that
    are not the default; `wire` makes of the database's URL the one that the engine is given."""
    cores, (_, generator_cores) = engine_cores(shared=shared), split_cores()
    with temporary_folder() as folder, contextlib.ExitStack() as stack:
        with on_cores(cores):
            redis = _redis(folder, durability)
            stack.callback(redis.stop)
            redis.start()
            postgres_url = uvloop.run(_new_database(postgres))
            settings = Settings(
                data_dir=str(folder),
                redis_url=redis.url,
                postgres_url=wire(postgres_url),
                secret=SECRET,
                durability=durability,
                port=free_port(),
            )
            settings = msgspec.structs.replace(settings, **(changes or {}))
            front_pids = [stack.enter_context(_process("serve", settings)) for _ in range(fronts)]
            worker_pid = stack.enter_context(_process("work", settings))
        assert redis.pid is not None
        assert postgres.pid is not None
        hops = [front_pids, [redis.pid], [worker_pid], [postgres.pid]]
        yield Stand(
            folder=folder,
            settings=settings,
            postgres_url=postgres_url,
            port=settings.port,
            hops=dict(zip(HOPS, hops, strict=True)),
            tokens_file=_write_tokens(folder, buyers),
            generator_cores=tuple(sorted(generator_cores)),
            engine_cores=tuple(sorted(cores)),
        )


async def open_engine(stand: Stand) -> Engine:
    """An engine of the benchmark's own: it puts sales up and checks them."""
    own = {"postgres_url": stand.postgres_url, "postgres_pool_max": 2}
    return await Engine.open(msgspec.structs.replace(stand.settings, **own))


async def _new_database(postgres: EmbeddedPostgres) -> str:
    """The URL of a migrated, empty database."""
    name = f"stand_{next(_numbers)}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    await migrate(postgres.url_of(name))
    return postgres.url_of(name)


def _redis(folder: Path, durability: Durability) -> RedisServer:
    if durability is Durability.REPLICATED:
        return ReplicatedValkey(folder)
    return EmbeddedValkey(folder, durability)


@contextmanager
def _process(command: str, settings: Settings) -> Iterator[int]:
    """`doorbuster <command>`, once it is ready; the pid."""
    log_path = Path(settings.data_dir) / f"{command}-{time.monotonic_ns()}.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, command], env=_environ(settings), cwd=ROOT, stdout=log, stderr=log
        )
    try:
        _await_ready(process, log_path)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_SECONDS_MAX)


def _environ(settings: Settings) -> dict[str, str]:
    foreign = {name: text for name, text in os.environ.items() if not name.startswith(ENV_PREFIX)}
    changed = {
        name: value
        for name, value in msgspec.structs.asdict(settings).items()
        if value != getattr(Settings(), name)
    }
    return foreign | {f"{ENV_PREFIX}{name.upper()}": str(value) for name, value in changed.items()}


def _await_ready(process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not any(word in log.read_text() for word in (" serves on ", " works as process ")):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The engine did not start:\n{log.read_text()}")
        time.sleep(0.05)


def _write_tokens(folder: Path, count: int) -> Path:
    tokens = Tokens(SECRET, SystemClock())
    path = folder / "tokens"
    path.write_text("".join(f"{tokens.issue(f'buyer-{n}')}\n" for n in range(count)))
    return path


class ReplicatedValkey:
    """A primary, AOF always, that writes only while its replica keeps up. Both on loopback."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._primary = self._server(folder, "primary", self._port, "--min-replicas-to-write 1")
        replica_of = f"--replicaof 127.0.0.1 {self._port}"
        self._replica_port = free_port()
        self._replica = self._server(folder, "replica", self._replica_port, replica_of)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._primary.pid

    @property
    def replica_pid(self) -> int | None:
        return self._replica.pid

    def start(self) -> None:
        """Returns once the primary has its replica."""
        self._primary.start(lambda: b"+PONG" in ask(self._port, b"PING"))
        self._replica.start(lambda: b"+PONG" in ask(self._replica_port, b"PING"))
        deadline = time.monotonic() + START_SECONDS_MAX
        while b"state=online" not in ask(self._port, b"INFO replication"):
            if time.monotonic() > deadline:
                raise RuntimeError("The replica does not follow its primary.")
            time.sleep(0.05)

    def stop(self) -> bool:
        self._replica.stop()
        return self._primary.stop()

    @staticmethod
    def _server(folder: Path, name: str, port: int, more: str) -> ServerProcess:
        data = folder / name
        data.mkdir(parents=True)
        options = (
            f"--port {port} --bind 127.0.0.1 --save --appendonly yes --appendfsync always "
            f"--maxmemory-policy noeviction --repl-diskless-sync-delay 0 {more}"
        ).split()
        options[options.index("--save") + 1 : options.index("--save") + 1] = [""]
        command = [str(find_valkey()), "--dir", str(data), *options]
        return ServerProcess(name, command, log_path=folder / "logs" / f"{name}.log")


def ask(port: int, command: bytes) -> bytes:
    """An inline command's answer; empty if nobody answers."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as client:
            client.sendall(command + b"\r\n")
            return client.recv(4096)
    except OSError:
        return b""
