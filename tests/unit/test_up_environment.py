"""What `up` tells its processes: every setting as it is, and a file to count clients in together."""

from pathlib import Path

from api.up.environment import METRICS_VARIABLE, child_environ, share_clients
from engine.admission.throttle import open_table
from engine.config import Durability, ForwardedHeader, LimitKind, Settings, read_settings

SETTINGS = Settings(
    port=0,
    gate=False,
    durability=Durability.BALANCED,
    limit=LimitKind.FIXED,
    deadline_seconds=0.25,
    forwarded_header=ForwardedHeader.FORWARDED,
    secret="a secret of thirty-two characters",
)


def test_processes_read_the_settings_that_they_are_given(tmp_path: Path) -> None:
    environ = child_environ(SETTINGS, {}, tmp_path)
    assert read_settings(environ) == SETTINGS


def test_our_own_environment_is_passed_on_but_not_our_settings(tmp_path: Path) -> None:
    ours = {"PATH": "/bin", "DOORBUSTER_PORT": "1", "DOORBUSTER_CONFIG": "/etc/doorbuster.toml"}
    environ = child_environ(SETTINGS, ours, tmp_path)
    assert environ["PATH"] == "/bin"
    assert environ["DOORBUSTER_PORT"] == "0"
    assert "DOORBUSTER_CONFIG" not in environ
    assert environ[METRICS_VARIABLE] == str(tmp_path)


def test_fronts_count_clients_in_one_file_of_this_run(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    path.write_text("of an earlier run")
    settings = share_clients(SETTINGS, tmp_path)
    assert settings.clients_file == str(path)
    assert not path.exists()
    fronts = [read_settings(child_environ(settings, {}, tmp_path)) for _ in range(2)]
    assert all(open_table(front.clients_max, front.clients_file).shared for front in fronts)


def test_a_file_that_the_operator_named_stays(tmp_path: Path) -> None:
    path = tmp_path / "clients"
    path.write_text("shared with another engine")
    settings = Settings(clients_file=str(path))
    assert share_clients(settings, tmp_path) == settings
    assert path.exists()
