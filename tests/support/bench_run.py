"""A small benchmark run as the benchmarks store it: files to read, numbers made up for the purpose."""

import json
from pathlib import Path
from typing import Any

Json = dict[str, Any]
OFFERED = (3000, 6000, 9000, 12000, 15000, 18000, 21000, 24000, 27000, 30000, 34500, 39000)
P99_MS = (0.9, 1.0, 1.1, 1.3, 1.5, 1.9, 2.6, 3.4, 4.6, 11.0, 640.0, 980.0)


def hold(*, broken: bool = False) -> Json:
    if not broken:
        return {"checked": 11, "hold": 11, "broken": []}
    return {"checked": 11, "hold": 10, "broken": ["FAIL  1. no oversell — 3 too many"]}


def load_step(offered: float, p99_ms: float, accepted: float, **more: Any) -> Json:
    latency = {
        "p50": round(p99_ms * 0.35, 3),
        "p90": round(p99_ms * 0.6, 3),
        "p99": p99_ms,
        "p999": round(p99_ms * 1.5, 3),
        "max": round(p99_ms * 2.2, 3),
    }
    batch = 1 + offered / 4000
    return {
        "offered_per_s": offered,
        "sent_per_s": offered,
        "accepted_per_s": accepted,
        "goodput_per_s": accepted,
        "accepted": int(accepted * 3),
        "late": 0,
        "outcomes": {"201": int(accepted * 3)},
        "latency_ms": latency,
        "accepted_latency_ms": latency,
        "generator": {
            "processes": 1,
            "cpu_share": round(offered / 60_000, 3),
            "cpu_cores": round(offered / 60_000, 3),
            "lag_p99_ms": 0.3,
            "was_limit": False,
        },
        "cpu_us": {
            "front": round(12 + 24 / batch, 2),
            "redis": round(3 + 38 / batch, 2),
            "worker": round(3 + 20 / batch, 2),
            "postgres": round(9 + 22 / batch, 2),
        },
        "utilisation": {"front": 0.4, "redis": 0.1, "worker": 0.08, "postgres": 0.2},
        "others_share": 0.02,
        "front_rss_max_mib": 68.0,
        "stored_after_s": 0.1,
        "invariants": hold(),
    } | more


def sweep() -> Json:
    steps = [
        load_step(offered, p99, min(offered, 30_600))
        for offered, p99 in zip(OFFERED, P99_MS, strict=True)
    ]
    return {
        "durability": "strict",
        "arrivals": "poisson",
        "connections": 512,
        "fronts": 1,
        "cores": {"engine": [0], "generator": [1]},
        "knee_method": "the highest load with p99 ≤ 5 ms and at least 98 % of it accepted",
        "knee": steps[8],
        "saturated": load_step(100_000, 9.0, 30_500),
        "steps": steps,
    }


def overload() -> Json:
    shares = {1: 1.0, 2: 0.97, 3: 0.95, 5: 0.93, 10: 0.9}
    steps = []
    for times, share in shares.items():
        accepted = int(30_000 * share)
        due = 27_000 * times * 3
        shed = min(due - accepted * 3, 20_000) if times > 1 else 0
        outcomes = {"201": accepted * 3 if times > 1 else due, "503": shed}
        outcomes["unsent"] = max(0, due - sum(outcomes.values()))
        step = load_step(27_000 * times, 40.0 * times, accepted, times=float(times))
        steps.append(step | {"outcomes": outcomes, "front_rss_max_mib": 70.0 + times})
    return {
        "durability": "strict",
        "base_per_s": 27_000,
        "base_is": "knee",
        "connections": 2048,
        "steps": steps,
        "peak_goodput_per_s": 30_000,
        "goodput_share_at_most": 0.9,
        "share_target": 0.8,
    }


def scaling() -> Json:
    rates = {1: 24_000, 2: 37_000, 4: 33_000}
    return {
        "durability": "strict",
        "cores": 2,
        "shared_with_generator": True,
        "steps": [load_step(1e5, 9.0, x, fronts=n) for n, x in rates.items()],
        "usl": {
            "lambda_": 24_000.0, "sigma": 0.02, "kappa": 0.138, "rms": 420.0,
            "relative_rms": 0.013, "points": 3, "peak_n": 2.66,
            "trust": "3 points for 3 parameters: the curve is drawn through them, not tested.",
        },
    }  # fmt: skip


