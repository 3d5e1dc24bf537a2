"""A buyer with a browser's worth of HTTP: one language, one currency, one account."""

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlencode

from tests.support.program import until

Found = TypeVar("Found")


@dataclass
class Reply:
    """An answer, read to its end."""

    status: int
    headers: dict[str, str]
    json: Any


@dataclass
class Shopper:
    """Whoever holds a token, or nobody in particular."""

    url: str
    language: str = "en"
    currency: str = "CNY"
    token: str | None = None

    def call(
        self, method: str, path: str, body: object = None, query: object = None, **headers: str
    ) -> Reply:
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        named["Accept-Language"] = self.language
        if self.token is not None:
            named["Authorization"] = f"Bearer {self.token}"
        data = None
        if body is not None:
            data, named["Content-Type"] = json.dumps(body).encode(), "application/json"
        text = f"{self.url}{path}{'?' + urlencode(query) if query else ''}"  # type: ignore[arg-type]
        request = urllib.request.Request(text, data, named, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return Reply(answer.status, dict(answer.headers), json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            return Reply(error.code, dict(error.headers), json.loads(error.read()))

    def get(self, path: str, **query: object) -> Any:
        """What is there; it must be there."""
        reply = self.call("GET", path, query=query)
        assert reply.status == 200, reply
        return reply.json

    def put(self, path: str, body: object) -> Any:
        return self._done(self.call("PUT", path, body))

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        """Asked again while the shop says that it is not ready for it yet (503)."""
        replies: list[Reply] = []

        def answered() -> bool:
            replies.append(self.call("POST", path, body, **headers))
            return replies[-1].status != 503

        until(answered, f"POST {path}")
        return self._done(replies[-1])

    def wait(self, path: str, condition: Callable[[Any], Found | None], what: str) -> Found:
        """What the condition finds at `path` once it finds something."""
        found: list[Found] = []

        def look() -> bool:
            seen = condition(self.get(path))
            if seen:
                found.append(seen)
            return bool(found)

        until(look, what)
        return found[0]

    @staticmethod
    def _done(reply: Reply) -> Any:
        assert 200 <= reply.status < 300, reply
        return reply.json
