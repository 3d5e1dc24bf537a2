"""Passwords: hashed as one would today, compared as slowly for nobody as for anybody."""

import pytest
from argon2 import PasswordHasher, extract_parameters

from api.users.passwords import PasswordVault


@pytest.fixture
def vault() -> PasswordVault:
    return PasswordVault(threads=1)


async def test_a_password_opens_its_own_hash_only(vault: PasswordVault) -> None:
    kept = await vault.hash("correct horse")
    assert await vault.verify(kept, "correct horse")
    assert not await vault.verify(kept, "correct hors")
    assert not await vault.verify("no hash at all", "correct horse")
    assert not vault.is_outdated(kept)
    vault.close()


async def test_nobody_has_a_password_but_it_is_looked_at_as_any(
    vault: PasswordVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = []
    verify = PasswordHasher.verify

    def noted(hasher: PasswordHasher, kept: str, password: str) -> bool:
        costs.append(extract_parameters(kept))
        return verify(hasher, kept, password)

    monkeypatch.setattr(PasswordHasher, "verify", noted)
    assert not await vault.verify(None, "nobody's password")
    await vault.verify(await vault.hash("x"), "x")
    assert costs[0] == costs[1]
    vault.close()


def test_a_hash_of_other_parameters_is_outdated(vault: PasswordVault) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x")
    assert vault.is_outdated(old)
    vault.close()
