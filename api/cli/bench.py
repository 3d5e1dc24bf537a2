"""`doorbuster bench`: turns a benchmark run into a report. Measuring is `make bench`."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.errors import DoorbusterError

app = typer.Typer(rich_markup_mode="markdown", add_completion=False)


class NoReport(DoorbusterError):
    """A report cannot be made. One sentence that says why and what to do."""


@app.callback()
def bench() -> None:
    """Benchmark reports: `doorbuster bench report` after `make bench`."""


@app.command()
def report(
    run: Annotated[
        Path | None, typer.Option(help="The run's folder; none: the newest.", metavar="FOLDER")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="An earlier run; none: the one before.", metavar="FOLDER")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Where to write; none: report.html in the run's folder.", metavar="FILE"),
    ] = None,
) -> None:
    """Write one self-contained HTML page of a benchmark run, and of how it compares with an earlier one."""
    reports = _reports()
    try:
        folder = run or _newest(reports)
        earlier = against or _before(reports, folder)
        path = out or folder / "report.html"
        found = reports.read_run(folder)
        reports.write_report(found, reports.read_run(earlier) if earlier else None, path)
    except reports.ReportFailed as error:
        raise NoReport(str(error)) from error
    print(f"Report of run {found.name}: {path}")
    print(f"Compared with {earlier.name}." if earlier else "No earlier run to compare with.")


def _reports() -> Any:
    """The part that writes reports: imported here only, so that nothing else of ours needs it."""
    try:
        return import_module("benchmarks.report")
    except ImportError as error:
        raise NoReport(f"Reports cannot be written by this installation: {error}.") from error


def _newest(reports: Any) -> Path:
    runs = reports.find_runs()
    if not runs:
        raise NoReport("There is no benchmark run yet: run make bench first.")
    return Path(runs[-1])


def _before(reports: Any, folder: Path) -> Path | None:
    """The run before `folder` in the same place."""
    runs = reports.find_runs(folder.resolve().parent)
    earlier = [each for each in runs if each.name < folder.resolve().name]
    return Path(earlier[-1]) if earlier else None
