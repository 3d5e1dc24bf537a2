"""`doorbuster queue`: what a buyer, or anyone else, can find out about a waiting room's draw."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from api.http_client import AioHttpClient
from engine.admission.room.draw import SEED_BYTES, Finding, draw, seed_hash, verify
from engine.admission.room.store import TICKETS_MAX
from engine.errors import DoorbusterError, Invalid
from engine.model import SALE_ID

SAID_BYTES_MAX: Final = 300  # Of an answer that is no proof.
METHOD: Final = "fisher-yates/sha-256"  # The only one there is; another is not for us to judge.

app = typer.Typer(
    help="Waiting rooms: verify the draw of places.",
    rich_markup_mode="markdown",
    no_args_is_help=True,
    add_completion=False,
)


class DrawProof(msgspec.Struct, frozen=True):
    """What `GET /v1/sales/{sale}/queue/proof` answers, as far as it is needed to verify."""

    sale_id: str
    order: str
    method: str
    seed_hash: str
    drawn: int | None
    seed: str | None
    number: int | None = None
    place: int | None = None


_decoder: Final = msgspec.json.Decoder(DrawProof)


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at. `ok` is None where nothing was there to compare with."""

    ok: bool | None
    says: str


_MARKS: Final = {True: "ok     ", False: "WRONG  ", None: "       "}


@app.callback()
def group() -> None:
    """Keeps `verify` a word of its own while it is the only command."""


@app.command("verify")
def command(
    *,
    file: Annotated[
        Path | None, typer.Option(help="The proof as the shop gave it, JSON; - reads from stdin.")
    ] = None,
    url: Annotated[str | None, typer.Option(help="Or the shop to ask for it.")] = None,
    sale_id: Annotated[
        str | None, typer.Option("--sale", help="Of which sale, with --url.", metavar="SALE")
    ] = None,
    number: Annotated[int | None, typer.Option(help="Your ticket's number.", min=1)] = None,
    place: Annotated[int | None, typer.Option(help="The place you were given.", min=1)] = None,
    committed: Annotated[
        str | None,
        typer.Option("--seed-hash", help="The seed's hash as you noted it before the opening."),
    ] = None,
) -> None:
    """Recompute a draw and compare; fails if something does not match.

    * `doorbuster queue verify --url https://shop.example --sale double-11 --number 4711 --place 23`
    * `doorbuster queue verify --file proof.json --seed-hash 9f86d0…`

    The draw was fair if its seed was fixed before anyone knew who would come. So note the hash that
    the shop publishes before the opening, and give it here: nothing that was said afterwards counts.
    """
    proof = _read(file, url, sale_id)
    if number in {None, proof.number}:  # The proof of a ticket names its number and place itself.
        number, place = proof.number, place or proof.place
    checks = look_at(proof, number=number, place=place, committed=committed)
    for check in checks:
        print(f"{_MARKS[check.ok]} {check.says}")
    if any(check.ok is False for check in checks):
        print("The draw does not match.")
        raise typer.Exit(1)
    print("What could be compared matches.")


def look_at(
    proof: DrawProof, *, number: int | None, place: int | None, committed: str | None
) -> list[Check]:
    """Everything that can be compared. Raises Invalid for a proof of which nothing can be said."""
    seed, drawn = _drawn(proof)
    checks = [
        Check(
            seed_hash(seed) == proof.seed_hash.lower(),
            f"The seed's SHA-256 is {seed_hash(seed)}; the shop names {proof.seed_hash}.",
        ),
        _commitment(seed, committed),
    ]
    if number is None:
        return [*checks, Check(None, f"{drawn:,} numbers were drawn. No --number was given.")]
    return [*checks, _placed(seed, drawn, number, place)]


def _commitment(seed: bytes, committed: str | None) -> Check:
    if committed is None:
        return Check(None, "No --seed-hash was given: whether it was fixed before is not checked.")
    ok = seed_hash(seed) == committed.strip().lower()
    return Check(ok, f"{'It is' if ok else 'It is not'} the seed that was committed to before.")


def _placed(seed: bytes, drawn: int, number: int, place: int | None) -> Check:
    if place is None:
        actual = number if number > drawn else draw(seed, drawn)[number - 1]
        return Check(None, f"Number {number:,} of {drawn:,} has place {actual:,}.")
    verdict = verify(seed, seed_hash(seed), drawn, number, place)
    assert verdict.place is not None, "the seed and the numbers were looked at before"
    return Check(
        verdict.finding is Finding.HONEST,
        f"Number {number:,} of {drawn:,} has place {verdict.place:,}; {place:,} was given.",
    )


def _drawn(proof: DrawProof) -> tuple[bytes, int]:
    """The seed and how many numbers were drawn with it."""
    if proof.method != METHOD:
        raise Invalid("method", f"is {proof.method}; this command knows {METHOD}")
    if proof.order != "draw":
        raise Invalid("", f"Sale {proof.sale_id} draws no lots: first come, first served.")
    if proof.seed is None or proof.drawn is None:
        said = f"Its seed's hash is {proof.seed_hash}: note it, and verify after the opening."
        raise Invalid("", f"Sale {proof.sale_id} has not drawn yet. {said}")
    try:
        seed = bytes.fromhex(proof.seed)
    except ValueError:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise Invalid("seed", f"must be {SEED_BYTES} bytes in hexadecimal digits")
    if not 0 <= proof.drawn <= TICKETS_MAX:
        raise Invalid("drawn", f"must be a whole number from 0 to {TICKETS_MAX}")
    return seed, proof.drawn


def _read(file: Path | None, url: str | None, sale_id: str | None) -> DrawProof:
    if file is not None and url is None:
        body = _read_file(file)
    elif file is None and url is not None and sale_id is not None:
        if not SALE_ID.fullmatch(sale_id):
            raise Invalid("--sale", "is no sale's id")
        body = asyncio.run(_fetch(f"{url.rstrip('/')}/v1/sales/{sale_id}/queue/proof"))
    else:
        raise typer.BadParameter("Give --file, or --url and --sale.")
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DoorbusterError(f"That is no proof of a draw: {error}.") from error


def _read_file(file: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise DoorbusterError(f"{file} cannot be read: {error.strerror}.") from error


async def _fetch(url: str) -> bytes:
    async with AioHttpClient(connections_max=1) as http:
        reply = await http.get(url, {})
    if reply.status != 200:
        said = reply.body[:SAID_BYTES_MAX].decode(errors="replace")
        raise DoorbusterError(f"{url} answered {reply.status}: {said}")
    return reply.body
