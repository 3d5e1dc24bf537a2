"""What the front is held against, in the same run: two servers on aiohttp.

    python benchmarks/yardsticks.py bare PORT
    python benchmarks/yardsticks.py naive PORT REDIS_URL SECRET

`bare` reads the request and answers a constant: the floor of any handler on aiohttp. `naive` is
what one writes first: an application, PyJWT, json, and one redis-py call of the same script per
request. It has no throttle, no limits, no replays of HTTP and no checks of fields.
"""

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Awaitable, Callable

import jwt
import uvloop
from aiohttp import web
from redis.asyncio import BlockingConnectionPool, Redis

from engine.keys import shard_keys
from engine.lua import LuaScript

CONSTANT = json.dumps(
    {
        "reservation_id": "bench.AAAAAAAAAAAAAAAAAAAA",
        "sale_id": "bench",
        "items": [{"sku": "phone-black", "quantity": 1}],
        "status": "reserved",
        "reserved_until": "2026-11-11T00:15:00Z",
    }
).encode()

Handler = Callable[[web.BaseRequest], Awaitable[web.Response]]


async def bare(request: web.BaseRequest) -> web.Response:
    await request.read()
    return web.Response(status=201, body=CONSTANT, content_type="application/json")


def naive(redis_url: str, secret: str) -> Handler:
    # The default pool raises at its limit. 16 and 256 connections cost the same CPU, within 5 %.
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=64, timeout=30)
    redis, script = Redis.from_pool(pool), LuaScript("reserve")
    keys = [*shard_keys("bench")]

    async def reserve(request: web.BaseRequest) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        user = jwt.decode(token, secret, algorithms=["HS256"])["sub"]
        item = (await request.json())["items"][0]
        wish = f"{user}/{request.headers['Idempotency-Key']}"
        reservation_id = hashlib.sha256(wish.encode()).hexdigest()[:20]
        items = f"{item['sku']}*{item['quantity']}"
        args = [1, int(time.time() * 1000), user, reservation_id, items]
        until_s, outcome = await script.run(redis, keys, args)
        if outcome != b"RESERVED":
            return web.json_response({"code": outcome.decode()}, status=409)
        answer = {
            "reservation_id": f"bench.{reservation_id}",
            "sale_id": "bench",
            "items": [item],
            "status": "reserved",
            "reserved_until": int(until_s),
        }
        return web.json_response(answer, status=201)

    return reserve


async def serve_bare(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        web.Server(bare, access_log=None), "127.0.0.1", port
    )
    await server.serve_forever()


async def serve_naive(port: int, redis_url: str, secret: str) -> None:
    app = web.Application()
    app.router.add_post("/v1/sales/{sale}/reservations", naive(redis_url, secret))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    kind, port, *rest = sys.argv[1:]
    uvloop.run(serve_bare(int(port)) if kind == "bare" else serve_naive(int(port), *rest))
