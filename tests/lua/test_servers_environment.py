"""The embedded Valkey is started with its allocator's settings; what an operator set comes first."""

from pathlib import Path

import pytest

from engine.servers import EmbeddedValkey
from engine.servers.valkey import ENVIRONMENT


def environment_of(server: EmbeddedValkey) -> dict[str, str]:
    words = Path(f"/proc/{server.pid}/environ").read_text().rstrip("\0").split("\0")
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("set_by_operator", [None, "glibc.malloc.tcache_count=9"])
def test_valkey_gets_our_tunables_unless_the_operator_has_his_own(
    set_by_operator: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if set_by_operator is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", set_by_operator)
    server = EmbeddedValkey(tmp_path)
    server.start()
    try:
        given = environment_of(server)
    finally:
        server.stop()

    assert given["GLIBC_TUNABLES"] == (set_by_operator or ENVIRONMENT["GLIBC_TUNABLES"])
