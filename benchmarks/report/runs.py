"""Finds the folders of benchmark runs and reads them. Says nothing of what the numbers mean."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

RESULTS: Final = Path(__file__).resolve().parent.parent / "results"
GROUPS: Final = (
    "environment",
    "sweep",
    "overload",
    "scaling",
    "durability",
    "side_by_side",
    "kernels",
    "redis",
    "drain",
    "growth",
    "whole",
    "admission",
    "shop",
    "memory",
)

Group = dict[str, Any]


class ReportFailed(Exception):
    """No report can be made. One sentence that says why and what to do."""


@dataclass(frozen=True)
class Run:
    """One run: its folder's name, and what each group stored. A group that did not run is missing."""

    name: str
    folder: Path
    groups: dict[str, Group] = field(default_factory=dict)

    def group(self, name: str) -> Group:
        """The group's JSON; empty if it did not run, or was skipped."""
        return self.groups.get(name, {})


def find_runs(results: Path | None = None) -> list[Path]:
    """The folders of all runs, oldest first: their names are UTC stamps."""
    results = results or RESULTS
    if not results.is_dir():
        return []
    return sorted(folder for folder in results.iterdir() if folder.is_dir() and _has_groups(folder))


def read_run(folder: Path) -> Run:
    """The run in a folder. ReportFailed if there is none, or a file of it is no JSON object."""
    if not folder.is_dir():
        raise ReportFailed(f"There is no folder {folder}.")
    if not _has_groups(folder):
        raise ReportFailed(f"{folder} holds no benchmark run: run make bench first.")
    groups = {name: _read(path) for name in GROUPS if (path := folder / f"{name}.json").exists()}
    return Run(folder.resolve().name, folder, groups)


def _has_groups(folder: Path) -> bool:
    return any((folder / f"{name}.json").exists() for name in GROUPS)


def _read(path: Path) -> Group:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ReportFailed(f"{path} cannot be read: {error}") from error
    if isinstance(content, dict) and isinstance(content.get("result"), dict):
        content = content["result"]
    if not isinstance(content, dict):
        raise ReportFailed(f"{path} is not what a benchmark writes: it holds no JSON object.")
    return content
