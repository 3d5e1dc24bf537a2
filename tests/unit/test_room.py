"""One front's copy of a room: who is served, who keeps a place, and what those who wait are told."""

import json
import math
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission.room.draw import draw
from engine.admission.room.forecast import Outlook
from engine.admission.room.settings import RoomOrder
from engine.admission.room.store import RoomLook
from engine.model import SaleState

compiled = (import_module("ext.room"), import_module("ext.tickets"))
plain = (import_module("ext.plain.room"), import_module("ext.plain.tickets"))

KEY = b"a key of thirty-two bytes or so."
OPENS = 1_700_000_000
CLOSES = OPENS + 3600
NOW = OPENS + 10.0
TICKET_SECONDS = 300


def outlook(**changes: Any) -> Outlook:
    usual = Outlook(
        segments=((1800.0, 10.0),),
        places_per_second=1e6,
        leaving=0.0,
        variation=0.0,
        steady_seconds=5.0,
        supply=100.0,
        supply_variance=0.0,
        take=1.0,
        take_variance=0.16,
        take_doubt=0.05,
        undecided=0.0,
    )
    return usual._replace(**changes)


class Told:
    """A forecast that was told what to say."""

    def __init__(self, outlook: Outlook) -> None:
        self.outlook = outlook

    def learn(self, look: RoomLook) -> Outlook:
        return self.outlook


def look(**changes: Any) -> RoomLook:
    usual = RoomLook(
        now_ms=int(NOW * 1000),
        revision=1,
        on=True,
        order=RoomOrder.FIFO,
        issued=1000,
        serving=100,
        drawn=None,
        seed=None,
        rate=10.0,
        admitted=100,
        used=80,
        available=100,
        reserved=60,
        sold=20,
        opens_at_ms=OPENS * 1000,
        closes_at_ms=CLOSES * 1000,
        state=SaleState.OPEN,
        waiting=900,
        mark=0,
    )
    return usual._replace(**changes)


def before(**changes: Any) -> RoomLook:
    """Ten minutes before the opening."""
    early = {"now_ms": (OPENS - 600) * 1000, "serving": 0, "admitted": 0, "used": 0}
    return look(**(early | {"reserved": 0, "sold": 0} | changes))


@pytest.fixture(params=[compiled, plain], ids=["compiled", "plain"])
def forms(request: pytest.FixtureRequest) -> Any:
    return request.param


def make_room(forms: Any, first: RoomLook | None = None, sale_id: str = "demo", **seen: Any) -> Any:
    rooms, tickets = forms
    room = rooms.Room(sale_id, tickets.TicketKey(KEY), Told(outlook(**seen)))
    if first is not None:
        room.learn(first)
    return room


def read(forms: Any, token: bytes) -> Any:
    return forms[1].TicketKey(KEY).read(token)


def poll(room: Any, token: bytes, now_s: float = NOW, user: str = "u") -> dict[str, Any]:
    body = room.poll(token, user, now_s)
    assert body is not None, room.why(token, user, now_s)
    told: dict[str, Any] = json.loads(body)
    return told


def ticket(room: Any, number: int, now_s: float = NOW, user: str = "u") -> bytes:
    token: bytes = room.issue(user, number, now_s)[0]
    return token


# Who is served.


def test_a_number_is_admitted_as_soon_as_it_is_served_and_not_before(forms: Any) -> None:
    room = make_room(forms, look(serving=100))
    served, next_one = ticket(room, 100), ticket(room, 101)
    assert room.check(served, "u", NOW) == 100
    assert room.check(next_one, "u", NOW) == -1
    room.learn(look(serving=101, now_ms=int(NOW * 1000) + 100))
    assert room.check(next_one, "u", NOW) == 101


@pytest.mark.parametrize("token", [None, b"", b"nothing", b"x" * 250])
def test_what_is_no_ticket_admits_nobody(forms: Any, token: bytes | None) -> None:
    room = make_room(forms, look())
    assert room.check(token, "u", NOW) == 0
    assert room.poll(token, "u", NOW) is None
    assert room.why(token, "u", NOW) == ("required" if token is None else "forged")


