"""Runs one group of measurements from the command line."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.figures import as_table, figures_of


def run_alone(group: str, measure: Callable[..., dict[str, Any]]) -> None:
    """Prints the group's figures; keeps all of it in `--folder` as `<group>.json` if one is given."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.capacity.{group}")
    parser.add_argument("--quick", action="store_true", help="short and rough, for a first look")
    parser.add_argument("--folder", type=Path, help="the run's folder")
    options = parser.parse_args()
    began = time.monotonic()
    found = measure(options.folder or Path(), quick=options.quick)
    found["took_s"] = round(time.monotonic() - began, 1)
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        (options.folder / f"{group}.json").write_text(text)
    print_figures(found, group)


def print_figures(found: dict[str, Any], title: str) -> None:
    """The figures, targets beside them."""
    Console().print(as_table([(title, figure) for figure in figures_of(found)], title))
