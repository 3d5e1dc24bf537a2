"""Names the Redis keys. All keys of one shard of one sale share a hash tag, hence a slot."""

from typing import NamedTuple

DRAIN_GROUP = "drain"  # The consumer group of every `orders` stream.
ONLY_SHARD = 0  # Sales have one shard each; the key layout is ready for more.


class ShardKeys(NamedTuple):
    """The four keys of one shard of one sale, and its channel."""

    config: str  # hash: epoch, revision, state, window, limits
    stock: str  # hash: <sku>:available, <sku>:reserved, <sku>:sold
    buyers: str  # hash: user -> that user's reservations, one per line
    orders: str  # stream: one entry per batch of reservations
    arrivals: str  # sharded channel: what goes into the stream, for those who listen


def shard_keys(sale_id: str, shard: int = ONLY_SHARD) -> ShardKeys:
    tag = f"sale:{{{sale_id}.{shard}}}"
    return ShardKeys(
        config=f"{tag}:config",
        stock=f"{tag}:stock",
        buyers=f"{tag}:buyers",
        orders=f"{tag}:orders",
        arrivals=f"{tag}:arrivals",
    )