def test_a_ticket_of_another_user_sale_or_engine_is_worth_nothing(forms: Any) -> None:
    room = make_room(forms, look())
    mine = ticket(room, 5)
    elsewhere = ticket(make_room(forms, look(), "other"), 5)
    rooms, tickets = forms
    forger = rooms.Room("demo", tickets.TicketKey(b"another key"), Told(outlook()))
    forger.learn(look())
    for token, user, why in (
        (mine, "v", "foreign"),
        (elsewhere, "u", "foreign"),
        (ticket(forger, 5), "u", "forged"),
    ):
        assert room.check(token, user, NOW) == 0
        assert room.poll(token, user, NOW) is None
        assert room.why(token, user, NOW) == why
    assert room.check(mine, "u", NOW) == 5


def test_a_ticket_edited_after_its_original_was_verified_is_found_out(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 101)
    assert room.check(token, "u", NOW) == -1
    lower = (
        forms[1].TicketKey(b"another key").sign("demo", "u", 101, OPENS, OPENS + 999_999, 1, True)
    )
    spliced = lower.rpartition(b".")[0] + b"." + token.rpartition(b".")[2]
    for forged in (lower, spliced, token[:-1] + (b"A" if token[-1:] != b"A" else b"B")):
        assert room.check(forged, "u", NOW) == 0
        assert room.why(forged, "u", NOW) == "forged"
    assert room.check(token, "u", NOW) == -1


def test_an_expired_ticket_replays_but_admits_and_polls_no_more(forms: Any) -> None:
    room = make_room(forms, look())
    token = forms[1].TicketKey(KEY).sign("demo", "u", 5, OPENS, int(NOW) + 50, -1, False)
    assert room.check(token, "u", NOW) == 5
    later = NOW + 50
    assert room.check(token, "u", later) == -1
    assert room.poll(token, "u", later) is None
    assert room.why(token, "u", later) == "expired"


def test_nothing_is_said_before_the_first_look(forms: Any) -> None:
    token = ticket(make_room(forms, look()), 5)
    room = make_room(forms)
    assert room.poll(token, "u", NOW) is None
    assert room.why(token, "u", NOW) == "unknown"
    with pytest.raises(ValueError, match="without a look"):
        room.issue("u", 5, NOW)


def test_two_fronts_with_the_same_looks_agree_on_who_is_served(forms: Any) -> None:
    one, other = make_room(forms, look()), make_room(forms, look())
    tokens = [ticket(one, number) for number in range(90, 111)]
    for serving in (100, 104, 103, 108):
        for room in (one, other):
            room.learn(look(serving=serving))
        assert [one.check(token, "u", NOW) for token in tokens] == [
            other.check(token, "u", NOW) for token in tokens
        ]
    assert [token for token in tokens if one.check(token, "u", NOW) > 0] == tokens[:19]


def test_serving_never_goes_back(forms: Any) -> None:
    room = make_room(forms, look(serving=100))
    room.learn(look(serving=3, issued=5))
    assert (room.serving, room.issued) == (100, 1000)


# Places are kept.


def test_a_front_that_restarts_in_mid_queue_finds_everybody_at_his_place(forms: Any) -> None:
    old = make_room(forms, look())
    tokens = {number: ticket(old, number, user=f"u{number}") for number in (150, 200, 999)}
    places = {n: poll(old, token, user=f"u{n}")["position"] for n, token in tokens.items()}
    new = make_room(forms, look())
    assert places == {150: 50, 200: 100, 999: 899}
    for number, token in tokens.items():
        assert poll(new, token, user=f"u{number}")["position"] == places[number]


def test_redis_that_lost_everything_takes_nobodys_place(forms: Any) -> None:
    room = make_room(forms, look())
    waiting, served = ticket(room, 500), ticket(room, 90)
    admitted = poll(room, served)["ticket"].encode()
    # A new front knows only an emptied Redis, and what tickets prove.
    new = make_room(forms, look(issued=0, serving=0, admitted=0, waiting=0))
    assert poll(new, waiting)["position"] == 500
    assert new.issued == 500
    assert new.check(admitted, "u", NOW) == 90
    assert poll(new, admitted)["state"] == "admitted"
    assert new.serving == 90
    assert poll(new, waiting)["position"] == 410


