"""A large catalogue for benchmarks: its rows, from a seed, straight into Postgres by COPY.

Words are as unequal as in a shop: of 48 kinds of things some are sold ten times as often as others.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple

import asyncpg
import msgspec

from engine.model import SHOP
from engine.store.database import Connection

SINCE: Final = datetime(2024, 1, 1, tzinfo=UTC)

# Category: its names, and the kinds of things in it.
CATEGORIES: Final = {
    "phones": ("Phones", "手机", [("smartphone", "智能手机"), ("senior phone", "老人手机"), ("phone", "手机")]),
    "phone-cases": ("Phone cases", "手机壳", [("phone case", "手机壳"), ("phone sleeve", "手机套")]),
    "chargers": ("Chargers", "充电器", [("charger", "充电器"), ("charging cable", "数据线"), ("power bank", "充电宝")]),
    "headphones": ("Headphones", "耳机", [("headphones", "耳机"), ("earbuds", "蓝牙耳机"), ("gaming headset", "游戏耳机")]),
    "speakers": ("Speakers", "音箱", [("speaker", "音箱"), ("soundbar", "回音壁")]),
    "laptops": ("Laptops", "笔记本电脑", [("laptop", "笔记本电脑"), ("notebook", "轻薄本")]),
    "keyboards": ("Keyboards", "键盘", [("mechanical keyboard", "机械键盘"), ("mouse", "鼠标")]),
    "monitors": ("Monitors", "显示器", [("monitor", "显示器"), ("monitor arm", "显示器支架")]),
    "cameras": ("Cameras", "相机", [("camera", "相机"), ("tripod", "三脚架"), ("lens", "镜头")]),
    "watches": ("Watches", "手表", [("smart watch", "智能手表"), ("watch strap", "表带")]),
    "kitchen": ("Kitchen", "厨房电器", [("rice cooker", "电饭煲"), ("kettle", "电水壶"), ("air fryer", "空气炸锅")]),
    "cleaning": ("Cleaning", "清洁电器", [("robot vacuum", "扫地机器人"), ("vacuum cleaner", "吸尘器")]),
    "shoes": ("Shoes", "鞋", [("running shoes", "跑步鞋"), ("hiking boots", "登山靴"), ("sandals", "凉鞋")]),
    "dresses": ("Dresses", "连衣裙", [("dress", "连衣裙"), ("skirt", "半身裙")]),
    "jackets": ("Jackets", "外套", [("down jacket", "羽绒服"), ("windbreaker", "冲锋衣"), ("coat", "大衣")]),
    "bags": ("Bags", "箱包", [("backpack", "双肩包"), ("suitcase", "行李箱")]),
    "tea": ("Tea", "茶叶", [("green tea", "绿茶"), ("oolong tea", "乌龙茶")]),
    "snacks": ("Snacks", "零食", [("mixed nuts", "混合坚果"), ("biscuits", "饼干")]),
    "toys": ("Toys", "玩具", [("building blocks", "积木"), ("puzzle", "拼图"), ("toy car", "玩具车")]),
    "books": ("Books", "图书", [("novel", "小说"), ("cookbook", "菜谱")]),
}
GROUPS: Final = {"digital": ("Digital", "数码", 10), "home": ("Home", "家居", 2), "clothing": ("Clothing", "服饰", 4), "living": ("Living", "生活", 4)}
BRANDS: Final = [
    ("Aurora", "极光"), ("Northpeak", "北峰"), ("Huaxing", "华星"), ("Lumen", "流明"), ("Jade River", "玉河"),
    ("Yunfan", "云帆"), ("Qingshan", "青山"), ("Solstice", "至日"), ("Redbridge", "红桥"), ("Tianyu", "天宇"),
    ("Mistral", "微风"), ("Kestrel", "红隼"), ("Baihe", "百合"), ("Ironwood", "铁木"), ("Xinghe", "星河"),
    ("Fieldstone", "石田"), ("Haiyan", "海燕"), ("Orchard", "果园"), ("Songyue", "松月"), ("Vanta", "万塔"),
    ("Cobalt", "钴蓝"), ("Meihua", "梅花"), ("Skylark", "云雀"), ("Granite", "花岗"), ("Lianhe", "联禾"),
    ("Tidewater", "潮汐"), ("Zhuying", "竹影"), ("Ember", "余烬"), ("Polaris", "北辰"), ("Wanli", "万里"),
]  # fmt: skip
QUALITIES: Final = [
    ("wireless", "无线"), ("lightweight", "轻便"), ("waterproof", "防水"), ("foldable", "折叠"), ("portable", "便携"),
    ("noise cancelling", "降噪"), ("fast", "快速"), ("quiet", "静音"), ("premium", "高端"), ("compact", "迷你"),
    ("transparent", "透明"), ("shockproof", "防摔"), ("large", "大号"), ("soft", "柔软"), ("breathable", "透气"),
    ("smart", "智能"), ("classic", "经典"), ("professional", "专业"), ("student", "学生"), ("outdoor", "户外"),
]  # fmt: skip
COLOURS: Final = [("black", "黑色"), ("white", "白色"), ("silver", "银色"), ("blue", "蓝色"), ("red", "红色"), ("green", "绿色"), ("gold", "金色")]
SENTENCES: Final = [
    ("Made for everyday use at home and on the road.", "适合家庭和旅行日常使用。"),
    ("A long lasting battery keeps up with busy days.", "长续航电池，轻松应对忙碌的一天。"),
    ("Carefully chosen materials feel good in the hand.", "精选材料，手感舒适。"),
    ("Designed in Shanghai and tested in the mountains.", "上海设计，山地实测。"),
    ("Easy to clean, easy to store and hard to break.", "易清洗，易收纳，结实耐用。"),
    ("A thoughtful present for friends and family.", "送给朋友和家人的贴心礼物。"),
    ("Two years of warranty and free returns.", "两年质保，免费退换。"),
    ("Works with your phone by Bluetooth.", "通过蓝牙连接手机使用。"),
    ("Comes in recycled packaging.", "采用环保可回收包装。"),
    ("The new generation is faster and quieter than before.", "新一代产品更快更安静。"),
]  # fmt: skip


class Good(NamedTuple):
    """A product with its SKUs."""

    product: tuple[Any, ...]
    skus: list[tuple[Any, ...]]


def goods(count: int, seed: int = 1) -> Iterator[Good]:
    """That many products, the same for the same seed."""
    dice = Random(seed)  # noqa: S311  # hides nothing
    kinds = [(category, kind) for category, (_, _, kinds) in CATEGORIES.items() for kind in kinds]
    weights = [1 / (1 + rank / 6) for rank in range(len(kinds))]
    picked = dice.choices(kinds, weights, k=count)
    for number, (category, kind) in enumerate(picked):
        yield _good(dice, number, category, kind)


def _good(dice: Random, number: int, category: str, kind: tuple[str, str]) -> Good:
    brand, colour = dice.choice(BRANDS), dice.choice(COLOURS)
    first, second = dice.sample(QUALITIES, 2)
    model = f"{dice.choice('ABCDEFGHKMPRSTX')}{dice.randint(1, 999)}"
    texts = dice.sample(SENTENCES, 4)
    name = {
        "en": f"{brand[0]} {first[0]} {second[0]} {kind[0]} {model}, {colour[0]}",
        "zh-CN": f"{brand[1]}{first[1]}{second[1]}{kind[1]} {model} {colour[1]}",
    }
    description = {
        "en": " ".join(text[0] for text in texts),
        "zh-CN": "".join(text[1] for text in texts),
    }
    product_id = f"p-{number:06d}"
    image = f"https://images.example.com/{product_id}.jpg"
    created_at = SINCE + timedelta(minutes=dice.randint(0, 1_400_000))
    row = (product_id, category, brand[0], name, description, [image], {"model": model}, created_at)
    return Good(row, [_sku(dice, product_id, at) for at in range(dice.choice((1, 1, 2, 3)))])


def _sku(dice: Random, product_id: str, position: int) -> tuple[Any, ...]:
    colour = COLOURS[(position + len(product_id)) % len(COLOURS)]
    price = round(10 ** dice.uniform(3.3, 6.2))
    stocked = 0 if dice.random() < 0.1 else dice.randint(1, 500)
    options = {"colour": {"en": colour[0], "zh-CN": colour[1]}}
    return (f"{product_id}-{position}", product_id, options, position, price, stocked)


async def put_up(url: str, count: int, seed: int = 1) -> None:
    """Writes categories, products, SKUs, prices and stock. Leaves the index to others."""
    connection = await asyncpg.connect(url)
    try:
        # COPY is binary: a version byte, then the text.
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda value: b"\x01" + msgspec.json.encode(value),
            decoder=lambda data: msgspec.json.decode(data[1:]),
        )
        await _put_up(connection, count, seed)
    finally:
        await connection.close()


async def _put_up(connection: Connection, count: int, seed: int) -> None:
    await _put_up_categories(connection)
    batch: list[Good] = []
    for good in goods(count, seed):
        batch.append(good)
        if len(batch) == 5000:  # noqa: PLR2004  # some MB of rows
            await _copy(connection, batch)
            batch.clear()
    await _copy(connection, batch)
    await connection.execute("ANALYZE")


async def _put_up_categories(connection: Connection) -> None:
    rows, names = [], iter(CATEGORIES.items())
    for position, (group, (en, zh, many)) in enumerate(GROUPS.items()):
        rows.append((group, None, [group], position, {"en": en, "zh-CN": zh}))
        for at, (category, (of_en, of_zh, _)) in zip(range(many), names, strict=False):
            rows.append((category, group, [group, category], at, {"en": of_en, "zh-CN": of_zh}))
    await connection.executemany("INSERT INTO categories VALUES ($1, $2, $3, $4, $5)", rows)


async def _copy(connection: Connection, batch: list[Good]) -> None:
    skus = [sku for good in batch for sku in good.skus]
    await connection.copy_records_to_table(
        "products",
        records=[good.product for good in batch],
        columns=["product_id", "category_id", "brand", "name", "description", "images",
                 "attributes", "created_at"],
    )  # fmt: skip
    await connection.copy_records_to_table(
        "skus",
        records=[sku[:4] for sku in skus],
        columns=["sku", "product_id", "options", "position"],
    )
    prices = [
        (sku[0], currency, amount)
        for sku in skus
        for currency, amount in (("CNY", sku[4]), ("USD", max(1, sku[4] // 7)))
    ]
    await connection.copy_records_to_table("sku_prices", records=prices)
    stock = [(SHOP, sku[0], 0, {}, sku[4], "CNY", sku[5]) for sku in skus]
    await connection.copy_records_to_table(
        "sale_items",
        records=stock,
        columns=["sale_id", "sku", "position", "name", "price_minor", "currency", "stocked"],
    )
