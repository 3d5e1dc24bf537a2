"""Fronts that follow rooms in a real Redis: they agree, and nobody's place hangs on one of them."""

import asyncio
import json
from collections.abc import AsyncIterator
from random import Random
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from engine.admission.pulse import Pulse
from engine.admission.room.draw import Finding, seed_hash, verify
from engine.admission.room.rooms import ATTEND_SECONDS, FOLLOW_SECONDS, Rooms, merged
from engine.admission.room.settings import RoomOrder, RoomSettings
from engine.admission.room.store import Numbers, RoomStore
from engine.clock import ManualClock
from engine.connections import connect_redis
from engine.errors import RedisUnavailable
from engine.inventory import Inventory
from engine.keys import room_keys
from engine.sales.directory import SaleDirectory
from engine.sales.sale import Sale
from tests.lua.lobby import SALE_ID, SEED, crowd, enter, open_room, room_settings
from tests.lua.shelf import ask, counters, wish

SECRET = "the-secret-of-this-test-32-characters"
PACE = 100.0
UNLIMITED = float("inf")


class Front:
    """One front's rooms, with a store of its own, and the visitors that happen to be sent to it."""

    def __init__(
        self, redis: Redis, clock: ManualClock, pace: float = PACE, name: str = ""
    ) -> None:
        self.clock = clock
        self.pulse = SimpleNamespace(pace=pace, fronts=1)
        self.store = RoomStore(redis, clock, our_clock_rules=True, name=name)
        self.settings = room_settings()
        self.rooms = Rooms(
            self.store,
            cast("SaleDirectory", SimpleNamespace(peek=lambda _: self.sale)),
            cast("Pulse", self.pulse),
            clock,
            SECRET,
        )

    @property
    def sale(self) -> Sale:
        return cast("Sale", SimpleNamespace(sale_id=SALE_ID, room=self.settings))

    @property
    def now_s(self) -> float:
        return self.clock.now_ms() / 1000

    async def follow(self) -> Any:
        room = await self.rooms.follow(self.sale)
        assert room is not None
        return room

    async def ticket(self, number: int, user: str = "u") -> bytes:
        token: bytes = (await self.follow()).issue(user, number, self.now_s)[0]
        return token

    async def poll(self, token: bytes, user: str = "u") -> dict[str, Any]:
        body = (await self.follow()).poll(token, user, self.now_s)
        assert body is not None
        told: dict[str, Any] = json.loads(body)
        return told

    async def passes(self, seconds: float, step: float = 0.1) -> None:
        for _ in range(round(seconds / step)):
            self.clock.advance(seconds=step)
            await self.rooms.refresh_once()

    async def drawn(self) -> None:
        """Until the places are known here."""
        tasks = [task for task in asyncio.all_tasks() if task.get_name() == f"draw {SALE_ID}"]
        await asyncio.gather(*tasks)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def inventory(redis: Redis, clock: ManualClock) -> Inventory:
    return Inventory(redis, clock, batch_max=64, queue_max=10_000)


@pytest.fixture
def front(redis: Redis, clock: ManualClock) -> Front:
    return Front(redis, clock)


@pytest.fixture
async def away() -> AsyncIterator[Redis]:
    """A Redis that nobody answers for."""
    client = connect_redis("redis://127.0.0.1:9/0", 0.2)
    yield client
    await client.aclose()


async def test_a_room_nobody_furnished_is_none(front: Front) -> None:
    assert await front.rooms.follow(front.sale) is None
    assert front.rooms.peek(front.sale) is None


def count_looks(front: Front) -> list[str]:
    """The sales that Redis will be asked about."""
    looks: list[str] = []
    serve = front.store.serve

    async def counted(sale_id: str, pace: float) -> Any:
        looks.append(sale_id)
        return await serve(sale_id, pace)

    front.store.serve = counted  # type: ignore[method-assign]
    return looks


async def test_a_crowd_that_comes_at_once_looks_once(front: Front, inventory: Inventory) -> None:
    await open_room(front.store, inventory, front.clock)
    looks = count_looks(front)
    rooms = await asyncio.gather(*(front.rooms.follow(front.sale) for _ in range(50)))
    assert looks == [SALE_ID]
    assert {id(room) for room in rooms} == {id(front.rooms.peek(front.sale))}