def test_a_waiting_ticket_lives_five_minutes_from_its_last_renewal(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500)
    assert read(forms, token).expires_s == int(NOW) + TICKET_SECONDS
    assert poll(room, token, NOW + 59)["ticket"].encode() == token
    renewed = poll(room, token, NOW + 61)["ticket"].encode()
    assert read(forms, renewed).expires_s == int(NOW) + 61 + TICKET_SECONDS
    assert read(forms, renewed).issued_s == read(forms, token).issued_s
    assert poll(room, renewed, NOW + 61 + 299)["position"] == 400
    assert room.poll(renewed, "u", NOW + 61 + 301) is None


def test_an_admission_is_short_and_polls_do_not_prolong_it(forms: Any) -> None:
    room = make_room(forms, look())
    room.learn_settings(admission_seconds=120, absent_seconds=45)
    token = ticket(room, 101)
    room.learn(look(serving=101))
    admitted = poll(room, token, NOW + 1)["ticket"].encode()
    assert read(forms, admitted).admitted
    assert read(forms, admitted).expires_s == int(NOW) + 121
    again = poll(room, admitted, NOW + 100)
    assert again["ticket"].encode() == admitted
    # The old ticket makes no admission that outlives itself.
    late = poll(room, token, NOW + 250)["ticket"].encode()
    assert read(forms, late).expires_s == int(NOW) + TICKET_SECONDS
    assert room.check(admitted, "u", NOW + 122) == -1


def test_clock_steps_change_no_place_and_admit_nobody_early(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500)
    for step in (-3600.0, -1.0, 0.0, 200.0):
        assert room.check(token, "u", NOW + step) == -1
        assert poll(room, token, NOW + step)["position"] == 400
    room.learn(look(now_ms=int(NOW * 1000) - 3_600_000))
    assert poll(room, token)["position"] == 400


# What is told.


def test_a_poll_tells_all_there_is_to_know(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 201)
    told = poll(room, token, NOW + 0.25)
    assert told == {
        "sale_id": "demo",
        "state": "waiting",
        "ticket": token.decode(),
        "number": 201,
        "position": 101,
        "ahead": 100,
        "eta_seconds": 10.1,
        "eta_range_seconds": [pytest.approx(9.5, abs=0.2), pytest.approx(10.7, abs=0.2)],
        "chance": told["chance"],
        "chance_says": "fair",
        "available": 100,
        "may_return": 60,
        "poll_after_seconds": told["poll_after_seconds"],
        "expires_at": datetime.fromtimestamp(NOW + 300, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "server_time": datetime.fromtimestamp(NOW, UTC).strftime("%Y-%m-%dT%H:%M:%S.250Z"),
    }


def test_absent_people_do_not_count_as_ahead_but_the_newest_do(forms: Any) -> None:
    room = make_room(forms, look(serving=0))
    bits = bytearray(50)
    for place in (3, 7, 200, 399):
        bits[place >> 3] |= 0x80 >> (place & 7)
    room.learn_present(bytes(bits), 300)
    assert room.ahead_of(8) == 2
    assert room.ahead_of(301) == 3
    assert room.ahead_of(401) == 103


@given(
    st.binary(max_size=300),
    st.integers(0, 2500),
    st.integers(0, 2500),
    st.lists(st.integers(1, 2600), min_size=1, max_size=20),
)
def test_people_ahead_are_counted_as_one_by_one(
    bitmap: bytes, mark: int, serving: int, places: list[int]
) -> None:
    def is_there(place: int) -> bool:
        if place > mark:
            return True
        return place >> 3 < len(bitmap) and bool(bitmap[place >> 3] & (0x80 >> (place & 7)))

    for forms in (compiled, plain):
        room = make_room(forms, look(serving=serving, issued=2600))
        room.learn_present(bitmap, mark)
        for place in places:
            assert room.ahead_of(place) == sum(map(is_there, range(serving + 1, place)))


def test_who_polls_is_noted_once_and_by_place(forms: Any) -> None:
    room = make_room(forms, look())
    for number in (101, 500, 777):
        poll(room, ticket(room, number))
    bits = room.take_attendance()
    there = [p for p in range(len(bits) * 8) if bits[p >> 3] & (0x80 >> (p & 7))]
    assert there == [101, 500, 777]
    assert room.take_attendance() == b""


@pytest.mark.parametrize(
    ("changes", "gone"),
    [
        ({"available": 0, "reserved": 0, "sold": 100}, True),
        ({"available": 0, "reserved": 1, "sold": 99}, False),
        ({"state": SaleState.CLOSED}, True),
        ({"state": SaleState.PAUSED}, False),
        ({"now_ms": CLOSES * 1000}, True),
        # Lost or being rebuilt: no reason to send people home.
        ({"available": 0, "reserved": 0, "sold": 0}, False),
        ({"available": 0, "reserved": 0, "sold": 9, "state": SaleState.DRAINING}, False),
        ({"available": 0, "reserved": 0, "sold": 0, "state": None, "closes_at_ms": 0}, False),
    ],
)
def test_everyone_is_told_at_once_when_nothing_can_be_had(
    forms: Any, changes: dict[str, Any], gone: bool
) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500)
    room.learn(look(**changes))
    told = poll(room, token)
    assert told["state"] == ("gone" if gone else "waiting")
    assert (told["position"] is None) == gone
    if gone:
        assert (told["chance"], told["chance_says"], told["eta_seconds"]) == (0, "none", None)


