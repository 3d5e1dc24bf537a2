"""The servers of the side-by-side: ours and its peers; how each is started, and what it needs here.

Starts one server at a time. What is asked of it, and what that costs, is measured elsewhere.
"""

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from hashlib import sha1
from importlib.util import find_spec
from pathlib import Path
from typing import Final, NamedTuple

from redis import Redis

from benchmarks import rig
from benchmarks.cores import pinned
from benchmarks.wrk import CONNECTIONS
from engine.admission.pace import PACE_KEY
from engine.config import Settings
from engine.servers.process import ServerProcess

PEERS: Final = Path(__file__).parent / "peers"
RESERVE_ONE: Final = PEERS / "reserve_one.lua"  # What the peers run in Redis.
BUILD: Final = Path(__file__).parent.parent / "build" / "peers"
SYSTEM_PATH: Final = ("/usr/sbin", "/sbin")  # nginx lives there; not everybody looks there.
NGINX_MODULES: Final = Path("/usr/lib/nginx/modules")
NGINX_REDIS: Final = Path("/usr/share/lua/5.1/nginx/redis.lua")
GO_LIBRARIES: Final = Path("/usr/share/gocode")
PACE_SAID_SECONDS: Final = 1.0  # Fronts believe it for five.
SETUP: Final = "`make bench-peers-setup` installs it"


class Place(NamedTuple):
    """Where a server under test runs and what it talks to."""

    folder: Path
    port: int
    core: int
    settings: Settings

    @property
    def redis_socket(self) -> str:
        assert self.settings.redis_url is not None
        return self.settings.redis_url.removeprefix("unix://")


Command = Callable[[Place], list[str]]


