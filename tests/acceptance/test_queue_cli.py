"""`doorbuster queue verify`: recomputes a draw, says what it compared, and fails on any difference."""

import json
import shlex
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from api.cli.queue import app
from engine.errors import DoorbusterError
from tests.support.program import environ, run

SEED = sha256(b"a seed of this test").digest()
DRAWN = 500


def places_by_hand() -> list[int]:
    """The draw as its description says it, written a second time."""
    words = (
        int.from_bytes(digest[at : at + 4], "big")
        for counter in count()
        for digest in (sha256(SEED + counter.to_bytes(8, "big")).digest(),)
        for at in range(0, 32, 4)
    )
    places = list(range(1, DRAWN + 1))
    for last in range(DRAWN - 1, 0, -1):
        fair = 2**32 // (last + 1) * (last + 1)
        other = next(word for word in words if word < fair) % (last + 1)
        places[last], places[other] = places[other], places[last]
    return places


PLACES = places_by_hand()


def proof(**changes: Any) -> dict[str, Any]:
    return {
        "sale_id": "demo",
        "order": "draw",
        "method": "fisher-yates/sha-256",
        "seed_hash": sha256(SEED).hexdigest(),
        "opens_at": "2026-11-11T00:00:00Z",
        "server_time": "2026-11-11T00:00:01Z",
        "drawn": DRAWN,
        "seed": SEED.hex(),
        "number": None,
        "place": None,
    } | changes


def verify(tmp_path: Path, body: object, options: str = "") -> tuple[int, str]:
    """(exit code, all that was said) about a proof in a file, in this process: that is quick."""
    file = tmp_path / "proof.json"
    file.write_text(body if isinstance(body, str) else json.dumps(body))
    arguments = f"verify --file {file} {options}"
    done = CliRunner().invoke(app, shlex.split(arguments))
    if done.exception is None or isinstance(done.exception, SystemExit):
        return done.exit_code, done.output
    assert isinstance(done.exception, DoorbusterError), done.exception
    return done.exit_code, str(done.exception)


def test_every_number_has_the_place_that_the_seed_gives_it(tmp_path: Path) -> None:
    assert sorted(PLACES) == list(range(1, DRAWN + 1))
    for number in (1, 250, DRAWN):
        options = f"--number {number} --place {PLACES[number - 1]}"
        code, said = verify(tmp_path, proof(), options)
        assert (code, "matches" in said) == (0, True), said


def test_the_proof_of_a_ticket_names_its_number_itself(tmp_path: Path) -> None:
    code, said = verify(tmp_path, proof(number=7, place=PLACES[6]))
    assert code == 0
    assert f"Number 7 of {DRAWN} has place {PLACES[6]}" in said
    assert verify(tmp_path, proof(number=7, place=PLACES[6] + 1))[0] == 1


def test_who_came_after_the_draw_stands_behind_it(tmp_path: Path) -> None:
    late = DRAWN + 3
    assert verify(tmp_path, proof(), f"--number {late} --place {late}")[0] == 0
    assert verify(tmp_path, proof(), f"--number {late} --place 1")[0] == 1


def test_without_a_place_it_is_told(tmp_path: Path) -> None:
    code, said = verify(tmp_path, proof(), "--number 9")
    assert code == 0
    assert f"has place {PLACES[8]}" in said


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, f"--number 1 --place {PLACES[1]}"),
        ({"drawn": DRAWN - 1}, f"--number 1 --place {PLACES[0]}"),
        ({"seed": sha256(b"another").hexdigest()}, ""),
        ({"seed_hash": "0" * 64}, ""),
        ({}, f"--seed-hash {'0' * 64}"),
        # A shop that chose its seed after all came: the proof is sound in itself, and still wrong.
        (
            {"seed": b"x".hex() * 32, "seed_hash": sha256(b"x" * 32).hexdigest()},
            f"--seed-hash {sha256(SEED).hexdigest()}",
        ),
    ],
)
def test_what_does_not_match_is_said_and_fails(
    tmp_path: Path, changes: dict[str, Any], options: str
) -> None:
    code, said = verify(tmp_path, proof(**changes), options)
    assert code == 1
    assert "WRONG" in said


def test_the_commitment_noted_before_counts(tmp_path: Path) -> None:
    code, said = verify(tmp_path, proof(), f"--seed-hash {sha256(SEED).hexdigest().upper()}")
    assert code == 0
    assert "committed to before" in said


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (proof(seed=None, drawn=None), "has not drawn yet"),
        (proof(order="fifo"), "first come, first served"),
        (proof(method="dice"), "method"),
        (proof(seed="zz"), "seed"),
        (proof(drawn=-1), "drawn"),
        (proof(drawn=10**12), "drawn"),
        ("[]", "no proof"),
        ("{", "no proof"),
        ("[" * 100_000, "no proof"),
    ],
)
def test_what_cannot_be_verified_is_refused_in_one_sentence(
    tmp_path: Path, body: object, words: str
) -> None:
    code, said = verify(tmp_path, body)
    assert code == 1
    assert words in said
    assert len(said.strip().splitlines()) == 1


class Shop(BaseHTTPRequestHandler):
    """Answers for one sale."""

    def do_GET(self) -> None:
        found = self.path == "/v1/sales/demo/queue/proof"
        body = json.dumps(proof() if found else {"code": "unknown_sale"}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def shop() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shop)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_shop_is_asked_for_its_proof(tmp_path: Path, shop: str) -> None:
    """As its user runs it."""
    env = environ(tmp_path)
    ours = f"--number 1 --place {PLACES[0]}"
    assert run(f"queue verify --url {shop}/ --sale demo {ours}", env).returncode == 0
    assert run(f"queue verify --url {shop} --sale demo --number 1 --place 501", env).returncode == 1
    other = run(f"queue verify --url {shop} --sale other", env)
    assert (other.returncode, "unknown_sale" in other.stderr) == (1, True)


@pytest.mark.parametrize(
    "options", ["", "--url http://127.0.0.1:9", "--file x --url http://127.0.0.1:9"]
)
def test_a_command_line_that_makes_no_sense_is_told_so(tmp_path: Path, options: str) -> None:
    assert run(f"queue verify {options}", environ(tmp_path)).returncode == 2
