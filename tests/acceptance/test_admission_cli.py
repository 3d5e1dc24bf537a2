"""`doorbuster admission` on a running engine: what it sets holds, what it shows is so."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.program import UpProcess, environ, free_port, get, run, until
from tests.support.sales import sale_document


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    data_dir = tmp_path_factory.mktemp("admission")
    return environ(data_dir, port=str(free_port()), front_processes="1")


@pytest.fixture(scope="module")
def url(env: dict[str, str]) -> Iterator[str]:
    """An engine with the demo shop that serves."""
    up = UpProcess(env, "--demo")
    try:
        yield up.wait_until_ready()
    finally:
        up.stop()


def said(arguments: str, env: dict[str, str]) -> str:
    done = run(f"admission {arguments}", env)
    assert done.returncode == 0, done
    return done.stdout


def refused(arguments: str, env: dict[str, str]) -> list[str]:
    """What a command that fails says, by line."""
    done = run(f"admission {arguments}", env)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()


def token(user: str, env: dict[str, str]) -> str:
    return run(f"token --user {user}", env).stdout.strip()


def reserve(url: str, token: str) -> tuple[int, str]:
    """(status, code) of a click."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Idempotency-Key": "k",
        "Content-Type": "application/json",
    }
    body = json.dumps({"items": [{"sku": "phone-black", "quantity": 1}]})
    status, text = get(f"{url}/v1/sales/demo/reservations", headers, "POST", body)
    return status, json.loads(text).get("code", "")


def test_a_room_is_furnished_shown_and_taken_away(url: str, env: dict[str, str]) -> None:
    buyer = token("u1", env)
    assert "waiting room off" in said("show demo", env)
    said("set demo --on --pace 500 --over 1.5 --absent 60", env)
    shown = said("show demo", env)
    assert "waiting room on" in shown
    assert "at most 500 people/s" in shown
    assert "1.5 people per unit" in shown
    assert "first come, first served" in shown
    assert "Nobody has asked for this room yet" in shown
    until(lambda: reserve(url, buyer) == (403, "ticket_required"), "buyers need tickets")
    assert re.search(r"now serving +0", said("show demo", env))
    said("set demo --off --pace none", env)
    until(lambda: reserve(url, buyer)[0] in {200, 201}, "buyers need none any more")
    assert "as many as are stored" in said("show demo", env)


def test_what_cannot_be_set_is_refused_field_by_field(url: str, env: dict[str, str]) -> None:
    problems = refused("set demo --over 0.5 --absent 1 --captcha", env)
    assert [problem.split(": ")[1] for problem in problems] == [
        "over_admission",
        "absent_seconds",
        "captcha",
    ]
    assert "no sale nope" in refused("set nope --on", env)[0]
    assert "no sale nope" in refused("show nope", env)[0]
    assert "--pace" in refused("set demo --pace fast", env)[0]
    assert run("admission set demo", env).returncode == 2
    assert run("admission set demo --order whim", env).returncode == 2


def test_who_is_denied_is_kept_out_until_that_is_forgotten(url: str, env: dict[str, str]) -> None:
    bot = token("bot", env)
    assert said("rules", env).strip() == "No access rules."
    made = said('deny user:bot --sale demo --for 2h --reason "too many clicks"', env)
    number = re.match(r"Rule (\d+): deny user:bot in sale demo until ", made)
    assert number is not None, made
    until(lambda: reserve(url, bot) == (403, "forbidden"), "the bot is kept out")
    assert reserve(url, token("u2", env))[0] == 201
    listed = said("rules", env)
    assert "user:bot" in listed
    assert "user:bot" in said("rules --sale demo", env)
    assert "user:bot" in said("show demo", env)
    said(f"forget {number[1]}", env)
    until(lambda: reserve(url, bot)[0] in {200, 201}, "the bot is let in again")
    assert "no rule" in refused(f"forget {number[1]}", env)[0]


def test_unfit_rules_are_refused_in_one_sentence(url: str, env: dict[str, str]) -> None:
    before = said("rules", env)
    for arguments in (
        "deny u1",
        "allow address:10.0.0.256",
        "deny user:u1 --for soon",
        "deny user:u1 --for -2h",
        "deny user:u1 --for 0s",
        "allow user:u1 --sale nope",
    ):
        assert len(refused(arguments, env)) == 1, arguments
    assert said("rules", env) == before


def test_a_buyer_verifies_the_draw_of_a_running_shop(
    url: str, env: dict[str, str], tmp_path: Path
) -> None:
    room = {"order": "draw", "proof_difficulty": 0}
    file = tmp_path / "sale.json"
    file.write_bytes(sale_document("lots", opens_in=600, room=room))
    assert run(f"sale create --file {file}", env).returncode == 0
    headers = {"Authorization": f"Bearer {token('u1', env)}"}
    entering = f"{url}/v1/sales/lots/queue"
    until(lambda: get(entering, headers, "POST")[0] in {200, 201}, "the room gives tickets")
    noted = json.loads(get(f"{entering}/proof")[1])["seed_hash"]
    verify = f"queue verify --url {url} --sale lots --number 1 --place 1 --seed-hash {noted}"
    early = run(verify, env)
    assert (early.returncode, "has not drawn yet" in early.stderr) == (1, True)

    assert run("sale open lots --now", env).returncode == 0
    until(lambda: run(verify, env).returncode == 0, "the draw")
    done = run(verify, env).stdout
    assert "committed to before" in done
    assert "Number 1 of 1 has place 1" in done
    assert run(verify.replace("--place 1", "--place 2"), env).returncode == 1
    assert run(verify.replace(noted, "0" * 64), env).returncode == 1
