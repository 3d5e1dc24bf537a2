"""All of the shop as one group of `make bench`: search, a product's page, the cart, log-ins.

One catalogue serves the first three. A part that fails leaves the others alone.
"""

import asyncio
import json
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks.admission.polls import Skipped
from benchmarks.capacity.stand import Stand, database, stand
from benchmarks.shop import goods, logins, pages, plainly, search
from benchmarks.wrk import wrk_missing

FILE: Final = "shop.json"
PRODUCTS: Final = 200_000
PRODUCTS_QUICK: Final = 10_000

Say = Callable[[str], None]


def measure(folder: Path, say: Say, *, products: int = PRODUCTS) -> dict[str, Any]:
    found: dict[str, Any] = {"durability": "strict", "figures": [], "skipped": {}, "failed": {}}
    with database() as postgres, stand(postgres, buyers=pages.BUYERS) as under_test:
        say(f"shop: puts {products:,} products up")
        found["put_up_seconds"] = _put_up(under_test, products)
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "search": lambda: asyncio.run(search.measure(under_test, products)),
            "page": lambda: asyncio.run(_with_wrk(pages.measure_page, under_test)),
            "cart": lambda: asyncio.run(_with_wrk(pages.measure_cart, under_test)),
            "plainly": lambda: asyncio.run(plainly.measure(under_test.postgres_url)),
        }
        for name, part in parts.items():
            say(f"shop: {name}")
            with _kept(found, name, folder) as keep:
                keep(part())
    say("shop: logins")
    with _kept(found, "logins", folder) as keep:
        keep(logins.measure())
    return found


def _put_up(under_test: Stand, products: int) -> float:
    began = time.monotonic()
    asyncio.run(goods.put_up(under_test.postgres_url, products))
    asyncio.run(goods.index_all(under_test.postgres_url))
    return round(time.monotonic() - began, 1)


async def _with_wrk(part: Callable[[Stand], Any], under_test: Stand) -> dict[str, Any]:
    if why := wrk_missing():
        raise Skipped(why)
    return dict(await part(under_test))


@contextmanager
def _kept(
    found: dict[str, Any], name: str, folder: Path
) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Keeps a part's result in `found` and in the file; what went wrong too."""

    def keep(result: dict[str, Any]) -> None:
        found["figures"] += [
            figure | {"name": f"{name}: {figure['name']}"} for figure in result.pop("figures")
        ]
        found[name] = result

    try:
        yield keep
    except Skipped as why:
        found["skipped"][name] = str(why)
    except Exception:
        found["failed"][name] = traceback.format_exc()
    (folder / FILE).write_text(json.dumps(found, indent=1, ensure_ascii=False))