def durability() -> Json:
    rates = {"strict": 30_000, "balanced": 33_000, "replicated": 24_000}
    return {
        "modes": [
            {
                "mode": mode,
                "saturated": load_step(1e5, 9.0, rate),
                "half": load_step(rate / 2, 2.4, rate / 2),
            }
            for mode, rate in rates.items()
        ],
        "skipped": {},
    }


def memory() -> Json:
    return {
        "durability": "strict",
        "front_idle": [
            {"connections": 0, "rss_mib": 63.3},
            {"connections": 1000, "rss_mib": 71.0},
            {"connections": 5000, "rss_mib": 101.8},
        ],
        "front_fresh_mib": 63.3,
        "worker_fresh_mib": 60.7,
        "worker_after_mib": 64.2,
        "front_after_mib": 82.0,
        "redis_bytes_per_reservation": 86.2,
        "reservations": 30_000,
        "invariants": hold(),
    }


def side_by_side() -> Json:
    rows = {
        "nginx, a static 201": (8.1, 0.0),
        "our gate": (13.4, 3.9),
        "nginx + Lua + Redis": (27.2, 17.1),
        "Go: gin + redigo": (33.0, 18.0),
        "our aiohttp route": (46.0, 4.1),
        "naive aiohttp + redis-py": (151.0, 30.0),
    }
    return {
        "durability": "strict",
        "ours": "gate",
        "servers": {
            title: {
                "title": title,
                "front_us": front,
                "redis_us": redis,
                "requests_per_second": 9e5 / front,
                "front_busy": 0.97,
                "p50_ms": front / 12,
                "p99_ms": front / 5,
            }
            for title, (front, redis) in rows.items()
        },
        "loads": {
            "sold_out": {"title": "refusal: 409, nothing left", "front_us": 8.2, "redis_us": 0.0},
            "replay": {"title": "replay: 200", "front_us": 13.9, "redis_us": 2.1},
        },
        "skipped": {},
        "failed": {},
        "figures": [figure("front, gate", 13.4, "µs / reservation", "≤ 14", ok=True)],
    }


def figure(name: str, value: float, unit: str, target: str = "", *, ok: bool | None = None) -> Json:
    return {"name": name, "value": value, "unit": unit, "target": target, "ok": ok}


def kernels() -> Json:
    values = {
        "split a batch": (93, 253),
        "verify a token": (820, 4100),
        "pack a batch": (410, 1900),
        "reservation id": (310, 900),
    }
    forms = [
        (name, form, ns)
        for name, pair in values.items()
        for form, ns in zip(("compiled", "plain"), pair, strict=True)
    ]
    return {
        "benchmarks": [
            {
                "group": f"kernels: {name}",
                "name": f"test[{form}]",
                "stats": {"median": ns / 1e9},
                "extra_info": {},
            }
            for name, form, ns in forms
        ],
        "figures": [figure(f"{name}[{form}]", ns, "ns / call") for name, form, ns in forms],
    }


def redis() -> Json:
    points = {1: 36.0, 8: 9.8, 64: 3.1, 128: 2.5, 512: 2.1}
    unit = "µs server time / reservation"
    return {
        "durability": "strict",
        "figures": [figure(f"reserve.lua, batch {n}", us, unit) for n, us in points.items()],
    }


def environment() -> Json:
    return {
        "stamp": "20261121T120000Z",
        "git": "b977df3aa",
        "machine": {"cores": 2, "cpu": "AMD EPYC", "kernel": "6.1", "memory_mib": 24105},
        "versions": {"python": "3.11.2", "aiohttp": "3.14.5"},
        "redis": {"valkey_version": "9.1.2", "aof_enabled": 1},
        "postgres": "18.1",
        "durability": "strict",
    }


def drain() -> Json:
    orders = figure("orders stored", 84_000, "orders/s", "≥ 80,000", ok=True)
    return {"figures": [orders, figure("worker CPU", 1.6, "µs / order")]}


