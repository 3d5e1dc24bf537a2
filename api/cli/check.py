"""`doorbuster check`: proves the engine's invariants."""

from typing import Annotated

import typer

from api.cli.progress import shown_progress
from api.cli.running import on_engine
from engine.core import Engine
from engine.reconciler import Finding, check

HELP = """
Prove the eleven invariants, one line each; fails if one of them does not hold.

Works on a live engine and changes nothing: what is in motion is given time to settle.

* `doorbuster check` looks at every sale
* `doorbuster check double-11` looks at one
"""

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


@app.command("check", help=HELP)
def command(
    sale_ids: Annotated[
        list[str] | None, typer.Argument(help="Sales to look at; none: all.", metavar="[SALE]...")
    ] = None,
) -> None:
    findings = on_engine(lambda engine: _check(engine, sale_ids or None))
    for finding in findings:
        print(finding.line)
    broken = sum(not finding.ok for finding in findings)
    if broken:
        print(f"{broken} of {len(findings)} invariants do not hold.")
        raise typer.Exit(1)
    print(f"All {len(findings)} invariants hold.")


async def _check(engine: Engine, sale_ids: list[str] | None) -> list[Finding]:
    with shown_progress("check") as progress:
        return await check(engine, sale_ids, progress)
