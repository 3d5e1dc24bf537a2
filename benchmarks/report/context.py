"""What the figures rest on: invariants after each step, the machine, versions, targets."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from benchmarks.report.runs import Run
from benchmarks.report.section import Missing, Section, Table
from benchmarks.report.told import figures_of
from benchmarks.report.words import first_upper, listed, number, plural, rate

Values = Mapping[str, Any]


class Proof(NamedTuple):
    """What was checked after one step."""

    group: str
    step: str
    accepted: int | None
    checked: int
    hold: int
    broken: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.hold == self.checked and self.checked > 0


def proofs(run: Run) -> list[Proof]:
    """The invariants after each step of the run."""
    return [
        Proof(
            group,
            step,
            found.get("accepted"),
            found["invariants"]["checked"],
            found["invariants"]["hold"],
            tuple(found["invariants"]["broken"]),
        )
        for group, step, found in _steps(run)
        if found.get("invariants")
    ]


def _steps(run: Run) -> Iterator[tuple[str, str, Values]]:
    sweep = run.group("sweep")
    if sweep.get("saturated"):
        yield "sweep", "saturated", sweep["saturated"]
    for step in sweep.get("steps", ()):
        yield "sweep", f"{rate(step['offered_per_s'])}/s offered", step
    for step in run.group("overload").get("steps", ()):
        yield "overload", f"{step['times']:g}× offered", step
    limits = run.group("admission").get("overload", {})
    for name, steps in limits.get("steps", {}).items():
        for step in steps:
            yield "admission", f"{name}, {step['times']:g}× offered", step
    for name, found in limits.get("faults", {}).items():
        yield "admission", f"{name}, slow Postgres", found
    for step in run.group("scaling").get("steps", ()):
        yield "scaling", plural(step["fronts"], "front"), step
    for mode in run.group("durability").get("modes", ()):
        yield "durability", f"{mode['mode']}, saturated", mode["saturated"]
        yield "durability", f"{mode['mode']}, half load", mode["half"]
    memory = run.group("memory")
    if memory:
        yield "memory", "reservations", memory | {"accepted": memory.get("reservations")}


def invariants_section(run: Run) -> Section | Missing:
    found = proofs(run)
    if not found:
        return Missing("Invariants", "No step of this run was checked.")
    broken = [proof for proof in found if not proof.ok]
    return Section(
        key="invariants",
        title="Invariants after each step",
        shows=(
            "After each step, once everything was stored, Redis and Postgres were compared reservation by "
            "reservation, as `doorbuster check` does."
        ),
        finding=_proof_finding(found, broken),
        mode=mode_of(run),
        tables=(_group_table(found),),
        folded=(("Step by step", _proof_table(found)),),
        notes=[f"{proof.group}, {proof.step}: {line}" for proof in broken for line in proof.broken],
    )


def _proof_finding(found: list[Proof], broken: list[Proof]) -> str:
    total = sum(proof.accepted or 0 for proof in found)
    if broken:
        where = listed([f"{proof.group} ({proof.step})" for proof in broken])
        return f"BROKEN in {len(broken)} of {plural(len(found), 'step')}: {where}."
    return (
        f"All {found[0].checked} invariants held after each of {plural(len(found), 'step')}; "
        f"{total:,} reservations were accepted and every one is an order."
    )


def _group_table(found: list[Proof]) -> Table:
    groups = list(dict.fromkeys(proof.group for proof in found))
    rows = []
    for group in groups:
        steps = [proof for proof in found if proof.group == group]
        whole = sum(proof.ok for proof in steps)
        accepted = sum(proof.accepted or 0 for proof in steps)
        word = "down" if whole == len(steps) else "up"
        rows.append((group, number(accepted), f"[{word}]{whole} of {len(steps)}[/]"))
    columns = ("", "reservations accepted", "steps with every invariant intact")
    return Table(columns, rows)


def _proof_table(found: list[Proof]) -> Table:
    return Table(
        ("group", "step", "accepted", "invariants that hold"),
        [
            (
                proof.group,
                proof.step,
                number(proof.accepted),
                f"[{'down' if proof.ok else 'up'}]{proof.hold} of {proof.checked}[/]",
            )
            for proof in found
        ],
        words=frozenset({0, 1}),
    )


def machine_section(run: Run) -> Section | Missing:
    environment = run.group("environment")
    if not environment:
        return Missing("Machine and versions", "The run does not say where it was measured.")
    rows = [
        *_pairs("machine", environment.get("machine")),
        *_pairs("server", {"postgres": environment.get("postgres")}),
        *_pairs("redis", environment.get("redis")),
        *_pairs("version", environment.get("versions")),
        *_pairs("source", {"git": environment.get("git"), "stamp": environment.get("stamp")}),
    ]
    return Section(
        key="machine",
        title="Machine and versions",
        shows="Where the figures were measured; they hold for this machine and these versions.",
        finding=_machine_finding(run),
        mode=mode_of(run),
        folded=(("All that was recorded", Table(("", "", ""), rows, frozenset({0, 1, 2}))),),
    )


def _machine_finding(run: Run) -> str:
    environment = run.group("environment")
    named = {
        "python": "Python",
        "valkey": "Valkey",
        "redis_server": "Redis",
        "postgres": "Postgres",
    }
    versions = environment.get("versions") or {}
    parts = [f"{title} {versions[key]}" for key, title in named.items() if versions.get(key)]
    clean = "" if environment.get("git_clean", True) else ", from a tree with changes not committed"
    return f"{first_upper(machine_line(run))}{', with ' if parts else ''}{listed(parts)}{clean}."


def _pairs(kind: str, values: object) -> list[tuple[str, str, str]]:
    if not isinstance(values, dict):
        return []
    return [
        (kind, str(name), str(value)) for name, value in values.items() if value not in (None, "")
    ]


def machine_line(run: Run) -> str:
    """2 cores, AMD EPYC, 24 GiB"""
    machine = run.group("environment").get("machine", {})
    parts = [plural(machine["cores"], "core")] if machine.get("cores") else []
    parts += [str(machine["cpu"])] if machine.get("cpu") else []
    parts += [f"{machine['memory_mib'] / 1024:.0f} GiB"] if machine.get("memory_mib") else []
    return ", ".join(parts) or "a machine not recorded"


def mode_of(run: Run) -> str:
    return str(
        run.group("environment").get("durability") or run.group("sweep").get("durability", "")
    )


def others_share(run: Run) -> float:
    """The largest share of the cores that programs not ours took during a step."""
    return max((step.get("others_share") or 0.0 for _, _, step in _steps(run)), default=0.0)


def targets(run: Run) -> tuple[int, dict[str, list[str]]]:
    """(targets met, names of those missed by group), of all groups that name any."""
    met, missed = 0, dict[str, list[str]]()
    for group in run.groups:
        for each in figures_of(run.group(group)):
            if each.get("ok") is True:
                met += 1
            elif each.get("ok") is False:
                missed.setdefault(group.replace("_", " "), []).append(str(each["name"]))
    return met, missed