def limit_step(times: float, goodput: float, p99_ms: float) -> Json:
    outcomes = {"201": int(goodput * 4), "503": int(times * 400), "unsent": int(times * 9000)}
    more = {"times": times, "round": 0, "goodput_per_s": goodput, "outcomes": outcomes}
    return load_step(18_000 * times, p99_ms, goodput, **more)


def fault(slow: float, behind: float, recovery: float | None) -> Json:
    seconds = [number / 2 for number in range(50)]
    rates = [(s, slow if 6 < s < 15 else 12_000) for s in seconds]
    waiting = [
        {"s": s, "accepted": s, "behind": behind * (5 < s < 16), "entries": 9, "pace": -1}
        for s in seconds
    ]
    return load_step(12_000, 30.0, slow) | {
        "fault_s": [5.0, 15.0],
        "delay_s": 0.4,
        "samples": waiting,
        "rates": rates,
        "usual_per_s": 12_000,
        "slow_per_s": slow,
        "behind_max": behind,
        "recovery_s": recovery,
    }


def day() -> Json:
    seconds = [
        {
            "s": s, "issued": 9000 + s, "serving": max(0, s) * 10, "admitted": max(0, s) * 9,
            "waiting": 9000 - 10 * max(0, s), "available": max(0, 1000 - 9 * max(0, s)),
            "reserved": 5 if 0 < s < 110 else 0, "sold": min(1000, 9 * max(0, s)), "rate": 10.0,
            "pace": None, "capacity": 12.0 + s % 5, "backlog": 3,
            "says": {"good": 4, "fair": 2, "slim": 2, "none": 12} if s < 110 else {},
        }
        for s in range(-200, 140)
    ]  # fmt: skip
    return {
        "plan": {"crowd": {"visitors": 100_000}, "shop": {"units": 1000}},
        "counts": {"polls": 900_000, "left": 5000, "told_gone": 700},
        "units": {"people": 800, "bots": 200},
        "sold": 1000,
        "bots": 20_000,
        "gone_s": 118.0,
        "gone_beyond_interval_s": 0.1,
        "eta": {
            "promises": 5000, "error_p50": 0.02, "error_p90": 0.11, "inside_range": 0.81,
            "points": [(100.0, 110.0), (20.0, 22.0), (5.0, 4.5)],
        },
        "eta_error_is": "|promised − actual| / max(actual, poll interval)",
        "chances": [{"from": 0.9, "told": 800, "served": 0.97}],
        "seconds": seconds,
    }  # fmt: skip


def admission() -> Json:
    steps = {
        "adaptive": [limit_step(1, 17_500, 18), limit_step(10, 16_900, 44)],
        "fixed": [limit_step(1, 17_400, 19), limit_step(10, 15_100, 280)],
    }
    sides = {
        "adaptive": {"peak_per_s": 17_500, "share": 0.966, "p99_ms": 44, "growth_mib": 0.4},
        "fixed": {"peak_per_s": 17_400, "share": 0.868, "p99_ms": 280, "growth_mib": 1.5},
    }
    faults = {"adaptive": fault(3900, 7800, 1.2), "fixed": fault(11_800, 81_000, None)}
    return {
        "durability": "strict",
        "costs": {"nanoseconds": {"throttle, user known": 145.0, "room, a poll": 812.0}},
        "simulation": day(),
        "draw": day(),
        "overload": {"steps": steps, "sides": sides, "faults": faults},
        "skipped": {},
        "failed": {},
        "figures": [figure("costs: room, a poll", 812, "ns", "≤ 1,000", ok=True)],
    }


ALL = {
    "environment": environment,
    "sweep": sweep,
    "overload": overload,
    "scaling": scaling,
    "durability": durability,
    "memory": memory,
    "side_by_side": side_by_side,
    "kernels": kernels,
    "redis": redis,
    "drain": drain,
    "admission": admission,
}


def groups() -> dict[str, Json]:
    return {name: build() for name, build in ALL.items()}


def store(folder: Path, stored: dict[str, Json]) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True)
    for name, content in stored.items():
        (folder / f"{name}.json").write_text(json.dumps(content), "utf-8")
    return folder