def test_a_sale_that_is_over_by_the_fronts_own_clock_is_gone(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500, CLOSES - 1.0)
    assert poll(room, token, CLOSES - 0.5)["state"] == "waiting"
    assert poll(room, token, float(CLOSES))["state"] == "gone"


def test_a_room_that_is_switched_off_sends_everyone_to_buy_and_on_again_keeps_places(
    forms: Any,
) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500)
    room.learn(look(on=False))
    told = poll(room, token)
    assert (told["state"], told["position"], told["eta_seconds"]) == ("open", 0, 0)
    room.learn(look(on=True))
    assert poll(room, token)["position"] == 400


def test_before_the_opening_the_wait_is_that_for_the_opening_too(forms: Any) -> None:
    room = make_room(forms, before())
    told = poll(room, ticket(room, 51, OPENS - 600.0), OPENS - 500.0)
    assert (told["state"], told["position"]) == ("prequeue", 51)
    assert told["eta_seconds"] == pytest.approx(505.1)


def test_before_the_draw_nobody_has_a_position(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, waiting=400))
    token = ticket(room, 51, OPENS - 600.0)
    told = poll(room, token, OPENS - 500.0)
    assert told["state"] == "prequeue"
    assert told["position"] is told["ahead"] is told["eta_seconds"] is None
    assert told["chance"] == 0.25
    assert room.check(token, "u", OPENS - 500.0) == -1


def test_the_draw_gives_places_and_who_comes_later_stands_behind(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=300))
    tokens = {number: ticket(room, number, OPENS - 100.0) for number in (1, 150, 300)}
    drawn = look(order=RoomOrder.DRAW, issued=300, drawn=300, seed="00" * 32, serving=0)
    room.learn(drawn)
    assert room.needs_draw
    # Until the places are computed here nobody is told one, and nobody is marked at a wrong one.
    assert poll(room, tokens[1])["position"] is None
    assert room.take_attendance() == b""
    places = draw(bytes(32), 300)
    room.learn_draw(places)
    assert not room.needs_draw
    for number, token in tokens.items():
        assert poll(room, token)["position"] == places[number - 1] == room.place_of(number)
    assert poll(room, ticket(room, 301))["position"] == 301
    room.learn(drawn._replace(serving=places[149]))
    assert room.check(tokens[150], "u", NOW) == 150
    assert {n for n in tokens if room.check(tokens[n], "u", NOW) > 0} == {
        n for n in tokens if places[n - 1] <= places[149]
    }


def test_a_draw_of_nobody_is_over_at_once(forms: Any) -> None:
    room = make_room(forms, look(order=RoomOrder.DRAW, issued=0, drawn=0, serving=0))
    assert not room.needs_draw
    assert poll(room, ticket(room, 1))["position"] == 1


def test_places_of_another_draw_are_refused(forms: Any) -> None:
    room = make_room(forms, look(order=RoomOrder.DRAW, drawn=300, seed="00" * 32))
    with pytest.raises(ValueError, match="drawn"):
        room.learn_draw(draw(bytes(32), 299))


