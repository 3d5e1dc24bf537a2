"""What one writes first: an aiohttp application, PyJWT, json, and one redis-py call per request.

    python -m benchmarks.peers.naive PORT REDIS_URL SECRET

It runs reserve_one.lua, as the other peers do. It has no throttle, no bounds and no checks of fields.
"""

import asyncio
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt
import uvloop
from aiohttp import web
from redis.asyncio import BlockingConnectionPool, Redis

RESERVE_ONE = Path(__file__).with_name("reserve_one.lua")

Handler = Callable[[web.Request], Awaitable[web.Response]]


def make_reserve(redis_url: str, secret: str) -> Handler:
    # The default pool raises at its limit. 16 and 256 connections cost the same CPU, within 5 %.
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=64, timeout=30)
    redis = Redis.from_pool(pool)
    script = redis.register_script(RESERVE_ONE.read_text())

    async def reserve(request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        user = jwt.decode(token, secret, algorithms=["HS256"])["sub"]
        sale = request.match_info["sale"]
        item = (await request.json())["items"][0]
        wish = f"{user}/{request.headers['Idempotency-Key']}"
        reservation_id = hashlib.sha256(wish.encode()).hexdigest()[:20]
        items = f"{item['sku']}*{item['quantity']}"
        args = [1, int(time.time() * 1000), user, reservation_id, items]
        keys = [f"sale:{{{sale}.0}}:{part}" for part in ("config", "stock", "buyers", "orders")]
        until_s, outcome = await script(keys, args)
        if outcome != b"RESERVED" and not outcome.startswith(b"DUPLICATE"):
            return web.json_response({"code": outcome.decode()}, status=409)
        answer = {
            "reservation_id": f"{sale}.{reservation_id}",
            "sale_id": sale,
            "items": [item],
            "status": "reserved",
            "reserved_until": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(until_s))),
        }
        return web.json_response(answer, status=201 if outcome == b"RESERVED" else 200)

    return reserve


async def serve(port: int, redis_url: str, secret: str) -> None:
    app = web.Application()
    app.router.add_post("/v1/sales/{sale}/reservations", make_reserve(redis_url, secret))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), *sys.argv[2:]))
