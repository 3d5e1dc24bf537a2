"""Loads the Lua scripts and runs them by hash. What they mean is said at the top of each file."""

from collections.abc import Awaitable, Callable
from hashlib import sha1
from importlib.resources import files
from typing import Any, Final

from hiredis import pack_command
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, ResponseError

SCRIPT_NAMES: Final = (
    "reserve",
    "confirm",
    "release",
    "rereserve",
    "restock",
    "launch",
    "configure",
    "fence",
)
ROOM_SCRIPT_NAMES: Final = ("enter", "serve", "attend", "furnish")


class LuaScript:
    """One script. Run by its hash; loaded when Redis does not know it (first use, restart)."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.text = files(__package__).joinpath(f"{name}.lua").read_text()
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, keys: list[str], args: list[Any]) -> Any:
        """The script's reply. Atomic. Errors of redis-py pass through."""
        try:
            return await redis.evalsha(self.sha, len(keys), *keys, *args)
        except NoScriptError:
            # It did not run, so running it now is no second time.
            await redis.script_load(self.text)
            return await redis.evalsha(self.sha, len(keys), *keys, *args)

    async def run_packed(
        self,
        redis: Redis,
        call: Callable[[bytes], Awaitable[Any]],
        keys: list[str],
        first: list[str],
        pack: Callable[[bytes, int], bytes],
    ) -> Any:
        """As `run`, over a connection that takes RESP. `pack` puts the other arguments after the first."""
        given = ("EVALSHA", self.sha, str(len(keys)), *keys, *first)
        packed = pack_command(given)  # type: ignore[arg-type]  # It takes any length.
        command = pack(packed[packed.index(b"\n") + 1 :], len(given))
        reply = await call(command)
        if _says_no_script(reply):
            await redis.script_load(self.text)
            reply = await call(command)
        if isinstance(reply, Exception):
            raise reply
        return reply


def _says_no_script(reply: object) -> bool:
    # redis-py makes a class of the word, hiredis alone leaves it in the text.
    return isinstance(reply, NoScriptError) or (
        isinstance(reply, ResponseError) and str(reply).startswith("NOSCRIPT")
    )
