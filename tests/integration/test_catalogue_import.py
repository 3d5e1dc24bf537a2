"""Products in bulk: files taken in and handed out again, over HTTP and from the command line."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from redis.asyncio import Redis

from api.catalogue.bulk import RECEIVE_SECONDS_MAX
from api.catalogue.importing import Form, ImportReport, import_products
from api.catalogue.store import Catalogue
from api.cli.catalogue import hand_out, take_in
from api.connection import ConnectionGuard
from api.demo.catalogue import products
from api.demo.shop import put_categories
from api.tokens import Role
from engine.errors import Conflict, DoorbusterError, Invalid, StoreUnavailable
from engine.servers import EmbeddedValkey
from engine.store.database import Pool
from tests.support.front import Reply, Served, serve
from tests.support.waiting import until

HEADING = "product_id,category_id,brand,name.en,sku,weight_grams,price.CNY"
MEDIA = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def take(pool: Pool, text: str, form: Form = Form.CSV, **options: bool) -> ImportReport:
    """In pieces of seven bytes: no record ends where a piece does."""
    data = text.encode()
    parts = [data[at : at + 7] for at in range(0, len(data), 7)]
    return await import_products(pool, pieces(*parts), form, "tester", **options)  # type: ignore[arg-type]


def csv(*rows: str) -> str:
    return "\r\n".join([HEADING, *rows, ""])


@pytest.fixture
async def shop(pool: Pool) -> Pool:
    """A catalogue that has categories and no products."""
    async with pool.acquire() as connection:
        await put_categories(connection)
    return pool


@pytest.fixture
async def served(redis: Redis, valkey: EmbeddedValkey, postgres_url: str) -> AsyncIterator[Served]:
    async with serve(valkey.url, postgres_url, import_bytes_max=300_000) as served:
        async with served.engine.pool.acquire() as connection:
            await put_categories(connection)
        yield served


async def upload(served: Served, data: bytes, form: str, query: str = "") -> Reply:
    path = f"/v1/admin/products/import{query}"
    return await served.call(
        "POST", path, user="op-1", role=Role.OPERATOR, data=data, content_type=MEDIA[form]
    )


async def download(served: Served, form: str) -> Reply:
    path = f"/v1/admin/products/export?format={form}"
    return await served.call("GET", path, user="op-1", role=Role.OPERATOR)


async def test_what_is_handed_out_can_be_taken_in_again_unchanged(served: Served) -> None:
    wanted = list(products(150, 5))
    # What a file has trouble with: quotes, line ends, commas, blanks at the end, no SKUs.
    hard = msgspec.structs.replace(
        wanted[9],
        name={"en": 'Pan, 28" "pro" ', "zh-CN": "锅，二十八厘米"},
        description={"en": 'Two\n\nparagraphs, "quoted"\n'},
        skus=(),
    )
    wanted[9] = hard
    lines = b"\n".join(msgspec.json.encode(product) for product in wanted)
    report = (await upload(served, lines, "jsonl")).json
    assert (report["stored"], report["products_created"], report["bad_count"]) == (True, 150, 0)
    kept = await Catalogue(served.engine.pool).get(hard.product_id)
    assert kept is not None
    assert kept.product == hard
    for form, media in MEDIA.items():
        file = await download(served, form)
        assert file.status == 200
        assert file.headers["Content-Type"].startswith(media)
        assert "attachment" in file.headers["Content-Disposition"]
        again = (await upload(served, file.body, form)).json
        assert (again["products_read"], again["bad_count"]) == (150, 0)
        changed = ("products_created", "products_updated", "skus_created", "skus_updated")
        assert [again[name] for name in changed] == [0, 0, 0, 0], form
        assert (await download(served, form)).body == file.body


async def test_a_file_that_is_too_large_or_of_no_known_kind_is_refused(served: Served) -> None:
    large = b"x" * 400_000
    reply = await upload(served, large, "csv")
    assert (reply.status, reply.code) == (413, "body_too_large")
    path = "/v1/admin/products/import"
    reply = await served.call("POST", path, user="op-1", role=Role.OPERATOR, data=b"{}")
    assert (reply.status, reply.code) == (400, "invalid_request")
    assert (await upload(served, b"", "csv", "?dry_run=perhaps")).status == 400
    nothing = (await upload(served, b"", "jsonl")).json
    assert (nothing["stored"], nothing["rows_read"]) == (True, 0)


async def test_a_file_may_take_longer_to_arrive_than_another_body(served: Served) -> None:
    line = msgspec.json.encode(next(products(1, 5)))
    seconds_max = served.server.guards.request_seconds_max
    late: dict[float, bool] = {}

    async def dawdling() -> AsyncIterator[bytes]:
        yield line[:10]
        guard = await until(granted, "more time is granted")
        for seconds in (seconds_max, seconds_max * 2, RECEIVE_SECONDS_MAX * 2):
            late[seconds] = guard.is_late(guard._waiting_since + seconds)
        yield line[10:]

    async def granted() -> ConnectionGuard | None:
        guards = (each for each in served.server.connections.open)
        mine = (each for each in guards if isinstance(each, ConnectionGuard))
        return next((guard for guard in mine if guard._inner.body_seconds), None)

    url = f"{served.url}/v1/admin/products/import"
    token = served.tokens.issue("op-1", Role.OPERATOR)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": MEDIA["jsonl"]}
    async with served.session.post(url, data=dawdling(), headers=headers) as answer:
        assert (await answer.json())["products_created"] == 1
    assert list(late.values()) == [False, False, True]
    assert await granted() is None  # The next request has no more time than any other.


async def test_whoever_leaves_an_export_leaves_no_connection_behind(served: Served) -> None:
    lines = b"\n".join(msgspec.json.encode(product) for product in products(7, 5))
    await upload(served, lines, "jsonl")
    token = served.tokens.issue("op-1", Role.OPERATOR)
    url = f"{served.url}/v1/admin/products/export"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session:
        response = await session.get(url, headers=headers)
        response.close()
    assert (await download(served, "csv")).status == 200
    head = await served.call("HEAD", "/v1/admin/products/export", user="op-1", role=Role.OPERATOR)
    assert (head.status, head.body) == (200, b"")


async def test_an_export_that_breaks_is_cut_off_so_that_nobody_takes_a_part_for_the_whole(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaking(_url: str, _form: Form) -> AsyncIterator[bytes]:
        yield b"the first half"
        raise StoreUnavailable("Postgres went away.")

    monkeypatch.setattr("api.catalogue.bulk.export_products", breaking)
    with pytest.raises(aiohttp.ClientPayloadError):
        await download(served, "csv")

    async def away(_url: str, _form: Form) -> AsyncIterator[bytes]:
        raise StoreUnavailable("Postgres is away.")
        yield b""

    monkeypatch.setattr("api.catalogue.bulk.export_products", away)
    assert (await download(served, "csv")).code == "unavailable"


async def test_every_bad_row_is_reported_by_line_and_column_and_nothing_is_stored(
    shop: Pool,
) -> None:
    text = csv(
        "good,phones,Lumora,Good phone,good-1,100,9900",
        "no-category,nowhere,Lumora,Phone,nc-1,100,9900",
        "bad-price,phones,Lumora,Phone,bp-1,100,cheap",
        "good,,,,good-2,heavy,9900",
        "short,phones",
        "UPPER,phones,Lumora,Phone,up-1,1,1",
        '"two lines",phones,Lumora,"a ""name""\nin two lines",tl-1,1,1',
        "no-name,phones,Lumora,,nn-1,1,1",
        "good-1-again,phones,Lumora,Phone,good-1,1,1",
        "twice,phones,Lumora,Phone,tw-1,1,1",
        "between,phones,Lumora,Phone,be-1,1,1",
        "twice,phones,Lumora,Phone,tw-2,1,1",
    )
    report = await take(shop, text)
    assert not report.stored
    assert await shop.fetchval("SELECT count(*) FROM products") == 0
    found = [(fault.line, fault.column) for fault in report.bad]
    assert found == [
        (3, "category_id"),
        (4, "price.CNY"),
        (5, "weight_grams"),
        (6, ""),
        (7, "product_id"),
        (8, "product_id"),
        (10, "name"),
        (11, "sku"),
        (14, "product_id"),
    ], report.bad
    assert report.bad_count == len(found)
    # The same file as a dry run says the same, and what would be left.
    dry = await take(shop, text, dry_run=True)
    assert (dry.bad, dry.stored, dry.products_created) == (report.bad, False, 3)
    assert await shop.fetchval("SELECT count(*) FROM products") == 0


async def test_with_skip_bad_each_product_is_stored_whole_or_not_at_all(shop: Pool) -> None:
    text = csv(
        "one,phones,Lumora,One,one-1,100,9900",
        "two,phones,Lumora,Two,two-1,100,9900",
        "two,,,,two-2,100,cheap",
        "three,phones,Lumora,Three,three-1,100,9900",
        "three,,,,three-2,100,9900",
    )
    report = await take(shop, text, skip_bad=True)
    assert (report.stored, report.products_created, report.skus_created) == (True, 2, 3)
    assert [(fault.line, fault.column) for fault in report.bad] == [(4, "price.CNY")]
    rows = await shop.fetch("SELECT product_id FROM products ORDER BY 1")
    assert [row["product_id"] for row in rows] == ["one", "three"]
    audit = await shop.fetchrow("SELECT actor, action, detail FROM audit_log")
    assert (audit["actor"], audit["action"]) == ("tester", "import_products")
    assert audit["detail"]["products_created"] == 2


async def test_a_second_file_changes_what_it_names_and_leaves_the_other_skus(shop: Pool) -> None:
    await take(shop, csv("one,phones,Lumora,One,one-1,100,9900", "one,,,,one-2,100,9900"))
    report = await take(shop, csv("one,phones,Lumora,One,one-1,100,8800"))
    assert (report.products_updated, report.skus_updated) == (1, 1)
    stored = await Catalogue(shop).get("one")
    assert stored is not None
    assert stored.revision == 2
    amounts = {sku.sku: sku.prices[0].amount_minor for sku in stored.product.skus if sku.active}
    assert amounts == {"one-1": 8800, "one-2": 9900}
    taken = await take(shop, csv("other,phones,Lumora,Other,one-1,100,9900"))
    assert taken.bad[0].problem == "one-1 belongs to product one"


async def test_bad_lines_of_json_are_reported_and_bounded(shop: Pool) -> None:
    good = '{"product_id":"a","category_id":"phones","brand":"b","name":{"en":"c"}}'
    lines = [good, "{", '{"product_id":1}', "[]", *["nonsense"] * 200]
    report = await take(shop, "\n".join(lines), Form.JSONL)
    assert (report.bad_count, len(report.bad)) == (203, 100)
    assert [fault.line for fault in report.bad[:3]] == [2, 3, 4]
    assert report.bad[1].column == "product_id"


async def test_what_is_no_such_file_is_refused_as_a_whole(shop: Pool) -> None:
    for text in (
        "product_id,colour\r\n",
        "product_id,brand\r\n",
        HEADING.replace("brand", "product_id") + "\r\n",
        csv('"never closed,phones,Lumora,x,y,1,1'),
    ):
        with pytest.raises(Invalid):
            await take(shop, text)


async def test_two_imports_do_not_run_at_once(shop: Pool) -> None:
    begun, goes_on = asyncio.Event(), asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        begun.set()
        await goes_on.wait()
        yield csv().encode()

    first = asyncio.create_task(import_products(shop, slow(), Form.CSV, "tester"))
    await begun.wait()
    with pytest.raises(Conflict):
        await take(shop, csv())
    goes_on.set()
    assert (await first).stored


async def test_reading_a_large_file_takes_memory_for_a_piece_of_it_only(shop: Pool) -> None:
    async def endless() -> AsyncIterator[bytes]:
        line = b'{"product_id":"%d","category_id":"nowhere","brand":"b","name":{"en":"c"}}\n'
        for start in range(0, 20_000, 500):
            yield b"".join(line % number for number in range(start, start + 500))

    tracemalloc.start()
    report = await import_products(shop, endless(), Form.JSONL, "tester")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (report.rows_read, report.bad_count) == (20_000, 20_000)
    assert peak < 6_000_000  # The file has some 1.5 MB, its products many times that.


async def test_files_go_in_and_out_from_the_command_line(
    served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    settings = served.engine.settings
    monkeypatch.setenv("DOORBUSTER_POSTGRES_URL", str(settings.postgres_url))
    monkeypatch.setenv("DOORBUSTER_REDIS_URL", str(settings.redis_url))
    monkeypatch.setenv("DOORBUSTER_SECRET", str(settings.secret))
    source, copy = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"\n".join(map(msgspec.json.encode, products(20, 5))))
    await asyncio.to_thread(take_in, source)
    assert "Products: 20 were created" in capsys.readouterr().out
    await asyncio.to_thread(hand_out, copy)
    assert len(copy.read_bytes().splitlines()) == 20
    source.write_text('{"product_id": 7}')
    with pytest.raises(DoorbusterError, match="Nothing was stored"):
        await asyncio.to_thread(take_in, source)
    assert "line 1, product_id" in capsys.readouterr().err
    with pytest.raises(DoorbusterError, match="say what it is"):
        await asyncio.to_thread(take_in, tmp_path / "in.txt")