async def test_a_crowd_before_a_room_that_is_not_there_looks_ten_times_a_second(
    front: Front, inventory: Inventory
) -> None:
    looks = count_looks(front)
    for _ in range(50):
        await asyncio.gather(*(front.rooms.follow(front.sale) for _ in range(20)))
    assert len(looks) == 1
    await open_room(front.store, inventory, front.clock)
    looks.clear()
    assert await front.rooms.follow(front.sale) is None
    front.clock.advance(seconds=0.2)
    assert await front.rooms.follow(front.sale) is not None
    assert len(looks) == 1


async def test_two_fronts_agree_on_who_is_served_and_serve_no_faster_for_it(
    redis: Redis, front: Front, inventory: Inventory
) -> None:
    other = Front(redis, front.clock)
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 1000)
    tokens = [await front.ticket(number) for number in range(1, 1001)]
    await other.follow()
    for _ in range(50):
        await front.passes(0.1)
        await other.rooms.refresh_once()
    # Between the two looks of a turn nobody was served: time stood still.
    served = [n for n, token in enumerate(tokens, 1) if (await front.poll(token))["position"] == 0]
    room = await other.follow()
    assert [room.check(token, "u", front.now_s) for token in tokens if token] == [
        n if n <= len(served) else -1 for n in range(1, 1001)
    ]
    assert len(served) == pytest.approx(5 * PACE, rel=0.05)


async def test_a_front_that_restarts_in_mid_queue_keeps_everybodys_place(
    redis: Redis, front: Front, inventory: Inventory
) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 1000)
    tokens = {n: await front.ticket(n, f"user-{n - 1}") for n in (300, 600, 1000)}
    await front.passes(2)
    places = {n: (await front.poll(t, f"user-{n - 1}"))["position"] for n, t in tokens.items()}
    restarted = Front(redis, front.clock)
    for number, token in tokens.items():
        told = await restarted.poll(token, f"user-{number - 1}")
        assert told["position"] == places[number] == number - (await front.follow()).serving
    # And whoever asks for a number again, with his ticket in hand, gets the same.
    assert await enter(restarted.store, "user-599", holds_ticket=True) == ["KEPT 600"]


async def test_while_redis_is_away_everybody_is_told_what_was_last_known(
    front: Front, inventory: Inventory, away: Redis
) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 500)
    waiting, served = await front.ticket(400), await front.ticket(50)
    await front.passes(1)
    before = await front.poll(waiting)
    front.store._redis = away
    await front.passes(1)
    after = await front.poll(waiting)
    assert after["position"] == before["position"]
    room = await front.follow()
    assert room.check(served, "u", front.now_s) == 50
    assert room.check(waiting, "u", front.now_s) == -1


async def test_a_front_that_never_saw_redis_says_so(
    redis: Redis, clock: ManualClock, away: Redis
) -> None:
    with pytest.raises(RedisUnavailable):
        await Front(away, clock).rooms.follow(Front(redis, clock).sale)


async def test_redis_that_lost_everything_in_mid_queue_takes_nobodys_place(
    redis: Redis, front: Front, inventory: Inventory
) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 1000)
    token = await front.ticket(700)
    await front.passes(2)
    place = (await front.poll(token))["position"]
    await redis.flushall()
    # A front that starts now learns from the ticket what Redis has forgotten.
    fresh = Front(redis, front.clock)
    await open_room(fresh.store, inventory, front.clock)
    await fresh.poll(token)
    await fresh.passes(0.1)
    assert await enter(fresh.store, "newcomer") == ["ENTERED 701"]
    # The one that was there all the time brings back the rest.
    await front.passes(0.1)
    assert (await front.poll(token))["position"] <= place
    await fresh.passes(0.1)
    assert await enter(fresh.store, "another") == ["ENTERED 1001"]
    assert (await fresh.follow()).serving >= 700 - place > 0


async def test_switching_a_room_off_and_on_loses_nobody(front: Front, inventory: Inventory) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 500)
    token = await front.ticket(400)
    await front.passes(1)
    place = (await front.poll(token))["position"]
    assert await front.store.furnish(SALE_ID, room_settings(revision=2, on=False), SEED, Numbers())
    await front.passes(1)
    assert (await front.poll(token))["state"] == "open"
    assert await front.store.furnish(SALE_ID, room_settings(revision=3), SEED, Numbers())
    await front.passes(0.1)
    told = await front.poll(token)
    assert told["state"] == "waiting"
    assert 0 < told["position"] <= place


