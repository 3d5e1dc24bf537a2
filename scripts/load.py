"""load.py USERS SECONDS: sends locust's users against the running engine, then proves the invariants."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from api.tokens import Tokens
from engine.clock import SystemClock
from engine.config import read_settings
from engine.errors import DoorbusterError
from engine.runtime import resolve_settings

PROGRAMS = Path(sys.executable).parent
LOCUSTFILE = Path(__file__).parent.parent / "loadtest" / "locustfile.py"
SALE = "demo"


def main(users: int, seconds: int) -> int:
    settings = resolve_settings(read_settings(), ["secret", "public_url"])
    assert settings.secret is not None
    tokens = Tokens(settings.secret, SystemClock())
    with tempfile.NamedTemporaryFile("w", prefix="tokens-") as file:
        # New buyers each time: the limit per user would refuse those of the last.
        # A shopper comes as somebody else after each purchase, at most about once a second.
        buyers = range(users * seconds)
        file.writelines(f"{tokens.issue(f'load-{os.getpid()}-{n}')}\n" for n in buyers)
        file.flush()
        command = [
            *(str(PROGRAMS / "locust"), "-f", str(LOCUSTFILE), "--host", str(settings.public_url)),
            *("--headless", "--only-summary", "--users", str(users)),
            *("--spawn-rate", str(max(1, users // 5)), "--run-time", f"{seconds}s"),
        ]
        environ = os.environ | {"LOADTEST_TOKENS": file.name, "LOADTEST_SALE": SALE}
        loaded = subprocess.run(command, env=environ, check=False).returncode
    return loaded or subprocess.run([str(PROGRAMS / "doorbuster"), "check"], check=False).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
    except DoorbusterError as error:
        sys.exit(str(error))
