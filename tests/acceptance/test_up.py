"""`doorbuster up`: a sale from nothing, stopped and started again, and refusals in one sentence."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.program import SECONDS_MAX, UpProcess, call, environ, free_port, get, run, until


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("up")


@pytest.fixture(scope="module")
def up(data_dir: Path) -> Iterator[UpProcess]:
    """An engine with the demo shop that serves."""
    started = UpProcess(demo(data_dir), "--demo")
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.stop()


def demo(data_dir: Path, **settings: str) -> dict[str, str]:
    return environ(data_dir, port=str(free_port()), front_processes="2", **settings)


def url_of(up: UpProcess) -> str:
    ready = [line for line in up.lines if line.startswith("ready ")]
    assert len(ready) == 1
    return ready[0].removeprefix("ready ")


def one_sentence(arguments: str, env: dict[str, str]) -> str:
    """What a command that fails says; nothing but that."""
    failed = run(arguments, env)
    assert failed.returncode == 1, failed
    sentences = failed.stderr.strip().splitlines()
    assert len(sentences) == 1, failed.stderr
    assert sentences[0].startswith("doorbuster: ")
    return sentences[0]


def test_the_calls_it_prints_work_as_printed(up: UpProcess) -> None:
    look, reserve, follow = up.calls()

    sale = json.loads(call(look))
    reservation = json.loads(call(reserve))
    followed = json.loads(call(follow))

    assert sale["sale_id"] == "demo"
    assert {"phone-black", "phone-white"} <= {item["sku"] for item in sale["items"]}
    assert len(sale["items"]) == 8
    assert reservation["items"] == [{"sku": "phone-black", "quantity": 1}]
    assert followed["reservation_id"] == reservation["reservation_id"]


def test_a_reservation_becomes_a_paid_order_by_itself(up: UpProcess) -> None:
    _, reserve, follow = up.calls()
    call(reserve)

    until(lambda: json.loads(call(follow)).get("order", {}).get("status") == "paid", "paid order")


def test_every_place_it_names_answers(up: UpProcess, data_dir: Path) -> None:
    url = url_of(up)

    for path in ("/healthz", "/readyz", "/metrics"):
        assert get(url + path)[0] == 200, path
    assert (data_dir / "logs" / "front-0.log").exists()


def test_the_operator_token_it_prints_is_one(up: UpProcess) -> None:
    token = up.lines[next(at for at, line in enumerate(up.lines) if "operator token" in line) + 1]
    pause = "/v1/admin/sales/demo/resume"

    status, text = get(url_of(up) + pause, {"Authorization": f"Bearer {token}"}, "POST")

    assert status == 200, text


def test_other_commands_find_it_through_the_data_folder(up: UpProcess, data_dir: Path) -> None:
    env = environ(data_dir)

    assert "phone-black" in run("sale show demo", env).stdout
    assert "demo" in run("sale list", env).stdout
    assert run("seed", env).stdout.strip().endswith("nothing changed.")
    assert run("db status", env).returncode == 0
    token = run("token --user ada", env).stdout.strip()
    status, text = get(url_of(up) + "/v1/orders", {"Authorization": f"Bearer {token}"})
    assert (status, "orders" in text) == (200, True), text


def test_a_second_start_on_the_same_data_is_refused(up: UpProcess, data_dir: Path) -> None:
    said = one_sentence("up --demo", demo(data_dir))

    assert f"process {up.process.pid}" in said
    assert get(url_of(up) + "/readyz")[0] == 200


def test_its_port_is_not_shared_with_a_second_engine(up: UpProcess, tmp_path: Path) -> None:
    port = url_of(up).rpartition(":")[2]

    said = one_sentence("up --demo", environ(tmp_path, port=port))

    assert f"Port {port}" in said


@pytest.mark.parametrize("name", ["front-0", "worker", "sandbox", "Valkey", "Postgres"])
def test_whatever_is_killed_runs_again(up: UpProcess, name: str) -> None:
    os.kill(up.pid_of(name), signal.SIGKILL)

    up.wait_for(f"{name} runs again")

    until(lambda: get(url_of(up) + "/readyz")[0] == 200, "ready again")


def test_it_stops_in_order_and_goes_on_with_the_kept_data(tmp_path: Path) -> None:
    env = demo(tmp_path)
    first = UpProcess(env, "--demo")
    try:
        first.wait_until_ready()
        _, reserve, follow = first.calls()
        reserved = json.loads(call(reserve))
    finally:
        code = first.stop(signal.SIGINT)
    assert code == 0, first.lines
    stops = [line for line in first.lines if line.endswith(" stopped.")]
    names = ["front-0", "front-1", "worker", "sandbox", "Valkey", "Postgres"]
    assert stops == [f"{name} stopped." for name in names]

    second = UpProcess(env, "--demo")
    try:
        second.wait_until_ready()
        # The token of the first start still counts, and so does what it reserved.
        kept = json.loads(call(follow))
        assert kept["reservation_id"] == reserved["reservation_id"]
        assert json.loads(call(reserve))["reservation_id"] == reserved["reservation_id"]
    finally:
        assert second.stop(signal.SIGTERM) == 0, second.lines
    assert not [line for line in second.lines if "is shut" in line]


def test_nothing_is_left_running_when_it_is_killed(tmp_path: Path) -> None:
    env = demo(tmp_path)
    up = UpProcess(env, "--demo")
    up.wait_until_ready()
    pids = [
        up.pid_of(name)
        for name in ("front-0", "front-1", "worker", "sandbox", "Valkey", "Postgres")
    ]

    up.stop(signal.SIGKILL)

    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "all ended")


def test_a_port_in_use_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        said = one_sentence("up --demo", environ(tmp_path, port=str(port)))

    assert f"Port {port}" in said


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("redis_url", "redis://:sesame@127.0.0.1:1/0"),
        ("redis_url", "unix:///nowhere/valkey.sock"),
        ("postgres_url", "postgresql://shop:sesame@127.0.0.1:1/shop"),
        ("postgres_url", "postgresql://shop:sesame@127.0.0.1:port/shop"),
    ],
)
def test_a_wrong_url_is_one_sentence_without_its_password(
    tmp_path: Path, name: str, url: str
) -> None:
    said = one_sentence("up --demo", demo(tmp_path, **{name: url}))

    assert f"DOORBUSTER_{name.upper()}=" in said
    assert "sesame" not in said


def test_without_demo_it_wants_a_secret(tmp_path: Path) -> None:
    assert "DOORBUSTER_SECRET" in one_sentence("up", demo(tmp_path))


def test_wrong_settings_are_named_all_at_once(tmp_path: Path) -> None:
    failed = run("up", environ(tmp_path, port="http", durability="maybe", batch_max="0"))

    assert failed.returncode == 1
    assert len(failed.stderr.strip().splitlines()) == 3


def test_a_postgres_that_does_not_start_is_told_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir(mode=0o700)
    (tmp_path / "postgres" / "PG_VERSION").write_text("9\n")

    failed = run("up --demo", demo(tmp_path))

    assert failed.returncode == 1
    assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr
    assert "Postgres did not start" in failed.stderr


def test_a_folder_with_a_strange_name_will_do(tmp_path: Path) -> None:
    up = UpProcess(demo(tmp_path / "a b#c?d,e%20f"), "--demo")
    try:
        assert get(up.wait_until_ready() + "/readyz")[0] == 200
    finally:
        assert up.stop() == 0


def test_one_users_burst_is_one_for_all_fronts(tmp_path: Path) -> None:
    burst, machines = 40, 1000  # So many share the rate that nothing is refilled meanwhile.
    rates = {"throttle_per_second": "1", "throttle_burst": str(burst * machines)}
    up = UpProcess(demo(tmp_path, machines=str(machines), **rates), "--demo")
    try:
        url = up.wait_until_ready()
        token = run("token --user ada", environ(tmp_path)).stdout.strip()
        fronts = [answering_front(url, token) for _ in range(burst)]
        refused = answering_front(url, token)
        maps = [Path(f"/proc/{up.pid_of(name)}/maps") for name in ("front-0", "front-1")]
        shared = [str(tmp_path / "clients") in each.read_text() for each in maps]
    finally:
        up.stop()
    assert None not in fronts
    assert len(set(fronts)) == 2, "both fronts answer"
    assert refused is None
    assert shared == [True, True]


def answering_front(url: str, token: str) -> str | None:
    """Which front answers a call on a connection of its own, by how it names requests; None: 429."""
    question = Request(f"{url}/v1/orders", headers={"Authorization": f"Bearer {token}"})
    try:
        with urlopen(question, timeout=SECONDS_MAX) as answer:
            return str(answer.headers["X-Request-Id"]).partition("-")[0]
    except HTTPError as refused:
        refused.close()
        if refused.code != 429:
            raise
        return None
