"""The whole engine: `doorbuster up --demo` in a temporary folder, and two rushes against it.

    python -m benchmarks.whole [--buyers 50000] [--large 150000] [--seed 1]

One on the demo sale, which is sold out in a moment; one of `large` buyers on a sale that has units
for all of them: how many orders per second are accepted and stored. Prints the first one's report as
one JSON object, with the second's in `large`. Fails if an invariant does.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks import rig

COMMAND: Final = [sys.executable, "-m", "api.cli.main"]
STOP_SECONDS_MAX: Final = 60
UNITS_PER_BUYER: Final = 4  # Some click twice, some want two.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--buyers", type=int, default=50_000)
    parser.add_argument("--large", type=int, default=150_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with rig.temporary_folder() as folder:
        env = {name: value for name, value in os.environ.items() if "DOORBUSTER" not in name}
        env |= {"DOORBUSTER_DATA_DIR": str(folder / "var"), "DOORBUSTER_PORT": str(free_port())}
        log = (folder / "up.log").open("w+")
        up = subprocess.Popen([*COMMAND, "up", "--demo"], env=env, stdout=log, stderr=log)
        try:
            wait_until_ready(up, folder / "up.log")
            seed = ["--seed", str(options.seed)]
            demo = ["--sale", "demo", "--buyers", str(options.buyers), *seed]
            report = rush(env, folder / "rush.json", demo)
            units = ["--units", str(UNITS_PER_BUYER * options.large), "--connections", "1024"]
            large = [*units, "--buyers", str(options.large), *seed]
            report["large"] = rush(env, folder / "large.json", large)
            print(json.dumps(report))
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


def rush(env: dict[str, str], report: Path, words: list[str]) -> dict[str, Any]:
    done = subprocess.run(
        [*COMMAND, "rush", *words, "--json", str(report)],
        env=env,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        sys.exit("the rush failed")
    return dict(json.loads(report.read_text()))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
