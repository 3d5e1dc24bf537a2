"""`doorbuster reindex`: writes the search index anew."""

import typer

from api.cli.progress import shown_progress
from api.cli.running import on_engine
from api.search.index import reindex
from engine.core import Engine

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command("reindex")
def command() -> None:
    """Write the search index anew, from the catalogue as it is. Searches go on meanwhile.

    Every change of the catalogue is indexed as it is made: this is for after an upgrade that cuts
    words in another way, or for a database that was changed by hand.
    """
    print(f"{on_engine(_reindex):,} products are indexed.")


async def _reindex(engine: Engine) -> int:
    with shown_progress("Search") as progress:
        return await reindex(engine.pool, lambda done: progress("products", done, None))
