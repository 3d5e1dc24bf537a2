"""What other benchmarks stored, as far as they have it in common, and the sections that only tell it.

A group has `figures`, each with a name, a value, a unit and perhaps a target; or it was `skipped`, or
has `failed`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from benchmarks.report.runs import Group, Run
from benchmarks.report.section import Missing, Section, Table
from benchmarks.report.words import first_upper, number

Values = Mapping[str, Any]

_MET: Final[dict[object, str]] = {True: ", [down]met[/]", False: ", [up]missed[/]"}


def figures_of(group: Group) -> list[Values]:
    """The group's figures: those with a name and a value that is a number."""
    found = group.get("figures", ())
    return [
        each
        for each in found
        if isinstance(each, dict)
        and isinstance(each.get("value"), int | float)
        and each.get("name")
    ]


def why_missing(group: Group, title: str) -> Missing:
    skipped = group.get("skipped")
    if isinstance(skipped, str):
        return Missing(title, skipped)
    if failed := failures(group):
        return Missing(title, f"It failed: {' '.join(map(last_line, failed.values()))}")
    return Missing(title, "It was not measured in this run.")


def failures(group: Group) -> dict[str, str]:
    """What failed in the group, and what was said then."""
    failed = group.get("failed")
    return {str(k): str(v) for k, v in failed.items()} if isinstance(failed, dict) else {}


def last_line(text: str) -> str:
    """Of a traceback, what went wrong."""
    return text.strip().rpartition("\n")[2].strip()


def figures_table(figures: Sequence[Values]) -> Table:
    """Name, value, unit, target and whether it is met."""
    return Table(
        ("", "value", "unit", "target"),
        [
            (
                str(each["name"]),
                number(each["value"]),
                str(each.get("unit", "")),
                f"{each.get('target') or ''}{_MET.get(each.get('ok'), '')}",
            )
            for each in figures
        ],
        words=frozenset({0, 2, 3}),
    )


def skipped_notes(group: Group) -> list[str]:
    skipped = group.get("skipped", ())
    if isinstance(skipped, dict):
        failed = [f"{name} failed: {last_line(why)}" for name, why in failures(group).items()]
        return [f"{name} was left out: {why}." for name, why in skipped.items()] + failed
    if isinstance(skipped, str):
        return [skipped]
    return [
        str(each.get("why", each)) if isinstance(each, dict) else str(each)
        for each in skipped or ()
    ]


def told_section(run: Run, key: str, title: str, shows: str) -> Section | Missing:
    group = run.group(key)
    figures = figures_of(group) or _plain_figures(group)
    if not figures:
        return why_missing(group, title)
    return Section(
        key=key,
        title=title,
        shows=shows,
        finding=_told_finding(figures),
        mode=str(group.get("durability", "strict")),
        tables=(figures_table(figures),),
        half=True,
        notes=skipped_notes(group),
    )


def _plain_figures(group: Group) -> list[Values]:
    """The numbers of a group that brought no figures along."""
    return [
        {"name": name.replace("_", " "), "value": value, "unit": ""}
        for name, value in group.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    ]


def _told_finding(figures: Sequence[Values]) -> str:
    judged = [each for each in figures if each.get("ok") is not None]
    first = (judged or list(figures))[0]
    said = f"{first_upper(str(first['name']))}: {number(first['value'])} {first.get('unit', '')}"
    if first.get("ok") is None:
        return f"{said.rstrip()}."
    verdict = "met" if first["ok"] else "missed"
    return f"{said.rstrip()}; the target, {first['target']}, is {verdict}."
