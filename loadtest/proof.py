"""Solves a proof of work as a buyer's page does: altcha's first form, SHA-256. Pure Python, no locust.

Knows the public format and nothing of the engine: <https://altcha.org/docs/>.
"""

import base64
import json
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, Final

NUMBER_MAX: Final = 10_000_000  # Beyond it a shopper would compute for ten seconds: gives up.
BREATH_TRIES: Final = 2_000  # About 2 ms: then others may run, greenlets share one thread.


def solve(challenge: Mapping[str, Any], breathe: Callable[[], object] = bool) -> str | None:
    """The answer as `altcha` in a body, base64 of JSON; None if no number solves the challenge.

    `breathe` is called now and then.
    """
    if challenge.get("algorithm") != "SHA-256":
        return None
    salted, wanted = sha256(str(challenge["salt"]).encode()), str(challenge["challenge"])
    for number in range(min(int(challenge["maxnumber"]), NUMBER_MAX) + 1):
        if not number % BREATH_TRIES:
            breathe()
        attempt = salted.copy()
        attempt.update(b"%d" % number)
        if attempt.hexdigest() == wanted:
            return _answer(challenge, number)
    return None


def _answer(challenge: Mapping[str, Any], number: int) -> str:
    fields = {name: challenge[name] for name in ("algorithm", "challenge", "salt", "signature")}
    return base64.b64encode(json.dumps(fields | {"number": number}).encode()).decode()
