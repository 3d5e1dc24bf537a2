"""A Valkey that had to be killed is not on record as stopped: what it held may not be on disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from api.up import supervisor
from api.up.children import Watched
from api.up.supervisor import Supervisor
from engine.clock import SystemClock
from engine.config import Settings
from engine.ids import RandomIds
from engine.servers import EmbeddedValkey, process


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("killed", [False, True])
def test_only_a_clean_stop_is_noted(
    own_valkey: EmbeddedValkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    noted: list[str] = []

    async def note(_: Settings, run_id: str) -> None:
        noted.append(run_id)

    monkeypatch.setattr(supervisor, "note_clean_stop", note)
    if killed:
        monkeypatch.setattr(process, "STOP_SECONDS_MAX", 0.0)
    said: list[str] = []
    owner = Supervisor(
        Settings(
            data_dir=str(tmp_path), redis_url=own_valkey.url, postgres_url="postgresql:///unused"
        ),
        demo=False,
        clock=SystemClock(),
        ids=RandomIds(),
        environ={},
        program="doorbuster",
        say=said.append,
    )
    log = tmp_path / "valkey.log"
    owner._valkey = Watched("Valkey", own_valkey, log, SystemClock(), said.append)
    owner._stop_valkey()
    assert len(noted) == (0 if killed else 1)
    assert said == [f"Valkey {'did not stop cleanly' if killed else 'stopped'}."]
