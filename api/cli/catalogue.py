"""`doorbuster catalogue`: takes files of products in and hands them out, straight on Postgres."""

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO, Annotated, Final

import typer

from api.catalogue.bulk import pieces_of
from api.catalogue.exporting import export_products
from api.catalogue.importing import Form, ImportReport, import_products
from api.cli.progress import shown_progress
from api.cli.running import actor, on_engine
from engine.core import Engine
from engine.errors import DoorbusterError
from engine.progress import Progress

HELP: Final = """
Move products in and out of the catalogue of the running engine.

* `doorbuster catalogue import products.csv --dry-run` says what is wrong, by line, and changes nothing
* `doorbuster catalogue import products.jsonl --skip-bad` takes in what is good
* `doorbuster catalogue export products.csv` writes a file that can be taken in again
"""

app = typer.Typer(
    help=HELP, rich_markup_mode="markdown", no_args_is_help=True, add_completion=False
)

FileName = Annotated[
    Path, typer.Argument(help="Of CSV (.csv) or JSON Lines (.jsonl, .ndjson); - for stdio.")
]
FormOption = Annotated[
    Form | None, typer.Option("--format", help="What the file is, if its name does not say.")
]
_FORMS: Final = {".csv": Form.CSV, ".jsonl": Form.JSONL, ".ndjson": Form.JSONL}
_STDIO: Final = "-"


@app.command("import")
def take_in(
    file: FileName,
    form: FormOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave products with bad rows out.")
    ] = False,
) -> None:
    """Create and change products from a file. All of it, or nothing if a row is bad."""
    form = _form(file, form)
    source = _opened(file, sys.stdin.buffer, "rb")
    with source, shown_progress(str(file)) as progress:
        report = on_engine(
            lambda engine: import_products(
                engine.pool,
                _read(source, file, progress),
                form,
                actor(),
                dry_run=dry_run,
                skip_bad=skip_bad,
                progress=lambda step, done: progress(step, done, None),
            )
        )
    _tell(report, skip_bad=skip_bad)


@app.command("export")
def hand_out(file: FileName, form: FormOption = None) -> None:
    """Write all products to a file, archived ones too."""
    form = _form(file, form)
    target = _opened(file, sys.stdout.buffer, "wb")
    with target:
        written = on_engine(lambda engine: _write(engine, form, target))
    print(f"{written:,} bytes written.", file=sys.stderr)


async def _write(engine: Engine, form: Form, target: IO[bytes]) -> int:
    assert engine.settings.postgres_url is not None
    written = 0
    async for piece in export_products(engine.settings.postgres_url, form):
        written += target.write(piece)
    target.flush()
    return written


async def _read(source: IO[bytes], file: Path, progress: Progress) -> AsyncIterator[bytes]:
    total = None if str(file) == _STDIO else os.fstat(source.fileno()).st_size
    done = 0
    async for piece in pieces_of(source):
        done += len(piece)
        progress("bytes", done, total)
        yield piece


def _form(file: Path, form: Form | None) -> Form:
    found = form or _FORMS.get(file.suffix.lower())
    if found is None:
        raise DoorbusterError(f"{file}: say what it is: --format csv or --format jsonl.")
    return found


def _opened(file: Path, stdio: IO[bytes], mode: str) -> IO[bytes]:
    if str(file) == _STDIO:
        return stdio
    try:
        return file.open(mode)
    except OSError as error:
        raise DoorbusterError(f"{file} cannot be opened: {error.strerror}.") from error


def _tell(report: ImportReport, *, skip_bad: bool) -> None:
    for fault in report.bad:
        column = f", {fault.column}" if fault.column else ""
        print(f"line {fault.line}{column}: {fault.problem}", file=sys.stderr)
    if report.bad_count > len(report.bad):
        print(f"and {report.bad_count - len(report.bad):,} more", file=sys.stderr)
    if report.bad_count and not (report.dry_run or skip_bad):
        raise DoorbusterError(f"Nothing was stored: {report.bad_count:,} faults.")
    verb = "would be" if report.dry_run else "were"
    print(
        f"{report.rows_read:,} rows read. Products: {report.products_created:,} {verb} created,"
        f" {report.products_updated:,} changed. SKUs: {report.skus_created:,} created,"
        f" {report.skus_updated:,} changed."
    )
