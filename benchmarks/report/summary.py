"""What stands first: the verdict in one line, what to be careful about, the key figures."""

from benchmarks.report.context import machine_line, mode_of, others_share, proofs, targets
from benchmarks.report.runs import Run
from benchmarks.report.section import Tile
from benchmarks.report.sweep import BUSY_SHARE_MAX, HOPS, total_us
from benchmarks.report.told import failures, figures_of, last_line
from benchmarks.report.words import first_upper, number, percent, plural, rate


def verdict(run: Run) -> str:
    """The run in one sentence."""
    found = proofs(run)
    broken = [proof for proof in found if not proof.ok]
    if broken:
        return f"An invariant is broken after {len(broken)} of {plural(len(found), 'step')}: no figure below counts."
    held = f", and all invariants held after {plural(len(found), 'step')}" if found else ""
    sweep = run.group("sweep")
    mode = f", {mode_of(run)} durability" if mode_of(run) else ""
    if knee := sweep.get("knee"):
        p99 = number(knee["latency_ms"]["p99"])
        return (
            f"{rate(knee['offered_per_s'])} reservations a second with p99 at {p99} ms{mode}{held}."
        )
    if steps := sweep.get("steps"):
        most = max(step["accepted_per_s"] for step in steps)
        return f"Up to {rate(most)} reservations a second, none of the loads with p99 below 5 ms{mode}{held}."
    if found:
        return f"All invariants held after {plural(len(found), 'step')}{mode}; throughput was not swept."
    return "A partial run: throughput was not swept and no step was checked."


def remarks(run: Run) -> list[tuple[str, bool]]:
    """(what to be careful about, whether it is bad), the worst first."""
    said = [
        (f"{proof.group}, {proof.step}: {'; '.join(proof.broken)}", True)
        for proof in proofs(run)
        if not proof.ok
    ]
    said += [
        (first_upper(f"{part.replace('_', ' ')} failed: {last_line(why)}"), True)
        for group in run.groups.values()
        for part, why in failures(group).items()
    ]
    said += _missed(run)
    if warning := run.group("environment").get("warning"):
        said.append((str(warning), False))
    busy = others_share(run)
    if busy > BUSY_SHARE_MAX:
        said.append(
            (
                f"Other programs took up to {percent(busy)} of this machine's cores during the run: read "
                "rates and latencies as lower bounds of what it can do; CPU per reservation suffers less.",
                False,
            )
        )
    return said


def _missed(run: Run) -> list[tuple[str, bool]]:
    met, missed = targets(run)
    count = sum(map(len, missed.values()))
    if not count:
        return []
    names = "; ".join(f"{group}: {', '.join(each)}" for group, each in missed.items())
    return [(f"{met} of {met + count} targets were met. Missed in {names}.", False)]


def about(run: Run) -> str:
    git = run.group("environment").get("git")
    source = f" of {str(git)[:12]}" if git else ""
    return f"Run {run.name}{source} on {machine_line(run)}."


def tiles(run: Run) -> list[Tile]:
    """The key figures that were measured."""
    return [
        *_sweep_tiles(run),
        *_overload_tile(run),
        *_drain_tile(run),
        *_memory_tile(run),
        *_proof_tile(run),
    ]


def _sweep_tiles(run: Run) -> list[Tile]:
    sweep = run.group("sweep")
    steps = sweep.get("steps", ())
    if not steps:
        return []
    knee = sweep.get("knee")
    most = max(steps, key=lambda step: step["accepted_per_s"])
    half = min(steps, key=lambda step: abs(step["offered_per_s"] - most["accepted_per_s"] / 2))
    p99 = half["latency_ms"]["p99"]
    hops = [hop for hop in HOPS if most["cpu_us"].get(hop)]
    at = f"at {rate(most['accepted_per_s'])}/s"
    found = [
        Tile(
            "Accepted at the knee" if knee else "Accepted at most",
            rate(knee["accepted_per_s"] if knee else most["accepted_per_s"]),
            "/s",
            f"most: {rate(most['accepted_per_s'])}/s" if knee else "no load had p99 ≤ 5 ms",
        ),
        Tile("p99 at half load", number(p99), "ms", "target: ≤ 5 ms", good=p99 <= 5),
    ]
    if len(hops) == len(HOPS):
        rest = ", ".join(f"{HOPS[hop]} {number(most['cpu_us'][hop])}" for hop in hops[1:])
        found += [
            Tile("Front CPU", number(most["cpu_us"]["front"]), "µs", f"per reservation, {at}"),
            Tile("CPU of all hops", number(total_us(most)), "µs", rest),
        ]
    return found


def _overload_tile(run: Run) -> list[Tile]:
    overload = run.group("overload")
    share, steps = overload.get("goodput_share_at_most"), overload.get("steps")
    if share is None or not steps:
        return []
    target = overload.get("share_target", 0.8)
    times = max(step["times"] for step in steps)
    note = f"of its peak; target: {percent(target)}"
    return [
        Tile(f"Goodput at {times:g}× load", f"{share * 100:.0f}", "%", note, good=share >= target)
    ]


def _drain_tile(run: Run) -> list[Tile]:
    stored = [
        each for each in figures_of(run.group("drain")) if "orders/s" in str(each.get("unit"))
    ]
    if not stored:
        return []
    first = stored[0]
    target = str(first.get("target") or "")
    note = f"per worker; target: {target}" if target else "per worker"
    return [Tile("Orders stored", rate(first["value"]), "/s", note, good=first.get("ok"))]


def _memory_tile(run: Run) -> list[Tile]:
    memory = run.group("memory")
    if "redis_bytes_per_reservation" not in memory:
        return []
    front = memory.get("front_idle", [{}])[-1]
    note = f"front {number(front.get('rss_mib'))} MiB with {front.get('connections', 0):,} idle"
    return [
        Tile("Redis per reservation", number(memory["redis_bytes_per_reservation"]), "bytes", note)
    ]


def _proof_tile(run: Run) -> list[Tile]:
    found = proofs(run)
    if not found:
        return []
    hold = sum(proof.ok for proof in found)
    note = f"steps with all {found[0].checked} intact"
    return [Tile("Invariants", f"{hold} of {len(found)}", "", note, good=hold == len(found))]
