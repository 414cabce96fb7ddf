"""Which addresses strangers' pictures may be fetched from."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from service.pictures.network import Address, NotPublic, PublicNetwork, is_public


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_everybodys_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.1.2.3",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",
        "fe80::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
    ],
)
def test_inner_addresses_are_not(address: str) -> None:
    assert not is_public(ip_address(address))


async def test_one_inner_address_among_a_hosts_is_enough_to_refuse_it() -> None:
    async def resolve(_host: str, _port: int) -> list[Address]:
        return [ip_address("93.184.216.34"), ip_address("10.0.0.1")]

    with pytest.raises(NotPublic, match=r"mixed\.test"):
        await PublicNetwork(resolve).connect_tcp("mixed.test", 443)


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "::1", "0"])
async def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(NotPublic):
        await PublicNetwork().connect_tcp(host, 443)