def test_polls_by_number_do_not_count_for_the_places_drawn(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=300))
    poll(room, ticket(room, 51, OPENS - 600.0), OPENS - 500.0)
    room.learn(look(order=RoomOrder.DRAW, drawn=300, seed="00" * 32))
    assert room.take_attendance() == b""


# The forecast, for one place.


def test_the_wait_follows_a_rate_that_changes(forms: Any) -> None:
    room = make_room(forms, look(serving=0), segments=((10.0, 10.0), (60.0, 0.0), (100.0, 1.0)))
    waits = {n: poll(room, ticket(room, n))["eta_seconds"] for n in (1, 100, 101, 200, 201)}
    assert waits == {1: 0.1, 100: 10, 101: 71, 200: 170, 201: None}


def test_deserted_places_are_passed_at_a_bounded_speed(forms: Any) -> None:
    room = make_room(forms, look(serving=0), places_per_second=50.0)
    room.learn_present(b"", 900)
    told = poll(room, ticket(room, 901))
    assert (told["ahead"], told["eta_seconds"]) == (0, 18)


def test_people_who_leave_shorten_the_wait(forms: Any) -> None:
    steady = make_room(forms, look(serving=0))
    leaving = make_room(forms, look(serving=0), leaving=0.01)
    assert poll(steady, ticket(steady, 1000))["eta_seconds"] == 100
    told = poll(leaving, ticket(leaving, 1000))
    assert told["eta_seconds"] == pytest.approx(69.3)  # ln 2 / 0.01
    assert told["eta_range_seconds"][1] > 100  # Perhaps they stay.


def test_the_chance_falls_with_the_place_and_is_even_where_the_units_end(forms: Any) -> None:
    room = make_room(forms, look(serving=0, issued=1000))
    chances = [poll(room, ticket(room, n))["chance"] for n in (1, 80, 100, 101, 120, 300)]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] == 1
    assert chances[3] == pytest.approx(0.5, abs=0.06)
    assert chances[-1] == 0


def test_words_go_with_chances(forms: Any) -> None:
    room = make_room(forms, look(serving=0, issued=1000))
    words = {
        poll(room, ticket(room, n))["chance_says"]: poll(room, ticket(room, n))["chance"]
        for n in range(60, 160)
    }
    assert list(words) == ["good", "fair", "slim", "none"]
    assert words["good"] >= 0.75 > words["fair"] >= 0.35 > words["slim"] >= 0.02


def test_polls_come_oftener_as_the_turn_nears_and_never_in_step(forms: Any) -> None:
    room = make_room(forms, look(serving=0, issued=100_000))
    room.learn_settings(admission_seconds=120, absent_seconds=30)
    near = [poll(room, ticket(room, n))["poll_after_seconds"] for n in range(1, 20)]
    far = [poll(room, ticket(room, n))["poll_after_seconds"] for n in range(5001, 5101)]
    assert all(0.4 <= seconds <= 0.6 for seconds in near)
    assert all(8 <= seconds <= 12 for seconds in far)  # 10 s: a third of absent_seconds
    assert len(set(far)) > 20


# What is counted.


def test_a_promise_is_held_to_the_moment_its_place_was_served(forms: Any) -> None:
    room = make_room(forms, look(serving=100))
    room.learn(look(serving=101, now_ms=int(NOW * 1000) + 100))
    token = ticket(room, 301)
    assert read(forms, token).eta_s == 20
    room.learn(look(serving=300, now_ms=int(NOW + 24.9) * 1000))
    room.learn(look(serving=301, now_ms=int(NOW + 25) * 1000))
    room.learn(look(serving=320, now_ms=int(NOW + 26) * 1000))
    poll(room, token, NOW + 30)
    assert room.take_eta_errors() == [pytest.approx(0.2)]
    assert room.take_eta_errors() == []


def test_a_place_served_before_anybody_looked_says_nothing_of_promises(forms: Any) -> None:
    token = ticket(make_room(forms, look()), 301)
    new = make_room(forms, look(serving=500))
    assert poll(new, token)["state"] == "admitted"
    assert new.take_eta_errors() == []