async def test_who_stops_polling_is_nobody_ahead_any_more(
    front: Front, inventory: Inventory
) -> None:
    front.pulse.pace = 0.0
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 10)
    tokens = [await front.ticket(number) for number in range(1, 11)]
    assert (await front.poll(tokens[9]))["ahead"] == 9
    for _ in range(24):
        for token in tokens[6:]:  # The first six are gone.
            await front.poll(token)
        await front.passes(5, step=5)
    assert (await front.poll(tokens[9]))["ahead"] == 3


async def test_attendance_that_redis_did_not_take_is_sent_again(
    redis: Redis, front: Front, inventory: Inventory, away: Redis
) -> None:
    front.pulse.pace = 0.0
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 10)
    await front.ticket(3)
    front.store._redis = away
    await front.passes(ATTEND_SECONDS, step=ATTEND_SECONDS)
    front.store._redis = redis
    await front.ticket(9)
    await front.passes(ATTEND_SECONDS, step=ATTEND_SECONDS)
    present = (await front.store.attend(SALE_ID, b"", None)).present
    assert present == merged(b"\x10", b"\0\x40")  # places 3 and 9


async def test_the_draw_is_computed_by_each_front_alike_and_can_be_verified(
    redis: Redis, front: Front, inventory: Inventory
) -> None:
    opens_at_ms = front.clock.now_ms() + 60_000
    await open_room(
        front.store,
        inventory,
        front.clock,
        order=RoomOrder.DRAW,
        sale={"opens_at_ms": opens_at_ms},
    )
    await crowd(front.store, 300)
    token = await front.ticket(150, "user-149")
    early = await front.poll(token, "user-149")
    assert (early["state"], early["position"]) == ("prequeue", None)
    other = Front(redis, front.clock, pace=0.0)
    front.pulse.pace = 0.0
    await front.passes(50, step=1)
    await front.poll(token, "user-149")
    await front.passes(11, step=1)
    await front.drawn()
    room = await other.follow()
    await other.drawn()
    place = (await front.poll(token, "user-149"))["position"]
    assert (await other.poll(token, "user-149"))["position"] == place == room.place_of(150)
    seed = bytes.fromhex(room.look.seed)
    verdict = verify(seed, seed_hash(bytes.fromhex(SEED)), room.look.drawn, 150, place)
    assert verdict.finding is Finding.HONEST


async def test_a_room_nobody_asks_about_is_forgotten_and_found_again(
    front: Front, inventory: Inventory
) -> None:
    await open_room(front.store, inventory, front.clock)
    room = await front.follow()
    await front.passes(FOLLOW_SECONDS - 1, step=1)
    assert front.rooms.peek(front.sale) is room  # And so it is kept for a while more.
    room.check(None, "u", front.now_s)
    await front.passes(FOLLOW_SECONDS - 1, step=1)
    assert room.known
    await front.passes(2, step=1)
    assert not room.known
    assert await front.rooms.refresh_once() == 0
    assert await front.follow() is not room


async def test_a_front_that_forgets_a_room_or_stops_is_not_missed_by_the_others(
    redis: Redis, inventory: Inventory, clock: ManualClock
) -> None:
    fronts = [Front(redis, clock, name=name) for name in ("one", "other")]
    await open_room(fronts[0].store, inventory, clock)
    attending = room_keys(SALE_ID).fronts
    for front in fronts:
        await front.follow()
        await front.passes(ATTEND_SECONDS, step=ATTEND_SECONDS)
    assert await redis.zrange(attending, 0, -1) == [b"one", b"other"]

    await fronts[0].follow()
    clock.advance(seconds=FOLLOW_SECONDS - ATTEND_SECONDS)
    await fronts[0].follow()
    clock.advance(seconds=ATTEND_SECONDS)
    await fronts[1].rooms.refresh_once()
    assert await redis.zrange(attending, 0, -1) == [b"one"]
    fronts[0].rooms.stop()
    await fronts[0].rooms.run()
    assert not await redis.exists(attending)


async def test_settings_that_change_reach_the_room(front: Front, inventory: Inventory) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 200)
    token = await front.ticket(20)
    front.settings = RoomSettings(revision=2, on=True, admission_seconds=30)
    await front.passes(1)
    admitted = (await front.poll(token))["ticket"].encode()
    ticket = front.rooms.tickets.read(admitted)
    assert ticket is not None
    assert ticket.expires_s == int(front.now_s) + 30


