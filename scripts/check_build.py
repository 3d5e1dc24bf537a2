"""Says in one sentence what is missing to compile ext/. Silent if nothing is."""

import os
import shutil
import sys
import sysconfig
from pathlib import Path


def missing() -> str | None:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if not any(shutil.which(name) for name in (compiler, "cc")):
        return f"No C compiler here ({compiler}): install one (gcc or build-essential) and repeat."
    if not any((Path(folder) / "Python.h").exists() for folder in header_folders()):
        return (
            "Python's headers are missing: install the development package of "
            f"Python {sys.version_info.major}.{sys.version_info.minor} (python3-dev) and repeat."
        )
    return None


def header_folders() -> list[str]:
    return [sysconfig.get_path("include"), sysconfig.get_path("platinclude")]


if __name__ == "__main__":
    sys.exit(missing())
