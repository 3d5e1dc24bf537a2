"""Settings: read in one place, judged all at once, shown without secrets."""

from pathlib import Path

import pytest

from engine.config import Durability, Settings, mask_url, read_settings
from engine.errors import ConfigError

SECRET = "s" * 32


def problems_of(environ: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        read_settings(environ)
    return refused.value.problems


# One wrong value for every setting that can be wrong.
WRONG = {
    "DOORBUSTER_REDIS_URL": "http://:sesame@localhost",
    "DOORBUSTER_POSTGRES_URL": "mysql://root:sesame@localhost",
    "DOORBUSTER_PORT": "65536",
    "DOORBUSTER_DEMO_PRODUCTS": "0",
    "DOORBUSTER_SECRET": "short-sesame",
    "DOORBUSTER_DURABILITY": "eventually",
    "DOORBUSTER_FRONT_PROCESSES": "-1",
    "DOORBUSTER_GATE": "perhaps",
    "DOORBUSTER_LIMIT": "none",
    "DOORBUSTER_IN_FLIGHT_MIN": "0",
    "DOORBUSTER_IN_FLIGHT_MAX": "0",
    "DOORBUSTER_DEADLINE_SECONDS": "0",
    "DOORBUSTER_SHED_HOLD_SECONDS": "-1",
    "DOORBUSTER_CONNECTIONS_MAX": "many",
    "DOORBUSTER_CONNECTIONS_PER_ADDRESS_MAX": "1.5",
    "DOORBUSTER_REQUEST_SECONDS_MAX": "0",
    "DOORBUSTER_KEEPALIVE_SECONDS": "-3",
    "DOORBUSTER_BODY_BYTES_MAX": "64k",
    "DOORBUSTER_THROTTLE_PER_SECOND": "0",
    "DOORBUSTER_THROTTLE_BURST": "none",
    "DOORBUSTER_ADDRESS_PER_SECOND": "0",
    "DOORBUSTER_ADDRESS_BURST": "0",
    "DOORBUSTER_ACCOUNT_PER_MINUTE": "0",
    "DOORBUSTER_ACCOUNT_BURST": "0",
    "DOORBUSTER_TRUSTED_PROXIES": "10.0.0.0/33",
    "DOORBUSTER_FORWARDED_HEADER": "via",
    "DOORBUSTER_UNTHROTTLED_NETWORKS": "localhost",
    "DOORBUSTER_CLIENTS_MAX": "0",
    "DOORBUSTER_MACHINES": "0",
    "DOORBUSTER_PACE_MAX": "-1",
    "DOORBUSTER_BACKLOG_SECONDS_MAX": "0",
    "DOORBUSTER_RISK_URL": "ftp://risk",
    "DOORBUSTER_RISK_SECONDS_MAX": "0",
    "DOORBUSTER_RISK_REQUIRED": "perhaps",
    "DOORBUSTER_CAPTCHA_URL": "captcha",
    "DOORBUSTER_ANONYMOUS_PER_SECOND": "0",
    "DOORBUSTER_ANONYMOUS_BURST": "-1",
    "DOORBUSTER_PASSWORD_THREADS": "0",
    "DOORBUSTER_CURRENCY_DEFAULT": "yuan",
    "DOORBUSTER_IMPORT_BYTES_MAX": "0",
    "DOORBUSTER_REVIEWS_MODERATED": "perhaps",
    "DOORBUSTER_ACCESS_TOKEN_SECONDS": "59",
    "DOORBUSTER_REFRESH_TOKEN_SECONDS": "soon",
    "DOORBUSTER_STOREFRONT_URL": "shop.example",
    "DOORBUSTER_OIDC_ISSUER": "ftp://login.example",
    "DOORBUSTER_OIDC_NAME": "Your Login",
    "DOORBUSTER_MAIL_URL": "imap://shop:sesame@mail.example",
    "DOORBUSTER_MAIL_FROM": "shop@example.com\nBcc: all@example.com",
    "DOORBUSTER_BATCH_MAX": "513",
    "DOORBUSTER_RESERVE_QUEUE_MAX": "0",
    "DOORBUSTER_REDIS_TIMEOUT_SECONDS": "soon",
    "DOORBUSTER_DRAIN_BATCH_MAX": "0",
    "DOORBUSTER_DRAIN_CONNECTIONS": "0",
    "DOORBUSTER_DRAIN_ATTEMPTS_MAX": "0",
    "DOORBUSTER_CLAIM_IDLE_SECONDS": "0",
    "DOORBUSTER_REAP_BATCH_MAX": "0",
    "DOORBUSTER_PAY_CONCURRENCY_MAX": "0",
    "DOORBUSTER_POSTGRES_POOL_MAX": "0",
    "DOORBUSTER_CHECKOUT_SECONDS": "0",
    "DOORBUSTER_CART_DAYS": "-1",
    "DOORBUSTER_SANDBOX_SECRET": "short-sesame",
    "DOORBUSTER_ALIPAY_URL": "openapi.alipay.com",
    "DOORBUSTER_WECHATPAY_URL": "wechat",
    "DOORBUSTER_WECHATPAY_API_V3_SECRET": "short-sesame",
    "DOORBUSTER_STRIPE_URL": "ftp://stripe",
    "DOORBUSTER_STRIPE_CAPTURE": "later",
    "DOORBUSTER_RECONCILE_AT": "24",
    "DOORBUSTER_CARRIER_URL": "carrier",
    "DOORBUSTER_CARRIER_SECRET": "short-sesame",
    "DOORBUSTER_CARRIER_STEP_SECONDS": "0",
    "DOORBUSTER_RETURN_DAYS": "0",
}
# Any text will do for these.
FREE = {"data_dir", "host", "public_url", "worker_name", "sandbox_url"}
FREE |= {"clients_file", "captcha_secret", "oidc_client_id", "oidc_client_secret"}
FREE |= {f"alipay_{name}" for name in ("app_id", "seller_id", "private_key", "public_key")}
FREE |= {f"wechatpay_{name}" for name in ("app_id", "mch_id", "serial", "private_key")}
FREE |= {"wechatpay_public_key", "wechatpay_public_key_id"}
FREE |= {f"stripe_{name}" for name in ("secret_key", "publishable_key", "webhook_secrets")}
FREE |= {"seller_name", "seller_address", "seller_tax_id"}


def test_every_wrong_setting_is_named_in_one_go() -> None:
    problems = problems_of(WRONG)

    for variable in WRONG:
        assert sum(problem.startswith(variable) for problem in problems) == 1, variable
    assert len(problems) == len(WRONG)


def test_the_list_of_wrong_settings_above_covers_every_setting() -> None:
    named = {variable.removeprefix("DOORBUSTER_").lower() for variable in WRONG}

    assert named | FREE == set(Settings.__struct_fields__)


def test_complaints_keep_secrets_and_passwords_to_themselves() -> None:
    assert "sesame" not in "\n".join(problems_of(WRONG))


def test_settings_are_shown_without_secrets_and_passwords() -> None:
    settings = Settings(
        secret=SECRET + "sesame",
        sandbox_secret=SECRET + "sesame",
        carrier_secret=SECRET + "sesame",
        alipay_private_key="sesame",
        wechatpay_private_key="sesame",
        wechatpay_api_v3_secret="sesame",
        stripe_secret_key="sesame",
        stripe_webhook_secrets="sesame",
        redis_url="redis://:sesame@localhost/0",
        postgres_url="postgresql://shop:sesame@localhost/shop",
    )

    shown = settings.masked()

    assert "sesame" not in str(shown)
    assert shown["postgres_url"] == "postgresql://shop:***@localhost/shop"
    assert shown.keys() == set(Settings.__struct_fields__)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@ss@host:1", "redis://u:***@host:1"),
        ("redis://host/0?password=sesame", "redis://host/0?password=***"),
        ("postgresql://u@h/x?a=b&password=sesame&c=d", "postgresql://u@h/x?a=b&password=***&c=d"),
        ("postgres//u:sesame@h/x", "***"),
        ("u:sesame@h", "***"),
        ("unix:///run/valkey.sock", "unix:///run/valkey.sock"),
    ],
)
def test_a_password_is_hidden_wherever_it_stands(url: str, shown: str) -> None:
    assert mask_url(url) == shown


