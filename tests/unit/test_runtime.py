"""The data folder: one engine at a time, found by every command, secrets kept private."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import Durability, Settings
from engine.errors import ConfigError
from engine.runtime import (
    AlreadyRunning,
    DataDirLock,
    Running,
    forget_running,
    keep_secrets,
    read_running,
    resolve_settings,
    write_running,
)

RUNNING = Running(
    pid=os.getpid(),
    public_url="http://127.0.0.1:8099",
    redis_url="unix:///run/valkey.sock",
    postgres_url="postgresql:///doorbuster",
    secret="k" * 32,
    durability=Durability.BALANCED,
)


@pytest.fixture
def lock(tmp_path: Path) -> DataDirLock:
    lock = DataDirLock(tmp_path)
    lock.take()
    return lock


def test_commands_find_the_engine_that_runs_on_the_folder(
    tmp_path: Path, lock: DataDirLock
) -> None:
    write_running(tmp_path, RUNNING)

    found = resolve_settings(Settings(data_dir=str(tmp_path)))

    assert found.redis_url == RUNNING.redis_url
    assert found.postgres_url == RUNNING.postgres_url
    assert found.secret == RUNNING.secret
    assert found.public_url == RUNNING.public_url
    assert found.durability is Durability.BALANCED


def test_what_was_set_wins_over_what_is_found(tmp_path: Path, lock: DataDirLock) -> None:
    write_running(tmp_path, RUNNING)

    found = resolve_settings(Settings(data_dir=str(tmp_path), redis_url="redis://elsewhere"))

    assert found.redis_url == "redis://elsewhere"
    assert found.postgres_url == RUNNING.postgres_url


def test_what_a_dead_engine_left_behind_is_not_believed(tmp_path: Path, lock: DataDirLock) -> None:
    write_running(tmp_path, RUNNING)
    lock.release()

    assert read_running(tmp_path) is None
    with pytest.raises(ConfigError, match="No engine runs"):
        resolve_settings(Settings(data_dir=str(tmp_path)))


def test_one_sentence_says_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    settings = Settings(data_dir=str(tmp_path), redis_url="redis://here", secret="k" * 32)

    with pytest.raises(ConfigError) as refused:
        resolve_settings(settings)

    assert len(refused.value.problems) == 1
    assert "doorbuster up" in str(refused.value)
    assert "DOORBUSTER_POSTGRES_URL" in str(refused.value)
    assert "DOORBUSTER_REDIS_URL" not in str(refused.value)


def test_tokens_can_be_signed_while_the_engine_is_stopped(tmp_path: Path) -> None:
    kept = keep_secrets(tmp_path)

    assert resolve_settings(Settings(data_dir=str(tmp_path)), ["secret"]).secret == kept.secret


def test_a_second_engine_on_the_same_folder_is_refused(tmp_path: Path, lock: DataDirLock) -> None:
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        DataDirLock(tmp_path).take()

    lock.release()
    lock.release()
    DataDirLock(tmp_path).take()


def test_a_killed_engine_leaves_the_folder_free(tmp_path: Path) -> None:
    program = (
        "import os, sys, pathlib; from engine.runtime import DataDirLock;"
        "DataDirLock(pathlib.Path(sys.argv[1])).take(); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)

    assert killed.returncode == -9
    DataDirLock(tmp_path).take()


def test_secrets_survive_and_differ_between_folders(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()

    assert keep_secrets(one) == keep_secrets(one)
    assert keep_secrets(one).secret != keep_secrets(other).secret
    assert len(keep_secrets(one).secret) >= 32


@pytest.mark.parametrize("name", ["secrets", "engine.json"])
def test_only_the_owner_may_read_secrets(tmp_path: Path, lock: DataDirLock, name: str) -> None:
    before = os.umask(0)
    try:
        keep_secrets(tmp_path)
        write_running(tmp_path, RUNNING)
    finally:
        os.umask(before)

    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600


def test_damaged_secrets_are_reported_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text("{")

    with pytest.raises(ConfigError, match="cannot be read"):
        keep_secrets(tmp_path)
    assert (tmp_path / "secrets").read_text() == "{"


def test_a_stopped_engine_is_forgotten(tmp_path: Path, lock: DataDirLock) -> None:
    write_running(tmp_path, RUNNING)

    forget_running(tmp_path)
    forget_running(tmp_path)

    assert read_running(tmp_path) is None