def test_a_ticket_without_a_promise_gets_one_as_soon_as_there_is_one(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=300))
    token = ticket(room, 51, OPENS - 100.0)
    assert read(forms, token).eta_s is None
    room.learn(look(order=RoomOrder.DRAW, issued=300, drawn=300, seed="00" * 32, serving=0))
    room.learn_draw(draw(bytes(32), 300))
    told = poll(room, token)
    promised = read(forms, told["ticket"].encode())
    assert promised.eta_s == round(told["eta_seconds"])
    assert promised.issued_s == int(NOW)


def test_what_was_said_is_counted_once(forms: Any) -> None:
    room = make_room(forms, look())
    for number in (50, 60, 500):
        ticket(room, number)
    assert room.take_said() == {"waiting": 1, "admitted": 2}
    assert room.take_said() == {}


def test_a_room_that_is_forgotten_says_so(forms: Any) -> None:
    room = make_room(forms, look())
    token = ticket(room, 500)
    room.asked = False
    poll(room, token)
    assert room.asked
    room.forget()
    assert not room.known
    assert room.poll(token, "u", NOW) is None


# Both forms.


looks = st.builds(
    look,
    on=st.booleans(),
    order=st.sampled_from(RoomOrder),
    issued=st.integers(0, 400),
    serving=st.integers(0, 300),
    available=st.integers(0, 3),
    reserved=st.integers(0, 2),
    now_ms=st.integers((OPENS - 100) * 1000, (CLOSES + 100) * 1000),
    state=st.sampled_from([*SaleState, None]),
    waiting=st.integers(0, 400),
)
outlooks = st.builds(
    outlook,
    segments=st.lists(
        st.tuples(st.floats(0.5, 100), st.just(0.0) | st.floats(0.1, 100)), max_size=6
    ).map(tuple),
    places_per_second=st.floats(1, 1e4),
    leaving=st.just(0.0) | st.floats(0.0001, 0.02),
    variation=st.floats(0, 1),
    supply=st.floats(0, 500),
    supply_variance=st.floats(0, 50),
    take=st.floats(0.1, 3),
    undecided=st.floats(0, 100),
)
moments = st.integers((OPENS - 100) * 8, (CLOSES + 100) * 8).map(lambda eighths: eighths / 8)


@given(
    st.lists(st.tuples(looks, outlooks), min_size=1, max_size=4),
    st.binary(max_size=60),
    st.integers(0, 400),
    st.lists(st.tuples(st.integers(1, 400), moments), min_size=1, max_size=6),
)
def test_both_forms_say_the_same_word_for_word(
    learned: list[tuple[RoomLook, Outlook]],
    bitmap: bytes,
    mark: int,
    polls: list[tuple[int, float]],
) -> None:
    said = []
    for rooms, tickets in (compiled, plain):
        forecast = Told(outlook())
        room = rooms.Room("demo", tickets.TicketKey(KEY), forecast)
        words: list[Any] = []
        held: list[bytes] = []
        for seen, forecast.outlook in learned:
            room.learn(seen)
            room.learn_present(bitmap, mark)
            for number, now_s in polls:
                token, body = room.issue("u", number, now_s)
                held.append(token)
                words += [token, body]
            for token in held:
                for _, now_s in polls:
                    words += [room.check(token, "u", now_s), room.poll(token, "u", now_s)]
            words += [room.take_attendance(), room.take_said(), room.take_eta_errors()]
        said.append(words)
    assert said[0] == said[1]


def test_entering_again_does_not_prolong_an_admission(forms: Any) -> None:
    room = make_room(forms, look(serving=100))
    room.learn_settings(admission_seconds=60, absent_seconds=45)
    first = read(forms, ticket(room, 100))
    again = read(forms, room.issue("u", 100, NOW + 40, first.expires_s)[0])
    without = read(forms, room.issue("u", 100, NOW + 40)[0])
    waiting = read(forms, room.issue("u", 101, NOW + 40, first.expires_s)[0])
    assert (first.expires_s, again.expires_s) == (int(NOW) + 60, int(NOW) + 60)
    assert (again.admitted, without.expires_s) == (True, int(NOW) + 100)
    assert (waiting.admitted, waiting.expires_s) == (False, int(NOW) + 40 + TICKET_SECONDS)


