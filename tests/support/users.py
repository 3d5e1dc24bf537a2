"""Registered users, made without HTTP: their password is hashed once for all tests."""

from functools import lru_cache
from secrets import token_hex

from argon2 import PasswordHasher

from engine.store.database import Pool

PASSWORD = "correct horse"


@lru_cache
def hashed() -> str:
    return PasswordHasher().hash(PASSWORD)


async def register(pool: Pool, email: str, *, role: str = "buyer", verified: bool = True) -> str:
    """The id of a new user who logs in with PASSWORD; his name is what stands before the @."""
    user_id = f"usr_{token_hex(8)}"
    await pool.execute(
        "INSERT INTO users (user_id, email, password_hash, name, role, email_verified_at)"
        " VALUES ($1, $2, $3, split_part($2, '@', 1), $4, CASE WHEN $5 THEN now() END)",
        user_id,
        email,
        hashed(),
        role,
        verified,
    )
    return user_id
