"""Signatures of Alipay, WeChat Pay and Stripe against answers that OpenSSL and public documents gave.

The RSA ones: `printf … | openssl dgst -sha256 -sign key.pem | base64`.
"""

from base64 import b64decode, b64encode
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from cryptography.hazmat.primitives import serialization

from engine.config import Settings
from engine.errors import ConfigError
from engine.payment import alipay_signing, stripe_signing, wechatpay_signing
from engine.payment.alipay_signing import Forged, verified_answer, verified_notice
from engine.payment.keys import is_configured, is_signed, read_private_key, read_public_key
from engine.payment.wechatpay_signing import Sealed, is_timely, opened, opened_object
from tests.support import known_signatures as known

KEY = serialization.load_pem_private_key(known.PRIVATE_PEM.encode(), None)
PUBLIC = serialization.load_pem_public_key(known.PUBLIC_PEM.encode())

REQUEST = {
    "version": "1.0",
    "method": "alipay.trade.query",
    "app_id": "2021000100000001",
    "timestamp": "2026-11-11 00:00:00",
    "sign_type": "RSA2",
    "charset": "utf-8",
    "notify_url": "",  # Empty: not signed.
    "biz_content": '{"out_trade_no":"pay_1"}',
}
NODE = "alipay_trade_query_response"
ANSWER = (
    '{"code":"10000","msg":"Success","out_trade_no":"pay_1","total_amount":"1299.00",'
    '"trade_status":"TRADE_SUCCESS"}'
)
NOTICE = {
    "app_id": "2021000100000001",
    "notify_id": "n1",
    "out_trade_no": "pay_1",
    "subject": "订单 1",
    "total_amount": "1299.00",
    "trade_status": "TRADE_SUCCESS",
    "sign": known.NOTICE,
    "sign_type": "RSA2",
}


class TestAlipay:
    def test_request_is_signed_as_openssl_does(self) -> None:
        assert alipay_signing.signed_params(REQUEST, KEY)["sign"] == known.REQUEST

    def test_address_for_the_buyer_carries_the_signature(self) -> None:
        url = alipay_signing.signed_url("https://gateway/do", REQUEST, KEY)
        assert parse_qs(urlsplit(url).query)["sign"] == [known.REQUEST]

    @pytest.mark.parametrize(
        "frame",
        [
            '{{"{node}":{answer},"sign":"{sign}"}}',
            '{{"sign":"{sign}", "{node}" : {answer} }}',
            '{{"{node}":{answer},"alipay_cert_sn":"x","sign":"{sign}"}}',
        ],
    )
    def test_answer_is_verified_over_its_raw_text(self, frame: str) -> None:
        body = frame.format(node=NODE, answer=ANSWER, sign=known.ANSWER).encode()
        assert verified_answer(body, NODE, PUBLIC)["total_amount"] == "1299.00"

    @pytest.mark.parametrize(
        "changed",
        [ANSWER.replace("1299.00", "0.01"), ANSWER.replace(",", ", ", 1), "{}"],
    )
    def test_changed_answer_is_forged(self, changed: str) -> None:
        body = f'{{"{NODE}":{changed},"sign":"{known.ANSWER}"}}'.encode()
        with pytest.raises(Forged):
            verified_answer(body, NODE, PUBLIC)

    def test_a_second_node_of_the_same_name_is_not_believed(self) -> None:
        lie = ANSWER.replace("1299.00", "0.01")
        body = f'{{"{NODE}":{ANSWER},"{NODE}":{lie},"sign":"{known.ANSWER}"}}'.encode()
        assert verified_answer(body, NODE, PUBLIC)["total_amount"] == "1299.00"

    @pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b"\xff", b'{"sign":"x"}'])
    def test_nonsense_is_no_answer(self, body: bytes) -> None:
        with pytest.raises((Forged, ValueError)):
            verified_answer(body, NODE, PUBLIC)

    def test_notification_is_verified_over_its_sorted_parameters(self) -> None:
        body = urlencode(dict(reversed(NOTICE.items()))).encode()
        assert verified_notice(body, PUBLIC)["subject"] == "订单 1"

    @pytest.mark.parametrize(
        "changes",
        [
            {"total_amount": "0.01"},
            {"sign": ""},
            {"sign": "!"},
            {"extra": "x"},
            {"sign_type": "RSA"},
        ],
    )
    def test_changed_notification_is_forged(self, changes: dict[str, str]) -> None:
        with pytest.raises(Forged):
            verified_notice(urlencode(NOTICE | changes).encode(), PUBLIC)

    @pytest.mark.parametrize("body", [b"\xff", b"a", b"a=1&a=2", b"&".join([b"a=1"] * 200), b""])
    def test_nonsense_is_no_notification(self, body: bytes) -> None:
        with pytest.raises((Forged, ValueError)):
            verified_notice(body, PUBLIC)


