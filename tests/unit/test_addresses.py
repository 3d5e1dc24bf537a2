"""Clients go by the address that trusted proxies vouch for, and by nothing they wrote themselves."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.admission.addresses import ADDRESSES_MAX, CHAIN_MAX, AddressReader, read_address
from engine.config import ForwardedHeader, Settings, read_networks

PROXY, INNER_PROXY = "10.0.0.1", "10.0.0.2"
STRANGER = "203.0.113.7"

strangers = st.ip_addresses(network="32.0.0.0/4") | st.ip_addresses(network="2001:db8::/32")


def reader(header: ForwardedHeader = ForwardedHeader.X_FORWARDED_FOR) -> AddressReader:
    return AddressReader(
        trusted=read_networks("10.0.0.0/8, fd00::/8"),
        unthrottled=read_networks("127.0.0.0/8, ::1/128"),
        header=header,
    )


def through_proxy(chain: str) -> str:
    return reader().client(PROXY, None, chain)


def through_forwarded(chain: str) -> str:
    return reader(ForwardedHeader.FORWARDED).client(PROXY, chain, None)


@pytest.mark.parametrize(
    ("peer", "name"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("", ""),
        ("no address", "no address"),
    ],
)
def test_a_peer_goes_by_its_address_or_its_network(peer: str, name: str) -> None:
    assert reader().client(peer, None, None) == name


def test_neighbours_in_one_ipv6_network_are_one_client() -> None:
    names = {reader().client(f"2001:db8::{host:x}", None, None) for host in range(100)}
    assert len(names) == 1


@given(st.text(max_size=50), st.text(max_size=50))
def test_strangers_are_not_asked_whom_they_speak_for(forwarded: str, chain: str) -> None:
    for header in ForwardedHeader:
        assert reader(header).client(STRANGER, forwarded, chain) == STRANGER


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (STRANGER, STRANGER),
        (f"1.1.1.1, 2.2.2.2, {STRANGER}", STRANGER),
        (f"1.1.1.1,{STRANGER},{INNER_PROXY},10.9.9.9", STRANGER),
        (f"garbage, {STRANGER}", STRANGER),
        (f"{STRANGER}:4711", STRANGER),
        (" [2001:db8::5]:4711 ", "2001:db8::/64"),
        ("2001:db8::5", "2001:db8::/64"),
        (f"::ffff:{STRANGER}", STRANGER),
        (f"{INNER_PROXY}, 10.9.9.9", INNER_PROXY),
        (f"{STRANGER}, fd00::9", STRANGER),
        (f"{STRANGER}, unknown", PROXY),
        (f"{STRANGER},", PROXY),
        ("", PROXY),
        ("1.2.3", PROXY),
        ("1" * 5000, PROXY),
    ],
)
def test_the_rightmost_hop_that_is_no_proxy_is_the_client(chain: str, name: str) -> None:
    assert through_proxy(chain) == name


@pytest.mark.parametrize(
    ("chain", "name"),
    [
        (f"for={STRANGER}", STRANGER),
        (f"For={STRANGER};proto=https;by=10.0.0.1, for={INNER_PROXY}", STRANGER),
        (f'proto=https ; FOR="{STRANGER}:4711"', STRANGER),
        ('for="[2001:db8::5]:4711"', "2001:db8::/64"),
        ("for=[2001:db8::5]", "2001:db8::/64"),
        (f'for=1.1.1.1, for={STRANGER};host="a,for=2.2.2.2;x\\",for=3.3.3.3"', STRANGER),
        (f'for=1.1.1.1;host=", for={STRANGER}', STRANGER),
        (f'for=1.1.1.1;host="\\", for={STRANGER}', STRANGER),
        ('for="_hidden"', PROXY),
        ("for=unknown", PROXY),
        ("proto=https", PROXY),
        (f"for={STRANGER};for=1.1.1.1", PROXY),
        (f"for={STRANGER} 1.1.1.1", PROXY),
        (f'for="{STRANGER}', PROXY),
        ('"', PROXY),
        ("for=", PROXY),
        (f"for=;for={STRANGER}", PROXY),
    ],
)
def test_forwarded_is_read_as_its_standard_says(chain: str, name: str) -> None:
    assert through_forwarded(chain) == name


@given(strangers, st.text(max_size=40))
def test_whatever_a_client_wrote_stands_left_of_the_truth(address: object, written: str) -> None:
    truth = reader().client(str(address), None, None)
    assert through_proxy(f"{written},{address}") == truth
    assert through_forwarded(f'{written},for="[{address}]"') == truth


@given(st.text(max_size=80))
def test_any_header_leads_to_an_address(chain: str) -> None:
    for name in (through_proxy(chain), through_forwarded(chain)):
        assert read_address(name.removesuffix("/64")) is not None


def test_only_the_header_that_the_proxies_write_is_read() -> None:
    both = {"forwarded": "for=1.1.1.1", "x_forwarded_for": "2.2.2.2"}
    assert reader().client(PROXY, **both) == "2.2.2.2"
    assert reader(ForwardedHeader.FORWARDED).client(PROXY, **both) == "1.1.1.1"
    assert reader().client(PROXY, "for=1.1.1.1", None) == PROXY


def test_an_address_that_a_long_chain_cuts_in_two_is_nobodys() -> None:
    proxies = ",10.0.0.2" * 112
    for spaces in range(9):
        chain = f"213.0.113.7{' ' * spaces}{proxies}"
        whole = len(chain) <= CHAIN_MAX
        assert through_proxy(chain) == ("213.0.113.7" if whole else PROXY)
    assert not whole


def test_some_addresses_are_nobodys_in_particular() -> None:
    read = reader()
    for peer in ("127.0.0.1", "::1", "::ffff:127.9.9.9", ""):
        assert read.is_unthrottled(read.client(peer, None, None)), peer
    for peer in ("::2", STRANGER, "fd00::1", "no address"):
        assert not read.is_unthrottled(read.client(peer, None, None)), peer
    assert not read.is_unthrottled("::/64")  # The neighbours of ::1.


def test_what_is_remembered_is_bounded() -> None:
    read = reader()
    for number in range(ADDRESSES_MAX + 100):
        name = str(IPv4Address(number + (11 << 24)))
        assert read.client(name, None, None) == name
        assert read.client(PROXY, None, name) == name
        assert not read.is_unthrottled(name)
    for known in (read._peers, read._clients, read._unthrottled):
        assert len(known) <= ADDRESSES_MAX


def test_the_settings_say_whom_to_believe() -> None:
    settings = Settings(trusted_proxies="2001:db8::/32", forwarded_header=ForwardedHeader.FORWARDED)
    read = AddressReader.of(settings)
    proxy = str(IPv6Address("2001:db8::1"))
    assert read.client(proxy, f"for={STRANGER}", "1.1.1.1") == STRANGER
    assert read.is_unthrottled("127.0.0.1")
