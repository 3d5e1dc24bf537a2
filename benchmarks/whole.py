"""The whole engine: `doorbuster up --demo` in a temporary folder, and a rush against it.

    python -m benchmarks.whole [--buyers 50000] [--seed 1]

Prints the rush's report as one JSON object. Fails if an invariant does.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks import rig

COMMAND: Final = [sys.executable, "-m", "api.cli.main"]
STOP_SECONDS_MAX: Final = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--buyers", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with rig.temporary_folder() as folder:
        env = {name: value for name, value in os.environ.items() if "DOORBUSTER" not in name}
        env |= {"DOORBUSTER_DATA_DIR": str(folder / "var"), "DOORBUSTER_PORT": str(free_port())}
        log = (folder / "up.log").open("w+")
        up = subprocess.Popen([*COMMAND, "up", "--demo"], env=env, stdout=log, stderr=log)
        try:
            wait_until_ready(up, folder / "up.log")
            rush(env, folder / "rush.json", options.buyers, options.seed)
        finally:
            up.send_signal(signal.SIGINT)
            up.wait(STOP_SECONDS_MAX)
            log.close()


def wait_until_ready(up: subprocess.Popen[bytes], log: Path) -> None:
    while "\nready " not in log.read_text():
        try:
            code = up.wait(0.1)
        except subprocess.TimeoutExpired:
            continue
        sys.exit(f"up ended with {code}:\n{log.read_text()}")


def rush(env: dict[str, str], report: Path, buyers: int, seed: int) -> None:
    words = ["rush", "--sale", "demo", "--buyers", str(buyers), "--seed", str(seed)]
    done = subprocess.run(
        [*COMMAND, *words, "--json", str(report)],
        env=env,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        sys.exit("the rush failed")
    print(report.read_text())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
