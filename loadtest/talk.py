"""One call to the engine over locust's client, and what of its answer a shopper reads.

Says which answers are failures: a refusal that a shop may give is none.
"""

import random
from collections.abc import Collection, Mapping
from typing import Any, Final, NamedTuple

from locust.contrib.fasthttp import FastHttpSession

RETRY_AFTER_SECONDS_MAX: Final = 30.0  # A longer wish than this outlives the run.
BACKOFF_SECONDS: Final = (0.2, 5.0)  # Without Retry-After: doubled each time up to the last.
NO_ANSWER: Final = 0  # locust's word for it
# Shed or lost: the same key makes repeating safe.
REPEATABLE: Final = frozenset({NO_ANSWER, 429, 503})
# Answers a shop gives every day: no failures of the engine.
REFUSALS: Final = frozenset(
    {
        *("sold_out", "all_reserved", "limit_reached", "sale_ended", "sale_paused", "not_started"),
        *("order_not_payable", "not_cancellable"),
    }
)
Body = dict[str, Any]


class Reply(NamedTuple):
    """An answer, or that there was none."""

    status: int
    body: Body
    retry_after_s: float | None
    ticket: str | None  # the Queue-Ticket header

    @property
    def code(self) -> str:
        """The problem's code; the status where there is none."""
        return str(self.body.get("code", f"status_{self.status}"))

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    @property
    def repeatable(self) -> bool:
        """Whether the same request with the same key may find out more. A pause is not waited for."""
        return self.status in REPEATABLE and self.code != "sale_paused"

    def pause_s(self, attempt: int) -> float:
        """How long to wait before the next request, jitter included; `attempt` counts from 0."""
        if self.retry_after_s is not None:
            wait_s = min(self.retry_after_s, RETRY_AFTER_SECONDS_MAX)
        else:
            wait_s = min(BACKOFF_SECONDS[0] * 2**attempt, BACKOFF_SECONDS[1])
        # Jitter, or all who were shed together would come back together.
        return wait_s + random.uniform(0, max(wait_s, BACKOFF_SECONDS[0]))


class Call(NamedTuple):
    """A request without its headers. `name` is what locust counts it under."""

    method: str
    path: str
    name: str
    body: Body | None = None


def send(
    session: FastHttpSession,
    call: Call,
    headers: Mapping[str, str],
    *,
    expected: Collection[int] = (),
) -> Reply:
    """One request; `expected` are statuses that are no failures here, besides 2xx and refusals."""
    with session.request(
        call.method,
        call.path,
        name=call.name,
        headers=dict(headers),
        json=call.body,
        catch_response=True,
    ) as answer:
        reply = _read(answer)
        if reply.ok or reply.status in expected or reply.code in REFUSALS:
            answer.success()
        elif reply.status == NO_ANSWER:
            answer.failure(f"no answer: {getattr(answer, 'error', None)!r}")
        else:
            answer.failure(f"{reply.status} {reply.code}")
    return reply


def _read(answer: Any) -> Reply:
    headers = answer.headers or {}
    seconds = headers.get("Retry-After", "")
    return Reply(
        status=answer.status_code or NO_ANSWER,
        body=_json(answer),
        retry_after_s=float(seconds) if seconds.isdigit() else None,
        ticket=headers.get("Queue-Ticket"),
    )


def _json(answer: Any) -> Body:
    if not answer.status_code or not answer.content:
        return {}
    try:
        value = answer.json()
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
