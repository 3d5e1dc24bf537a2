"""`doorbuster seed`: the demo shop on the running engine."""

import typer

from api.cli.running import actor, on_engine
from api.demo.shop import seed

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command("seed")
def command() -> None:
    """Load the demo shop: an open sale `demo`, 8 SKUs, 10,000 units, at most 2 per buyer; a catalogue of
    2,100 products in Chinese and English, with prices in CNY and USD and stock; ways of shipping.

    Loading it again changes nothing. `doorbuster up --demo` does this by itself.
    """
    made = on_engine(lambda engine: seed(engine, actor()))
    if made:
        print(f"Loaded the demo shop: {', '.join(made)}.")
    else:
        print("The demo shop is there already; nothing changed.")
