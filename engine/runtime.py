"""What a data folder tells about its engine: who runs on it, where its servers are, its secrets.

Starts nothing. `doorbuster up` writes here; every other command finds the running engine through it.
"""

import fcntl
import hmac
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Final, Self

import msgspec
from msgspec import structs

from engine.config import Durability, Settings
from engine.errors import ConfigError, DoorbusterError

LOCK_FILE: Final = "lock"
RUNNING_FILE: Final = "engine.json"
SECRETS_FILE: Final = "secrets"
SECRET_BYTES: Final = 32  # 256 bits, as RFC 7518 §3.2 asks for HS256.
PRIVATE: Final = 0o600
GATEWAYS: Final = ("alipay_", "wechatpay_", "stripe_")
NEEDED: Final = ("redis_url", "postgres_url", "secret")  # by whatever opens the engine


class AlreadyRunning(DoorbusterError):
    """Another engine holds the data folder."""


class Running(msgspec.Struct, frozen=True):
    """Where the engine on a data folder can be reached. Holds secrets: for its owner only."""

    pid: int  # of the supervisor
    public_url: str
    redis_url: str
    postgres_url: str
    secret: str
    durability: Durability
    sandbox_url: str | None = None
    sandbox_secret: str | None = None
    gateways: dict[str, str] = {}  # Settings of Alipay, WeChat Pay and Stripe, by name.


class Secrets(msgspec.Struct, frozen=True):
    """The secrets a demo makes for itself, kept so that tokens survive a restart."""

    secret: str
    sandbox_secret: str

    @classmethod
    def random(cls) -> Self:
        return cls(secrets.token_hex(SECRET_BYTES), secrets.token_hex(SECRET_BYTES))


def gateway_settings(settings: Settings) -> dict[str, str]:
    """What is set of Alipay, WeChat Pay and Stripe, for those who look for the running engine."""
    values = structs.asdict(settings).items()
    return {
        name: str(value)
        for name, value in values
        if name.startswith(GATEWAYS) and value is not None
    }


def carrier_secret(kept: Secrets) -> str:
    """What the sandbox carrier and the shop share; the file of secrets is older than it."""
    return hmac.new(kept.sandbox_secret.encode(), b"carrier", sha256).hexdigest()


class DataDirLock:
    """Lets one engine at a time run on a data folder. The kernel drops it when its process ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / LOCK_FILE
        self._file: int | None = None

    def take(self) -> None:
        """Raises AlreadyRunning, naming the process that holds it. Makes the folder if need be."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        except OSError as error:
            raise ConfigError(
                [f"DOORBUSTER_DATA_DIR={self._path.parent}: {error.strerror}"]
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 32).decode().strip() or "unknown"
            os.close(file)
            raise AlreadyRunning(
                f"An engine already runs on the data in {self._path.parent} (process {owner}): "
                "stop it first, or choose another DOORBUSTER_DATA_DIR."
            ) from None
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        """Lets the next engine in. Idempotent."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)


def is_running(data_dir: Path) -> bool:
    """Whether a supervisor holds the folder now."""
    try:
        file = os.open(data_dir / LOCK_FILE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def read_running(data_dir: Path) -> Running | None:
    """The engine that runs on the folder; None if none does, whatever an earlier one left behind."""
    if not is_running(data_dir):
        return None
    with suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode((data_dir / RUNNING_FILE).read_bytes(), type=Running)
    return None


def write_running(data_dir: Path, running: Running) -> None:
    _write_private(data_dir / RUNNING_FILE, msgspec.json.encode(running))


def forget_running(data_dir: Path) -> None:
    (data_dir / RUNNING_FILE).unlink(missing_ok=True)


def keep_secrets(data_dir: Path) -> Secrets:
    """The folder's secrets; random ones the first time."""
    if (kept := read_secrets(data_dir)) is not None:
        return kept
    made = Secrets.random()
    _write_private(data_dir / SECRETS_FILE, msgspec.json.encode(made))
    return made


def read_secrets(data_dir: Path) -> Secrets | None:
    """The folder's secrets, if it has any. Raises ConfigError where they cannot be read."""
    path = data_dir / SECRETS_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Secrets)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError([f"{path} cannot be read: {error}"]) from error


def resolve_settings(settings: Settings, needed: Sequence[str] = NEEDED) -> Settings:
    """The settings with the addresses and secrets of the engine that runs on their data folder.

    What was set explicitly wins. Raises ConfigError, one sentence, if one of `needed` stays unknown.
    """
    data_dir = Path(settings.data_dir)
    resolved = settings
    if (running := read_running(data_dir)) is not None:
        # The mode is a fact of the running servers, not a wish of this command.
        resolved = structs.replace(
            _fill(settings, structs.asdict(running) | running.gateways),
            durability=running.durability,
        )
    elif settings.secret is None and (kept := read_secrets(data_dir)) is not None:
        resolved = _fill(settings, structs.asdict(kept))
    missing = [f"DOORBUSTER_{name.upper()}" for name in needed if getattr(resolved, name) is None]
    if missing:
        raise ConfigError(
            [
                f"No engine runs on the data in {settings.data_dir!r}: start one with "
                "`doorbuster up`, name its folder in DOORBUSTER_DATA_DIR, "
                f"or set {' and '.join(missing)}."
            ]
        )
    return resolved


def _fill(settings: Settings, found: dict[str, object]) -> Settings:
    """The settings, with what is found where they say nothing."""
    unset = {
        name: value
        for name, value in found.items()
        if name in Settings.__struct_fields__ and getattr(settings, name) is None
    }
    return structs.replace(settings, **unset)


def _write_private(path: Path, content: bytes) -> None:
    # Beside its place and moved there whole: nobody reads half of it, and nobody else reads it.
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    try:
        os.write(file, content)
        os.fsync(file)
    finally:
        os.close(file)
    fresh.replace(path)