def test_a_place_lapses_when_redis_says_so_while_there_is_a_room(forms: Any) -> None:
    room = make_room(forms, look(serving=100, lapsed=50))
    assert [room.has_lapsed(number, NOW) for number in (50, 51, 101)] == [True, False, False]
    room.learn(look(serving=100, lapsed=50, on=False))
    assert not room.has_lapsed(50, NOW)


@pytest.mark.parametrize("early_s", [14.9, 5.0, 0.3])
def test_the_first_polls_after_the_opening_come_one_after_the_other(
    forms: Any, early_s: float
) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=5000), segments=())
    told = [
        json.loads(room.issue("u", number, OPENS - early_s)[1])["poll_after_seconds"]
        for number in range(1, 2001)
    ]
    after = sorted(max(0.5, seconds) - early_s for seconds in told)
    assert after[0] > -0.06
    assert after[-1] < 5.06
    for at in range(1, 5):  # As many in each second as in any other.
        assert 360 <= sum(at <= seconds < at + 1 for seconds in after) <= 440


def test_who_stands_near_the_front_polls_first_after_the_opening(forms: Any) -> None:
    room = make_room(forms, before(issued=1000, waiting=1000), segments=())
    told = [
        json.loads(room.issue("u", number, OPENS - 10.0)[1])["poll_after_seconds"]
        for number in (1, 200, 500, 1000)
    ]
    assert told == [10, 11, 12.5, 15]


def test_low_numbers_with_high_places_are_noted_after_the_draw(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=5000))
    tokens = {number: ticket(room, number, OPENS - 100.0) for number in range(1, 101)}
    room.learn(look(order=RoomOrder.DRAW, issued=5000, drawn=5000, seed="00" * 32, serving=0))
    places = draw(bytes(32), 5000)
    room.learn_draw(places)
    for token in tokens.values():
        poll(room, token)
    noted = room.take_attendance()
    assert max(places[:100]) > 1024
    assert places_noted(noted) == sorted(places[:100])


def test_who_was_present_by_number_says_nothing_of_the_places_drawn(forms: Any) -> None:
    room = make_room(forms, before(order=RoomOrder.DRAW, issued=1000))
    token = ticket(room, 7, OPENS - 100.0)
    room.learn_present(bytes(bytearray([0x7F] + [0xFF] * 11)), 1000)
    room.learn(look(order=RoomOrder.DRAW, issued=1000, drawn=1000, seed="00" * 32, serving=0))
    places = draw(bytes(32), 1000)
    room.learn_draw(places)
    assert poll(room, token)["position"] == places[6]


@pytest.mark.parametrize(
    "seen",
    [
        {"segments": ((1800.0, 10.0),), "variation": math.inf},
        {"segments": ((1e300, 1e-300),)},
        {"segments": ((math.nan, math.nan),)},
        {"supply": -1.0},
        {"supply": math.nan, "take": math.inf, "undecided": math.nan, "take_doubt": math.inf},
        {"leaving": math.nan, "places_per_second": 0.0},
        {"places_per_second": math.nan},
        {"take_variance": -1.0, "supply_variance": math.inf, "steady_seconds": -math.inf},
    ],
)
@pytest.mark.parametrize("first", ["before", "open"])
def test_a_forecast_gone_wrong_is_answered_without_it(forms: Any, seen: Any, first: str) -> None:
    early = first == "before"
    start = before(order=RoomOrder.DRAW) if early else look(serving=0)
    room = make_room(forms, start, **seen)
    told = json.loads(room.issue("u", 500, OPENS - 50.0 if early else NOW)[1])
    assert 0 <= told["chance"] <= 1
    assert told["eta_seconds"] is None or 0 <= told["eta_seconds"] < 1e8


def test_counters_below_zero_are_told_as_nothing(forms: Any) -> None:
    room = make_room(forms, look(available=-1, reserved=-5))
    told = json.loads(room.issue("u", 500, NOW)[1])
    assert (told["available"], told["may_return"]) == (0, 0)


def places_noted(bits: bytes) -> list[int]:
    return [place for place in range(8 * len(bits)) if bits[place >> 3] & 0x80 >> (place & 7)]
