"""Runs one group of measurements from the command line."""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def run_alone(group: str, measure: Callable[..., dict[str, Any]]) -> None:
    """Prints the group's JSON; keeps it in `--folder` as `<group>.json` if one is given."""
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
    print(text)
