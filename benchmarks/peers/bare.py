"""A bare aiohttp server: reads the request and answers a constant. The floor of any handler on aiohttp.

python -m benchmarks.peers.bare PORT
"""

import asyncio
import json
import sys

import uvloop
from aiohttp import web

CONSTANT = json.dumps(
    {
        "reservation_id": "bench.AAAAAAAAAAAAAAAAAAAA",
        "sale_id": "bench",
        "items": [{"sku": "phone-black", "quantity": 1}],
        "status": "reserved",
        "reserved_until": "2026-11-11T00:15:00Z",
    }
).encode()


async def answer(request: web.BaseRequest) -> web.Response:
    await request.read()
    return web.Response(status=201, body=CONSTANT, content_type="application/json")


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(
        web.Server(answer, access_log=None), "127.0.0.1", port, backlog=4096
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
