"""The demo catalogue: the same for the same seed, in both languages, and like a shop's."""

from collections import Counter

import msgspec

from api.catalogue.document import Product
from api.demo.catalogue import DEMO_PRODUCTS, DEMO_SEED, categories, products, units_of
from api.demo.shop import demo_document

CATALOGUE = list(products(DEMO_PRODUCTS, DEMO_SEED))


def test_every_product_is_what_an_operator_may_write() -> None:
    decoder = msgspec.json.Decoder(list[Product])
    assert decoder.decode(msgspec.json.encode(CATALOGUE)) == CATALOGUE


def test_no_two_products_have_a_name_or_an_sku_in_common() -> None:
    assert len({product.product_id for product in CATALOGUE}) == DEMO_PRODUCTS >= 2000
    for language in ("en", "zh-CN"):
        names = Counter(product.name[language] for product in CATALOGUE)
        assert names.most_common(1)[0][1] == 1
    skus = Counter(sku.sku for product in CATALOGUE for sku in product.skus)
    assert skus.most_common(1)[0][1] == 1


def test_every_text_is_in_chinese_and_in_english() -> None:
    for product in CATALOGUE:
        for texts in (product.name, product.description):
            assert any("一" <= letter <= "鿿" for letter in texts["zh-CN"]), product
            assert texts["en"].isascii() or "°" in texts["en"], product
            assert "{" not in texts["en"] + texts["zh-CN"]


def test_the_same_seed_makes_the_same_and_more_only_adds() -> None:
    assert list(products(300, DEMO_SEED)) == CATALOGUE[:300]
    other = list(products(300, DEMO_SEED + 1))
    assert other != CATALOGUE[:300]
    assert [p.product_id for p in other] == [p.product_id for p in CATALOGUE[:300]]


def test_all_lie_in_a_tree_of_categories_whose_parents_come_first() -> None:
    seen: set[str | None] = {None}
    for category in categories():
        assert category.parent_id in seen
        seen.add(category.category_id)
    assert len(seen) > 40
    used = Counter(product.category_id for product in CATALOGUE)
    assert used.keys() <= seen
    assert min(used.values()) >= 20


def test_prices_end_as_prices_do_and_are_about_the_same_in_both_currencies() -> None:
    for product in CATALOGUE:
        for sku in product.skus:
            prices = {price.currency: price.amount_minor for price in sku.prices}
            assert str(prices["CNY"]).rstrip("0").endswith("9"), sku
            assert str(prices["USD"]).rstrip("0").endswith("9"), sku
            assert 4 < prices["CNY"] / prices["USD"] < 10, sku


def test_some_are_sold_out_and_most_are_not() -> None:
    units = [units_of(sku.sku, DEMO_SEED) for product in CATALOGUE for sku in product.skus]
    assert 0 < units.count(0) < len(units) / 10


def test_what_the_demo_sale_offers_is_in_the_catalogue_under_the_same_name() -> None:
    by_sku = {sku.sku: (product, sku) for product in CATALOGUE for sku in product.skus}
    for item in demo_document().items:
        product, sku = by_sku[item.sku]
        for language in ("en", "zh-CN"):
            assert item.name[language].startswith(product.name[language])
        price = next(price for price in sku.prices if price.currency == item.price.currency)
        assert item.price.amount_minor < price.amount_minor