class TestWeChatPay:
    timestamp, nonce = "1554208460", "593BEC0C930BF1AFEB40B4A08C8FB242"

    def test_request_is_signed_as_openssl_does(self) -> None:
        text = wechatpay_signing.request_text(
            "GET", "/v3/certificates?a=1", self.timestamp, self.nonce, b""
        )
        header = wechatpay_signing.authorization(
            KEY,
            mch_id="1900009191",
            serial="1DDE55",
            timestamp=self.timestamp,
            nonce=self.nonce,
            text=text,
        )
        assert header == (
            f'WECHATPAY2-SHA256-RSA2048 mchid="1900009191",nonce_str="{self.nonce}",'
            f'signature="{known.WX_REQUEST}",timestamp="1554208460",serial_no="1DDE55"'
        )

    def test_answer_that_openssl_signed_is_genuine_and_any_other_is_not(self) -> None:
        nonce = "c5ac7061fccab6bf3e254dcf98995b8c"
        text = wechatpay_signing.answer_text(self.timestamp, nonce, b'{"code":"SUCCESS"}')
        assert is_signed(PUBLIC, known.WX_ANSWER, text)
        assert not is_signed(PUBLIC, known.WX_ANSWER, text + b" ")
        assert not is_signed(PUBLIC, "no base64!", text)
        assert not is_signed(PUBLIC, "签名", text)

    def test_sealed_resource_opens_to_the_published_plaintext(self) -> None:
        """Test case 14 of McGrew and Viega, "The Galois/Counter Mode of Operation" (2005)."""
        sealed = bytes.fromhex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")
        resource = {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": "\0" * 12,
            "associated_data": "",
            "ciphertext": b64encode(sealed).decode(),
        }
        assert opened(bytes(32), resource) == bytes(16)
        for changes in (
            {"associated_data": "x"},
            {"nonce": "\0" * 11 + "1"},
            {"algorithm": "AES"},
            {"ciphertext": b64encode(sealed[:-1]).decode()},
            {"ciphertext": "!"},
            {"ciphertext": None},
        ):
            with pytest.raises(Sealed):
                opened(bytes(32), resource | changes)
        with pytest.raises(Sealed):
            opened(b"k" * 32, resource)
        with pytest.raises(Sealed):
            opened_object(bytes(32), resource)  # It holds no JSON.

    @pytest.mark.parametrize(
        ("timestamp", "timely"),
        [
            ("1554208460", True),
            ("1554208160", True),
            ("1554208159", False),
            ("1554208761", False),
            ("", False),
            ("soon", False),
            ("-1", False),
            ("9" * 40, False),
            ("١٥٥٤٢٠٨٤٦٠", False),
        ],
    )
    def test_message_is_of_these_five_minutes(self, timestamp: str, timely: bool) -> None:
        assert is_timely(timestamp, 1_554_208_460_000) is timely


