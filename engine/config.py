"""Reads the settings, from DOORBUSTER_* and an optional TOML file, in one place and all at once.

Leaves it to the command line to decide which of them a command needs.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints

import msgspec

from engine.errors import ConfigError

ENV_PREFIX: Final = "DOORBUSTER_"
FILE_VARIABLE: Final = "DOORBUSTER_CONFIG"
SECRET_BYTES_MIN: Final = 32  # RFC 7518 §3.2: an HS256 key is at least as long as the hash.

_PASSWORD = re.compile(r"((?:password|passfile|sslpassword)=)[^&]*", re.IGNORECASE)

Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(gt=0)]
Network = IPv4Network | IPv6Network
NotNegativeSeconds = Annotated[float, msgspec.Meta(ge=0)]


class Durability(StrEnum):
    """What an acknowledged reservation survives; see DESIGN, "Durability, said out loud"."""

    STRICT = "strict"
    BALANCED = "balanced"
    REPLICATED = "replicated"


class LimitKind(StrEnum):
    """How many requests may be in work at once."""

    ADAPTIVE = "adaptive"
    FIXED = "fixed"


class StripeCapture(StrEnum):
    """Whether a card is charged at once, or authorized first and charged while the order awaits it."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


class ForwardedHeader(StrEnum):
    """The header in which trusted proxies say whom they speak for."""

    X_FORWARDED_FOR = "x-forwarded-for"
    FORWARDED = "forwarded"  # RFC 7239


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every setting of the engine. Field `x_y` is `DOORBUSTER_X_Y`, or `x_y` in the TOML file."""

    # Where things are.
    data_dir: str = "var"
    demo_products: Positive = 2100  # that `up --demo` and `seed` fill an empty catalogue with
    redis_url: str | None = None  # None: the embedded server
    postgres_url: str | None = None  # None: the embedded server
    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    public_url: str | None = None  # None: derived from host and port
    secret: str | None = None  # signs tokens, HS256
    durability: Durability = Durability.STRICT

    # Front.
    front_processes: NotNegative = 0  # 0: one per core
    gate: bool = True  # the compiled hot path; false: aiohttp serves alone
    connections_max: Positive = 20_000  # per process
    connections_per_address_max: Positive = 4096  # per process; raise it behind a proxy
    request_seconds_max: Seconds = 10.0  # a request must have arrived by then (slowloris)
    keepalive_seconds: Seconds = 75.0
    body_bytes_max: Positive = 65_536
    password_threads: Positive = 2  # argon2 is meant to be slow and large: bound it

    # Users.
    access_token_seconds: Annotated[int, msgspec.Meta(ge=60)] = 3600  # then it is refreshed
    refresh_token_seconds: Annotated[int, msgspec.Meta(ge=60)] = 30 * 86_400  # since it was used
    storefront_url: str | None = None  # whose pages /verify and /reset the mails link to
    oidc_issuer: str | None = None  # OpenID Connect; None: no login with another provider
    oidc_client_id: str | None = None
    oidc_client_secret: str | None = None
    oidc_name: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,32}\Z")] = "oidc"  # in paths
    mail_url: str | None = None  # smtp[s]://user:pass@host:port; None: printed, for demos
    mail_from: Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f]*[!-?A-~]@[!-?A-~]+\Z")] = (
        "Doorbuster <no-reply@localhost>"
    )

    # Admission: who may come in, how fast.
    limit: LimitKind = LimitKind.ADAPTIVE  # of requests in work; fixed: always `in_flight_max`
    in_flight_min: Positive = 64  # the adaptive limit's floor, per process
    in_flight_max: Positive = 4096  # its ceiling, per process; beyond it 503 `overloaded`
    deadline_seconds: Seconds = 1.0  # a reserve call that waited longer is refused, not served
    shed_hold_seconds: NotNegativeSeconds = 1.0  # refusals are held so long: no instant retry
    throttle_per_second: Positive = 50  # requests of one user
    throttle_burst: Positive = 200
    address_per_second: Positive = 500  # requests of one address: many may share it
    address_burst: Positive = 2000
    anonymous_per_second: Positive = 5  # logins of one address; raise it where many share one
    anonymous_burst: Positive = 50
    account_per_minute: Positive = 6  # logins of one account, from wherever
    account_burst: Positive = 20
    trusted_proxies: str = ""  # networks, by commas, whose word for the client's address counts
    # What they write. The other header is never read: clients could write it through them.
    forwarded_header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR
    unthrottled_networks: str = "127.0.0.0/8,::1/128"  # their addresses are nobody's in particular
    clients_max: Positive = 1_048_576  # remembered by the throttles of one machine, 16 bytes each
    clients_file: str | None = (
        None  # shared by a machine's fronts; None: each its own. `up` sets it
    )
    machines: Positive = 1  # that fronts run on: each grants its share of every rate
    pace_max: NotNegative = (
        0  # reservations/s admitted at most, all fronts together; 0: what is stored
    )
    backlog_seconds_max: Seconds = 1.0  # the pace slows before storing lags more than this
    risk_url: str | None = None  # asked before a queue ticket is given
    risk_seconds_max: Seconds = 0.5
    risk_required: bool = False  # no ticket while the risk service or captcha does not answer
    captcha_url: str | None = None  # a `siteverify` service, for sales that ask for a captcha
    captcha_secret: str | None = None

    # Reservation.
    batch_max: Annotated[int, msgspec.Meta(ge=1, le=512)] = 256  # reserve.lua refuses beyond 512
    reserve_queue_max: Positive = 4096  # waiting reservations per sale and process
    redis_timeout_seconds: Seconds = 2.0

    # Worker.
    worker_name: str = "worker-0"
    drain_batch_max: Positive = 4000  # reservations per statement
    drain_connections: Positive = (
        2  # that a backlog is drained over; a third gains nothing on 2 cores
    )
    drain_attempts_max: Positive = 5  # then the dead-letter table
    claim_idle_seconds: Seconds = 15.0  # above the worst batch time
    reap_batch_max: Positive = 1000
    pay_concurrency_max: Positive = 32
    postgres_pool_max: Positive = 8  # connections per process

    # Catalogue.
    # Of prices that others are converted from; prices of a request that names no currency.
    currency_default: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")] = "CNY"
    import_bytes_max: Positive = 67_108_864  # of a file of products over HTTP: some 35,000 of them

    # Cart and checkout.
    checkout_seconds: Positive = 900  # to pay for ordinary stock in; a sale says it itself
    cart_days: Positive = 30  # a guest's cart is kept since its last change

    # Payment.
    sandbox_url: str | None = None
    sandbox_secret: str | None = None  # signs sandbox webhooks
    # Keys are PEM text, bare base64, or the path of a file. None of a provider's: it is not offered.
    alipay_url: str | None = None  # None: Alipay's own gateway
    alipay_app_id: str | None = None
    alipay_seller_id: str | None = None  # 2088…
    alipay_private_key: str | None = None  # the application's
    alipay_public_key: str | None = None  # Alipay's
    wechatpay_url: str | None = None  # None: WeChat Pay's own
    wechatpay_app_id: str | None = None
    wechatpay_mch_id: str | None = None
    wechatpay_serial: str | None = None  # of the merchant's certificate
    wechatpay_private_key: str | None = None  # the merchant's
    wechatpay_api_v3_secret: Annotated[str, msgspec.Meta(min_length=32, max_length=32)] | None = (
        None  # AES-256
    )
    # WeChat Pay's own key, for merchants who were given one instead of certificates: PUB_KEY_ID_…
    wechatpay_public_key_id: str | None = None
    wechatpay_public_key: str | None = None
    stripe_url: str | None = None  # None: Stripe's own
    stripe_secret_key: str | None = None
    stripe_publishable_key: str | None = None  # shown to buyers' browsers
    stripe_webhook_secrets: str | None = None  # by commas, while one replaces another
    stripe_capture: StripeCapture = StripeCapture.AUTOMATIC
    reconcile_at: Annotated[int, msgspec.Meta(ge=0, le=23)] = (
        11  # the provider's hour; the bills of a day are out by 10 on the next
    )

    # Shipping, returns, invoices.
    carrier_url: str | None = None  # of the sandbox carrier
    carrier_secret: str | None = None  # signs what is said to it and by it
    carrier_step_seconds: Seconds = 20.0  # from one stage of a sandbox parcel to the next
    return_days: Annotated[int, msgspec.Meta(ge=1, le=3650)] = (
        7  # after delivery; China's law gives seven (七天无理由退货)
    )
    seller_name: str = "Doorbuster"  # this and the next two: on invoices
    seller_address: str = ""
    seller_tax_id: str = ""

    # Reviews.
    reviews_moderated: bool = False  # true: none is shown before somebody looked at it

    def masked(self) -> dict[str, object]:
        """The settings as they may be shown: secrets and passwords hidden."""
        shown = msgspec.structs.asdict(self)
        for name in (
            "secret",
            "sandbox_secret",
            "alipay_private_key",
            "wechatpay_private_key",
            "wechatpay_api_v3_secret",
            "stripe_secret_key",
            "stripe_webhook_secrets",
            "captcha_secret",
            "carrier_secret",
            "oidc_client_secret",
        ):
            shown[name] = "***" if shown[name] else None
        for name in ("redis_url", "postgres_url", "mail_url"):
            shown[name] = mask_url(shown[name])
        return shown


def mask_url(url: str | None) -> str | None:
    """The URL without its password, wherever it stands; all of it if it is no URL."""
    if url is None:
        return None
    scheme, separator, rest = url.partition("://")
    if not separator:
        return "***"
    credentials, at, host = rest.rpartition("@")
    user, colon, _ = credentials.partition(":")
    masked = f"{scheme}://{user}{':***' if colon else ''}{at}{host}"
    return _PASSWORD.sub(r"\1***", masked)


def read_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """All settings, or ConfigError with every problem found.

    The file named by DOORBUSTER_CONFIG is read first; the environment wins over it.
    """
    problems: list[str] = []
    values = _from_file(environ.get(FILE_VARIABLE), problems) | _from_environ(environ, problems)
    checked = {name: _check(name, value, problems) for name, value in values.items()}
    problems.extend(
        f"{ENV_PREFIX}{name.upper()}: needs {SECRET_BYTES_MIN} characters or more"
        for name in ("secret", "sandbox_secret", "carrier_secret")
        if isinstance(secret := checked.get(name), str) and len(secret) < SECRET_BYTES_MIN
    )
    for name in ("trusted_proxies", "unthrottled_networks"):
        _check_networks(name, checked, problems)
    for name in (
        "risk_url",
        "captcha_url",
        "alipay_url",
        "wechatpay_url",
        "stripe_url",
        "carrier_url",
    ):
        _check_url(name, checked, ("http://", "https://"), problems)
    for name in ("oidc_issuer", "storefront_url"):
        _check_url(name, checked, ("http://", "https://"), problems)
    _check_url("mail_url", checked, ("smtp://", "smtps://"), problems)
    _check_url("redis_url", checked, ("redis://", "rediss://", "unix://"), problems)
    _check_url("postgres_url", checked, ("postgres://", "postgresql://"), problems)
    if problems:
        raise ConfigError(problems)
    return Settings(**checked)


def _from_file(path: str | None, problems: list[str]) -> dict[str, object]:
    if not path:
        return {}
    try:
        values = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:  # ValueError: not TOML, or not UTF-8
        problems.append(f"{FILE_VARIABLE}={path}: {error}")
        return {}
    unknown = values.keys() - set(Settings.__struct_fields__)
    problems.extend(f"{path}: {name}: no such setting" for name in sorted(unknown))
    return {name: value for name, value in values.items() if name not in unknown}


def _from_environ(environ: Mapping[str, str], problems: list[str]) -> dict[str, object]:
    values: dict[str, object] = {}
    for variable, text in sorted(environ.items()):
        if not variable.startswith(ENV_PREFIX) or variable == FILE_VARIABLE:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        if name not in Settings.__struct_fields__:
            problems.append(f"{variable}: no such setting")
        elif text:
            values[name] = text
    return values


_TYPES: Final = get_type_hints(Settings, include_extras=True)


def _check(name: str, value: object, problems: list[str]) -> Any:
    try:
        return msgspec.convert(value, _TYPES[name], strict=not isinstance(value, str))
    except msgspec.ValidationError as error:
        shown = "***" if "secret" in name or "private_key" in name else repr(value)
        problems.append(f"{ENV_PREFIX}{name.upper()}={shown}: {error}")
        return None


def read_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation, by commas. Raises ValueError."""
    return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())


def _check_networks(name: str, values: Mapping[str, Any], problems: list[str]) -> None:
    try:
        read_networks(values.get(name) or "")
    except ValueError as error:
        problems.append(f"{ENV_PREFIX}{name.upper()}={values[name]!r}: {error}")


def _check_url(
    name: str, values: Mapping[str, Any], schemes: tuple[str, ...], problems: list[str]
) -> None:
    url = values.get(name)
    if url is not None and not url.startswith(schemes):
        wanted = " or ".join(schemes)
        problems.append(f"{ENV_PREFIX}{name.upper()}={mask_url(url)}: must start with {wanted}")