def test_nothing_set_is_a_valid_choice() -> None:
    settings = read_settings({"PATH": "/bin", "DOORBUSTER_HOST": ""})

    assert settings == Settings()
    assert settings.durability is Durability.STRICT
    assert settings.secret is None


def test_a_misspelt_variable_is_refused() -> None:
    assert problems_of({"DOORBUSTER_PROT": "8080"}) == ["DOORBUSTER_PROT: no such setting"]


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "doorbuster.toml"
    file.write_text('port = 9000\ndurability = "balanced"\nkeepalive_seconds = 5\n')

    settings = read_settings({"DOORBUSTER_CONFIG": str(file), "DOORBUSTER_PORT": "9001"})

    assert (settings.port, settings.durability) == (9001, Durability.BALANCED)
    assert settings.keepalive_seconds == 5


def test_a_bad_file_is_reported_together_with_a_bad_environment(tmp_path: Path) -> None:
    file = tmp_path / "doorbuster.toml"
    file.write_text('prot = 9000\nport = "8080"\nsecret = 5\n')

    problems = problems_of({"DOORBUSTER_CONFIG": str(file), "DOORBUSTER_BATCH_MAX": "0"})

    assert len(problems) == 3, problems
    assert any("prot: no such setting" in problem for problem in problems)
    assert any(problem.startswith("DOORBUSTER_SECRET=***") for problem in problems)
    assert any(problem.startswith("DOORBUSTER_BATCH_MAX='0'") for problem in problems)


@pytest.mark.parametrize("content", [None, "port = ", b"\xff\xfe"])
def test_a_file_that_cannot_be_read_is_one_problem(
    tmp_path: Path, content: str | bytes | None
) -> None:
    file = tmp_path / "doorbuster.toml"
    if isinstance(content, str):
        file.write_text(content)
    elif content is not None:
        file.write_bytes(content)

    problems = problems_of({"DOORBUSTER_CONFIG": str(file)})

    assert len(problems) == 1
    assert str(file) in problems[0]