class TestStripe:
    """The digests: `printf '1492774577.{"id":"evt_1"}' | openssl dgst -sha256 -hmac whsec_…`."""

    body, now_ms = b'{"id":"evt_1"}', 1_492_774_577_000
    old = "0747100650652ef72323d15ecf021fcf28463e6c3f46c75d091a00c9fbb46a37"
    new = "0ff2f5a68c790e641710ef579f8bab873bd43994ccf50908722ddbee71686a50"

    def test_header_is_what_openssl_makes(self) -> None:
        header = stripe_signing.signature_header(["whsec_old", "whsec_new"], self.body, 1492774577)
        assert header == f"t=1492774577,v1={self.old},v1={self.new}"

    @pytest.mark.parametrize("secrets", [["whsec_old"], ["whsec_new"], ["whsec_x", "whsec_new"]])
    def test_any_signature_by_any_secret_will_do(self, secrets: list[str]) -> None:
        header = f"t=1492774577,v1={self.old},v1={self.new},v0=abc"
        assert stripe_signing.is_genuine(header, secrets, self.body, self.now_ms)

    @pytest.mark.parametrize(
        "header",
        [
            "",
            "t=1492774577",
            f"v1={old}",
            f"t=1492774577,v0={old}",
            f"t=1492774578,v1={old}",
            f"t=1492774577,t=1492774577,v1={old}",
            f"t=soon,v1={old}",
            f"t=1492774577,v1={old[:-1]}",
            f"t=1492774577,v1={new}",
            "t=1492774577,v1=\udcff",
        ],
    )
    def test_forged_header_is_refused(self, header: str) -> None:
        assert not stripe_signing.is_genuine(header, ["whsec_old"], self.body, self.now_ms)

    @pytest.mark.parametrize("seconds", [-301, 301])
    def test_old_event_is_refused(self, seconds: int) -> None:
        header = f"t=1492774577,v1={self.old}"
        now_ms = self.now_ms + seconds * 1000
        assert not stripe_signing.is_genuine(header, ["whsec_old"], self.body, now_ms)
        assert stripe_signing.is_genuine(header, ["whsec_old"], self.body, self.now_ms + 299_000)

    def test_another_body_is_refused(self) -> None:
        header = f"t=1492774577,v1={self.old}"
        assert not stripe_signing.is_genuine(header, ["whsec_old"], self.body + b" ", self.now_ms)


class TestKeys:
    bare = "".join(known.PRIVATE_PEM.splitlines()[1:-1])

    @pytest.mark.parametrize("shown", ["pem", "bare", "file"])
    def test_keys_are_read_as_text_as_consoles_show_them_and_from_files(
        self, shown: str, tmp_path: pytest.TempPathFactory
    ) -> None:
        private = {"pem": known.PRIVATE_PEM, "bare": self.bare}.get(shown)
        if private is None:
            file = tmp_path / "key.pem"  # type: ignore[operator]
            file.write_text(known.PRIVATE_PEM)
            private = str(file)
        public = "".join(known.PUBLIC_PEM.splitlines()[1:-1])
        settings = Settings(alipay_private_key=private, alipay_public_key=public)
        key = read_private_key(settings, "alipay_private_key")
        other = read_public_key(settings, "alipay_public_key")
        assert key.public_key().public_numbers() == other.public_numbers()

    @pytest.mark.parametrize("text", ["sesame", "/nowhere/key.pem", "-----BEGIN NOTHING", "MIIE"])
    def test_what_is_no_key_is_said_without_showing_it(self, text: str) -> None:
        settings = Settings(alipay_private_key=text, alipay_public_key=text)
        for read, name in ((read_private_key, "private"), (read_public_key, "public")):
            with pytest.raises(ConfigError) as refused:
                read(settings, f"alipay_{name}_key")
            (problem,) = refused.value.problems
            assert problem.startswith(f"DOORBUSTER_ALIPAY_{name.upper()}_KEY")
            assert text not in problem

    def test_half_a_configuration_names_what_is_missing(self) -> None:
        names = ("alipay_app_id", "alipay_seller_id", "alipay_private_key")
        assert not is_configured(Settings(), "Alipay", names)
        with pytest.raises(ConfigError, match="SELLER_ID and DOORBUSTER_ALIPAY_PRIVATE_KEY"):
            is_configured(Settings(alipay_app_id="1"), "Alipay", names)


def test_signature_is_plain_base64() -> None:
    assert len(b64decode(known.REQUEST, validate=True)) == 256
