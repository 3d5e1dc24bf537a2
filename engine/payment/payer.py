"""Carries payment messages to the providers and their answers back into Postgres, a batch at a time.

No connection and no lock is held while a provider is asked. Whether a charge happened is never
guessed: a call without an answer is repeated with the same payment id, or asked about.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from engine.errors import Unavailable
from engine.ids import Ids
from engine.payment import calls
from engine.payment.calls import Answer, postponed
from engine.payment.guarded import is_cut_off, is_failing
from engine.payment.late import LateCaptures
from engine.payment.provider import ChargeStatus, Provider, ProviderRefused, ProviderResult
from engine.payment.settlement import UNFORESEEN, settle
from engine.polling import pause, poll, supervise
from engine.store import outbox
from engine.store.database import Connection, Pool, postgres_errors
from engine.store.outbox import Message
from engine.store.payments import Row, add_captures, fetch_charges, mark_tried, take_unheard

logger = logging.getLogger(__name__)

KINDS: Final = ("pay", "refund", "late_capture", "collect", "void")
WITHOUT_PROVIDER: Final = ("late_capture",)
BATCH_MAX: Final = 128  # Messages per lane: two statements before the calls, a handful after.
LANES: Final = 2  # While one lane writes its answers, the other keeps the provider busy.
# No message is taken again while its call is under way: a call begins soon after its message was
# taken, or the message goes back, and it ends within its time, which is above the HTTP client's.
LEASE_SECONDS: Final = 20.0
BEGIN_SECONDS_MAX: Final = 10.0
CALL_SECONDS_MAX: Final = 8.0
IDLE_SECONDS: Final = 0.05
AWAY_SECONDS: Final = 0.5  # Between passes while a provider is away: knock, do not hammer.
STORE_ATTEMPTS_MAX: Final = 40  # Answers wait for Postgres about as long as their lease …
STORE_PAUSE_SECONDS: Final = 0.5  # … so that its restart costs no repeated calls.
QUERY_AFTER_SECONDS: Final = 10.0  # A webhook that has not come by then is asked after.
QUERY_IDLE_SECONDS: Final = 0.5
QUERY_BATCH_MAX: Final = 64


class Payer:
    """Serves 'capture', 'pay', 'collect', 'void', 'refund' and 'late_capture'. `capture_with` names a provider."""

    def __init__(
        self,
        pool: Pool,
        ids: Ids,
        providers: Mapping[str, Provider],
        late_captures: LateCaptures,
        *,
        capture_with: str | None,
        concurrency_max: int,
    ) -> None:
        self._pool = pool
        self._ids = ids
        self._providers = providers
        self._late_captures = late_captures
        self._capture_with = capture_with
        self._kinds = KINDS if capture_with is None else ("capture", *KINDS)
        self._turns = asyncio.Semaphore(concurrency_max)
        self._provider_away = False
        self._stopped = asyncio.Event()

    @property
    def charges_of(self) -> frozenset[str]:
        """The kinds of messages that it asks a provider to charge for, while one answers."""
        return calls.CHARGING.intersection(self._kinds) if self._providers else frozenset()

    @property
    def is_away(self) -> bool:
        """Whether some provider did not answer lately."""
        return self._provider_away or any(map(is_failing, self._providers.values()))

    async def run(self) -> None:
        """Pays until stopped. A lane that crashes comes back by itself: its neighbours go on."""
        lanes = [(self._pay_or_wait, IDLE_SECONDS)] * LANES + [
            (self.query_once, QUERY_IDLE_SECONDS)
        ]
        await asyncio.gather(*(self._supervise_lane(*lane) for lane in lanes))

    async def pay_once(self) -> int:
        """Serves at most a batch of messages; returns how many."""
        begin_by = asyncio.get_running_loop().time() + BEGIN_SECONDS_MAX
        messages, charges = await self._take()
        await self._mark_tried(messages, charges)
        late = [message for message in messages if message.kind == "late_capture"]
        asked = [message for message in messages if message.kind != "late_capture"]
        answers = await asyncio.gather(
            *(self._ask(message, _charge_of(message, charges), begin_by) for message in asked)
        )
        self._provider_away = any(answer.away for answer in answers)
        await self._settle(answers)
        for message in late:
            await self._serve_late(message, charges)
        return len(messages)

    async def query_once(self) -> int:
        """Asks after open payments that were not heard of for long; returns how many answered."""
        if self._is_cut_off():
            return 0
        with postgres_errors():
            async with self._pool.acquire() as connection:
                unheard = await take_unheard(
                    connection,
                    after_seconds=QUERY_AFTER_SECONDS,
                    count=QUERY_BATCH_MAX,
                    cut_off=self._cut_off(),
                )
        answers = await asyncio.gather(*(self._query(row) for row in unheard))
        results = [result for result in answers if result is not None]
        if results:
            with postgres_errors():
                async with self._pool.acquire() as connection, connection.transaction():
                    await settle(connection, results)
        return len(results)

    def stop(self) -> None:
        """Makes `run` return after the passes it is in. Idempotent, safe before start."""
        self._stopped.set()

    async def _pay_or_wait(self) -> int:
        served = await self.pay_once()
        if self._provider_away or self._cut_off():
            await pause(self._stopped, AWAY_SECONDS)
        return served

    async def _supervise_lane(self, once: Callable[[], Awaitable[int]], seconds: float) -> None:
        await supervise("Payer", lambda: poll(once, self._stopped, seconds), self._stopped)

    async def _take(self) -> tuple[list[Message], dict[object, Row]]:
        """Leased messages, and their payments by id and, for captures, by order."""
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                messages = await outbox.take(
                    connection,
                    self._kinds_now(),
                    count=BATCH_MAX,
                    lease_seconds=LEASE_SECONDS,
                    cut_off=self._cut_off(),
                )
                if not messages:
                    return [], {}
                captures = [(m.sale_id, m.reference) for m in messages if m.kind == "capture"]
                await self._make_captures(connection, captures)
                rows = await fetch_charges(
                    connection, [m.reference for m in messages if m.kind != "capture"], captures
                )
        charges: dict[object, Row] = {row["payment_id"]: row for row in rows}
        for row in rows:
            if row["idempotency_key"] == "auto":
                charges[row["sale_id"], row["reservation_id"]] = row
        return messages, charges

    def _kinds_now(self) -> Sequence[str]:
        """What needs a provider that may not be asked stays in the outbox as it is."""
        if self._is_cut_off():
            return WITHOUT_PROVIDER
        if self._capture_with in self._cut_off():
            return KINDS
        return self._kinds

    def _cut_off(self) -> list[str]:
        """The providers whose breakers are open: they hold up nobody who pays with another."""
        return [name for name, provider in self._providers.items() if is_cut_off(provider)]

    def _is_cut_off(self) -> bool:
        """Whether that is all of them."""
        return bool(self._providers) and len(self._cut_off()) == len(self._providers)

    async def _make_captures(
        self, connection: Connection, orders: Sequence[tuple[str, str]]
    ) -> None:
        if orders and self._capture_with is not None:
            await add_captures(
                connection,
                [sale_id for sale_id, _ in orders],
                [reservation_id for _, reservation_id in orders],
                [self._ids.new("pay") for _ in orders],
                self._capture_with,
            )

    async def _mark_tried(self, messages: Sequence[Message], charges: Mapping[object, Row]) -> None:
        """Before the calls, so that nobody takes a charge on its way for one that was never made.

        In a transaction of its own: it waits for orders, and the messages are not to be locked then.
        """
        tried = [
            charge["payment_id"]
            for message in messages
            if (charge := _charge_of(message, charges)) is not None
            and calls.is_to_charge(message, charge)
            and (message.kind, message.attempts) != ("capture", 1)  # Marked when it was made.
        ]
        if tried:
            with postgres_errors():
                async with self._pool.acquire() as connection, connection.transaction():
                    await mark_tried(connection, tried)

    async def _ask(self, message: Message, charge: Row | None, begin_by: float) -> Answer:
        """One provider call at most. Never raises, so that neighbours are not harmed."""
        if charge is None:
            return Answer(message)  # The order was resolved before a payment was made.
        try:
            async with self._turns:
                if self._stopped.is_set() or asyncio.get_running_loop().time() > begin_by:
                    return postponed(message, "it had no turn in time")
                async with asyncio.timeout(CALL_SECONDS_MAX):
                    result = await calls.call(self._providers[charge["provider"]], message, charge)
                return calls.answer(message, charge, result)
        except (Unavailable, TimeoutError) as error:
            reason = str(error) or f"no answer within {CALL_SECONDS_MAX} s"
            return postponed(message, reason, away=True)
        except Exception as error:
            logger.exception("A payment call failed.", extra={"action": "payment_call_failed"})
            return Answer(message, error=f"{type(error).__name__}: {error}")

    async def _query(self, row: Row) -> ProviderResult | None:
        provider, payment_id = row["provider"], row["payment_id"]
        try:
            async with self._turns, asyncio.timeout(CALL_SECONDS_MAX):
                return await self._providers[provider].query(calls.charge_of(row))
        except (Unavailable, TimeoutError):
            return None  # Still unknown; asked again when the others had their turn.
        except (KeyError, ProviderRefused) as error:
            logger.error(
                "Provider %s does not tell of payment %s: %s",
                provider,
                payment_id,
                error,
                extra={"action": "payment_query_failed"},
            )
            return ProviderResult(payment_id, ChargeStatus.PENDING)
        except Exception:
            logger.exception("A payment query failed.", extra={"action": "payment_query_failed"})
            return None

    async def _settle(self, answers: Sequence[Answer]) -> None:
        """Writes a batch of answers; where one of them is bad, each by itself."""
        if not answers:
            return
        try:
            await self._write_patiently(answers)
        except UNFORESEEN as error:
            if len(answers) > 1:
                for answer in answers:
                    await self._settle([answer])
            else:
                logger.exception("A payment cannot be stored.", extra={"action": "settle_failed"})
                await self._write([Answer(answers[0].message, error=str(error))])

    async def _write_patiently(self, answers: Sequence[Answer]) -> None:
        for _ in range(STORE_ATTEMPTS_MAX):
            with suppress(Unavailable):
                await self._write(answers)
                return
            await pause(self._stopped, STORE_PAUSE_SECONDS)
        await self._write(answers)

    async def _write(self, answers: Sequence[Answer]) -> None:
        done = [answer for answer in answers if answer.error is None]
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                await settle(connection, [a.result for a in done if a.result is not None])
                await outbox.finish(connection, [answer.message for answer in done])
                for answer in answers:
                    await _repeat(connection, answer)

    async def _serve_late(self, message: Message, charges: Mapping[object, Row]) -> None:
        charge = _charge_of(message, charges)
        if charge is None:
            await self._write([Answer(message, error="no such payment")])
            return
        try:
            await self._late_captures.serve(message, charge)
        except Unavailable as error:
            await self._write([postponed(message, str(error))])
        except Exception as error:
            # Of this one alone: those behind it are not to wait.
            logger.exception("A late payment failed.", extra={"action": "late_capture_failed"})
            await self._write([Answer(message, error=f"{type(error).__name__}: {error}")])


async def _repeat(connection: Connection, answer: Answer) -> None:
    if answer.error is None:
        return
    if answer.repeat_seconds_max is None:
        await outbox.fail(connection, [answer.message], answer.error)
    else:
        await outbox.postpone(connection, [answer.message], answer.error, answer.repeat_seconds_max)


def _charge_of(message: Message, charges: Mapping[object, Row]) -> Row | None:
    if message.kind == "capture":
        return charges.get((message.sale_id, message.reference))
    return charges.get(message.reference)