async def test_the_pace_is_shared_among_rooms_in_which_somebody_waits(
    front: Front, inventory: Inventory
) -> None:
    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 1000)
    room = await front.follow()
    await front.passes(0.1)
    front.rooms._followed["busy"] = cast(
        "Any", SimpleNamespace(room=SimpleNamespace(waiting=5, asked=True), asked_at=0.0)
    )
    assert front.rooms._share() == PACE / 2
    front.rooms._followed["busy"].room = cast("Any", SimpleNamespace(waiting=0))
    assert front.rooms._share() == PACE
    assert room.waiting > 0


async def test_what_visitors_were_told_is_counted(front: Front, inventory: Inventory) -> None:
    def counted(said: str) -> float:
        return REGISTRY.get_sample_value("doorbuster_queue_tickets_total", {"said": said}) or 0

    def promises() -> float:
        return REGISTRY.get_sample_value("doorbuster_queue_eta_error_ratio_count") or 0

    await open_room(front.store, inventory, front.clock)
    await crowd(front.store, 500)
    waiting, admitted, kept = counted("waiting"), counted("admitted"), promises()
    await front.passes(0.5)
    token = await front.ticket(200)
    await front.passes(3)
    assert (await front.poll(token))["state"] == "admitted"
    front.pulse.pace = 0.0
    await front.passes(1.2)
    assert (counted("waiting"), counted("admitted")) == (waiting + 1, admitted + 1)
    assert promises() == kept + 1
    assert REGISTRY.get_sample_value("doorbuster_queue_waiting") == (await front.follow()).waiting


async def test_a_rush_sells_out_and_the_waits_promised_before_it_come_true(
    front: Front, inventory: Inventory
) -> None:
    random, units, people, pace = Random(5), 400, 1500, 10.0
    front.pulse.pace = pace
    front.settings = room_settings(admission_seconds=30, absent_seconds=20, over_admission=2)
    opens_at_ms = front.clock.now_ms() + 30_000
    await open_room(
        front.store,
        inventory,
        front.clock,
        units=units,
        sale={"opens_at_ms": opens_at_ms},
        admission_seconds=30,
        absent_seconds=20,
        over_admission=2,
    )
    await crowd(front.store, people)
    tokens = {n: await front.ticket(n, f"user-{n - 1}") for n in range(1, people + 1)}
    promised = {n: await front.poll(token, f"user-{n - 1}") for n, token in tokens.items()}
    served: dict[int, float] = {}
    buying: dict[int, int] = {}  # Who reserves in which tenth of a second from now.
    room = await front.follow()
    began_s = front.now_s
    for tenth in range(1500):
        await front.passes(0.1)
        if tenth % 50 == 0:  # Everybody polls every five seconds.
            waiting = {n: token for n, token in tokens.items() if n > room.serving}
            tokens |= await poll_all(front, waiting)
        known = len(served)
        served |= dict.fromkeys(range(known + 1, room.serving + 1), front.now_s - began_s)
        for number in range(known + 1, room.serving + 1):
            if random.random() < 0.8:
                buying[number] = tenth + int(random.expovariate(1 / 40))
        ready = [n for n, due in buying.items() if due <= tenth]
        assert all(room.check(tokens[n], f"user-{n - 1}", front.now_s) == n for n in ready)
        if ready:
            wishes = (wish(f"user-{n - 1}", "black*1") for n in ready)
            await ask(inventory, *wishes, tickets=ready)
        buying = {n: due for n, due in buying.items() if due > tenth}
        if room.look.available == 0 and not buying:
            break
    assert await counters(inventory, "black") == (0, units, 0)
    errors = sorted(
        abs(promised[n]["eta_seconds"] - at) / at for n, at in served.items() if n <= units
    )
    assert errors[int(0.9 * len(errors))] <= 0.2
    assert all(promised[n]["chance"] > 0.9 for n in range(1, units // 2))
    assert promised[people]["chance_says"] == "none"


async def poll_all(front: Front, tokens: dict[int, bytes]) -> dict[int, bytes]:
    """The tickets to go on with."""
    told = {n: await front.poll(token, f"user-{n - 1}") for n, token in tokens.items()}
    return {n: body["ticket"].encode() for n, body in told.items()}


async def test_run_looks_until_it_is_stopped(front: Front, inventory: Inventory) -> None:
    await open_room(front.store, inventory, front.clock)
    room = await front.follow()
    front.clock.advance(seconds=1)
    seen = room.look
    running = asyncio.create_task(front.rooms.run())
    async with asyncio.timeout(5):
        while room.look is seen:  # noqa: ASYNC110  # The loop tells nobody that it looked.
            await asyncio.sleep(0)
    front.rooms.stop()
    front.rooms.stop()
    await running
    assert room.look is not seen
    assert running.done()
