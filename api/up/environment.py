"""What the engine's processes are told: every setting, as DOORBUSTER_* variables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from engine.config import ENV_PREFIX, Settings

METRICS_VARIABLE: Final = "PROMETHEUS_MULTIPROC_DIR"
CLIENTS_FILE: Final = "clients"  # in the data folder


def child_environ(
    settings: Settings, environ: Mapping[str, str], metrics_dir: Path
) -> dict[str, str]:
    """Our own environment with all of its settings replaced by `settings`."""
    foreign = {name: text for name, text in environ.items() if not name.startswith(ENV_PREFIX)}
    own = {
        f"{ENV_PREFIX}{name.upper()}": str(value)
        for name, value in msgspec.structs.asdict(settings).items()
        if value is not None
    }
    return foreign | own | {METRICS_VARIABLE: str(metrics_dir)}


def share_clients(settings: Settings, data_dir: Path) -> Settings:
    """The settings with a file in which all fronts count clients; whichever starts first makes it.

    That of an earlier run is removed: what it says is over. A file that was named stays.
    """
    if settings.clients_file is not None:
        return settings
    path = data_dir / CLIENTS_FILE
    path.unlink(missing_ok=True)
    return msgspec.structs.replace(settings, clients_file=str(path))