@contextmanager
def pace_kept(place: Place) -> Iterator[None]:
    """Says all the while, as a worker does, that whatever is reserved is stored.

    Nobody stores here, as nobody does beside the peers: without this, ours would slow down after
    some seconds.
    """
    ended = threading.Event()
    thread = threading.Thread(target=_keep_pace, args=(place, ended), name="keep the pace")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _keep_pace(place: Place, ended: threading.Event) -> None:
    with Redis(unix_socket_path=place.redis_socket) as redis:
        while True:
            said = {"per_second": "inf", "hop": "", "at_ms": time.time_ns() // 1_000_000}
            redis.hset(PACE_KEY, mapping=said)
            if ended.wait(PACE_SAID_SECONDS):
                return


@dataclass(frozen=True)
class Contender:
    """One server. `missing` says in a sentence what it lacks here, or nothing."""

    name: str
    title: str
    does: str  # beside HTTP
    command: Command
    missing: Callable[[], str | None] = lambda: None
    checks_tokens: bool = True  # else it believes a header
    keeps_pace: bool = False  # It admits no more than a worker says it stores.

    @contextmanager
    def serve(self, place: Place) -> Iterator[int]:
        """Runs it on its core; yields its process id once it answers."""
        command = pinned(place.core, [*_clean_environment(), *self.command(place)])
        server = ServerProcess(self.title, command, log_path=place.folder / f"{self.name}.log")
        with pace_kept(place) if self.keeps_pace else nullcontext():
            server.start(lambda: rig.answers(place.port))
            try:
                assert server.pid is not None
                yield server.pid
            finally:
                server.stop()


def _clean_environment() -> list[str]:
    """Settings of whoever runs the benchmark are not the benchmark's."""
    ours = [name for name in os.environ if name.startswith("DOORBUSTER_")]
    return ["env", *(f"--unset={name}" for name in sorted(ours))]


def nginx_static(place: Place) -> list[str]:
    return _nginx(place, PEERS / "static.location", global_part="", http_part="")


def nginx_lua(place: Place) -> list[str]:
    modules = [NGINX_MODULES / f"{name}_module.so" for name in ("ndk_http", "ngx_http_lua")]
    options = (
        f'{{ socket = "unix:{place.redis_socket}", pool = {CONNECTIONS}, '
        f'sha = "{sha1(RESERVE_ONE.read_bytes(), usedforsecurity=False).hexdigest()}" }}'
    )
    http_part = (
        f'lua_package_path "{PEERS}/?.lua;{NGINX_REDIS.parent.parent}/?.lua;;";\n'
        f'    init_by_lua_block {{ require("reserve_peer").configure({options}) }}'
    )
    loads = "\n".join(f"load_module {module};" for module in modules)
    return _nginx(place, PEERS / "lua.location", global_part=loads, http_part=http_part)


def _nginx(place: Place, location: Path, *, global_part: str, http_part: str) -> list[str]:
    if os.getuid() == 0:  # Its worker would become somebody who may not open Redis' socket.
        global_part += "\nuser root;"
    filled = {
        "FOLDER": str(place.folder),
        "PORT": str(place.port),
        "LOCATION": str(location),
        "GLOBAL": global_part,
        "HTTP": http_part,
    }
    text = (PEERS / "nginx.conf").read_text()
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    path = place.folder / "nginx.conf"
    path.write_text(text)
    return [_nginx_program(), "-p", str(place.folder), "-e", "stderr", "-c", str(path)]


def _nginx_program() -> str:
    path = os.pathsep.join((os.environ.get("PATH", ""), *SYSTEM_PATH))
    return shutil.which("nginx", path=path) or ""


def go(place: Place) -> list[str]:
    arguments = [str(place.port), place.redis_socket, str(RESERVE_ONE)]
    return ["GOMAXPROCS=1", str(build_go_peer()), *arguments]


@cache
def build_go_peer() -> Path:
    """The Go peer's program, compiled anew where its source is newer. Needs no network."""
    source, program = PEERS / "go" / "main.go", BUILD / "go-peer"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    BUILD.mkdir(parents=True, exist_ok=True)
    # Debian keeps the libraries' sources in one GOPATH, so modules and their proxy stay out of it.
    environment = os.environ | {
        "GO111MODULE": "off",
        "GOPATH": str(GO_LIBRARIES),
        "GOCACHE": str(BUILD / "go-cache"),
        "GOFLAGS": "",
        "CGO_ENABLED": "0",
    }
    command = ["go", "build", "-o", str(program), str(source)]
    subprocess.run(command, env=environment, check=True)
    return program


def naive(place: Place) -> list[str]:
    url, secret = place.settings.redis_url, place.settings.secret
    return [sys.executable, "-m", "benchmarks.peers.naive", str(place.port), str(url), str(secret)]


def bare(place: Place) -> list[str]:
    return [sys.executable, "-m", "benchmarks.peers.bare", str(place.port)]


def route(place: Place) -> list[str]:
    return _ours(place, {"GATE": "false"} if has_gate_setting() else {})


def gate(place: Place) -> list[str]:
    return _ours(place, {"GATE": "true"})


def _ours(place: Place, more: dict[str, str]) -> list[str]:
    settings = place.settings
    values = {
        "DATA_DIR": str(place.folder / "var"),
        "REDIS_URL": settings.redis_url,
        "POSTGRES_URL": settings.postgres_url,
        "SECRET": settings.secret,
        "DURABILITY": settings.durability.value,
        "PORT": str(place.port),
    } | more
    settings_words = [f"DOORBUSTER_{name}={value}" for name, value in values.items()]
    return [*settings_words, sys.executable, "-m", "api.cli.main", "serve"]


def has_gate_setting() -> bool:
    return "gate" in Settings.__struct_fields__


def gate_missing() -> str | None:
    if not has_gate_setting() or find_spec("ext.gate") is None:
        return "ext/ holds no compiled gate; the aiohttp route stands in for it"
    return None


def nginx_missing() -> str | None:
    return None if _nginx_program() else f"nginx is not here; {SETUP}"


def nginx_lua_missing() -> str | None:
    if sentence := nginx_missing():
        return sentence
    if not (NGINX_MODULES / "ngx_http_lua_module.so").exists():
        return f"nginx has no Lua module here; {SETUP}"
    return None if NGINX_REDIS.exists() else f"nginx's Lua has no Redis client here; {SETUP}"


def go_missing() -> str | None:
    if shutil.which("go") is None:
        return f"Go is not here; {SETUP}"
    for library in ("gin-gonic/gin", "gomodule/redigo"):
        if not (GO_LIBRARIES / "src" / "github.com" / library).exists():
            return f"Go's {library} is not here; {SETUP}"
    return None


NGINX_STATIC: Final = Contender(
    "nginx_static",
    "nginx, a static 201",
    "nothing",
    nginx_static,
    nginx_missing,
)
GATE: Final = Contender(
    "gate",
    "our gate",
    "token, throttle, checks, limit, replay, order entry",
    gate,
    gate_missing,
    keeps_pace=True,
)
ROUTE: Final = Contender(
    "route",
    "our aiohttp route",
    "the same as the gate: its fallback",
    route,
    keeps_pace=True,
)
NGINX_LUA: Final = Contender(
    "nginx_lua",
    "nginx + Lua + Redis",
    "limit, replay, order entry; no token, no throttle, no JSON parser",
    nginx_lua,
    nginx_lua_missing,
    checks_tokens=False,
)
GO: Final = Contender(
    "go",
    "Go: gin + redigo",
    "limit, replay, order entry; no token, no throttle",
    go,
    go_missing,
    checks_tokens=False,
)
NAIVE: Final = Contender(
    "naive",
    "naive aiohttp + redis-py",
    "token, limit, replay, order entry; no throttle, no checks",
    naive,
)
BARE: Final = Contender("bare", "bare aiohttp, a constant 201", "nothing", bare)
