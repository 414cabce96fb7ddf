"""Pictures from a web server of the test's own: https on this machine, under names it made up."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

import pytest
import pytest_asyncio

from service.domain.errors import InvalidRequest
from service.domain.pictures import Picture
from service.pictures.fetch import Fetch
from service.pictures.network import Address, PublicNetwork, is_public
from service.settings import PictureSettings
from tests.pictures.files import png

HERE = ip_address("127.0.0.1")
Reply = Callable[[asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """For `pictures.test`, signed by itself."""
    directory = tmp_path_factory.mktemp("tls")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    names = ["-subj", "/CN=pictures.test", "-addext", "subjectAltName=DNS:pictures.test"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return key, certificate


@dataclass
class Web:
    """A server, and the names that lead to it."""

    port: int = 0
    replies: dict[str, Reply] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    addresses: list[list[Address]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split()[1].decode()
        self.asked.append(path)
        try:
            await self.replies[path](writer)
            await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    async def resolve(self, _host: str, _port: int) -> list[Address]:
        return self.addresses.pop(0) if self.addresses else [HERE]

    def url(self, path: str, host: str = "pictures.test") -> str:
        return f"https://{host}:{self.port}{path}"


def says(status: str, body: bytes = b"", **headers: str) -> Reply:
    async def reply(writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", *(f"{k}: {v}" for k, v in headers.items())]
        lines.append(f"Content-Length: {len(body)}")
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return reply


@pytest_asyncio.fixture
async def web(certificate: tuple[Path, Path]) -> AsyncIterator[Web]:
    key, signed = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(signed, key)
    web = Web(replies={"/a.png": says("200 OK", png())})
    async with await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=context) as server:
        web.port = server.sockets[0].getsockname()[1]
        yield web


@pytest.fixture
def fetch(web: Web, certificate: tuple[Path, Path]) -> Callable[..., Awaitable[bytes]]:
    def may_be_reached(address: Address) -> bool:
        return address == HERE or is_public(address)

    async def fetch(url: str, **settings: object) -> bytes:
        limits = PictureSettings.model_validate(settings)
        network = PublicNetwork(web.resolve, may_be_reached)
        trusting = ssl.create_default_context(cafile=str(certificate[1]))
        return await Fetch(limits, network, trusting).fetch(Picture(url, "messages[0].content[1]"))

    return fetch


FetchOne = Callable[..., Awaitable[bytes]]


async def test_a_picture_is_fetched(web: Web, fetch: FetchOne) -> None:
    assert await fetch(web.url("/a.png#fragment")) == png()
    assert web.asked == ["/a.png"]


async def test_redirects_are_followed_a_few_times(web: Web, fetch: FetchOne) -> None:
    web.replies["/b"] = says("302 Found", Location="/c")
    web.replies["/c"] = says("308 Permanent Redirect", Location=web.url("/a.png"))
    assert await fetch(web.url("/b")) == png()
    web.replies["/c"] = says("302 Found", Location="/b")
    with pytest.raises(InvalidRequest, match="is behind more than 3 redirects"):
        await fetch(web.url("/b"))


async def test_a_redirect_leads_to_no_inner_address(web: Web, fetch: FetchOne) -> None:
    web.replies["/b"] = says("302 Found", Location="https://inner.test/secret")
    web.addresses = [[HERE], [ip_address("169.254.169.254")]]
    with pytest.raises(InvalidRequest, match=r"inner\.test is not at a public address") as refused:
        await fetch(web.url("/b"))
    assert refused.value.param == "messages[0].content[1]"


async def test_a_redirect_leads_out_of_https_to_nowhere(web: Web, fetch: FetchOne) -> None:
    web.replies["/b"] = says("302 Found", Location=f"http://pictures.test:{web.port}/a.png")
    with pytest.raises(InvalidRequest, match="must be an https: URL"):
        await fetch(web.url("/b"))


async def test_the_address_that_was_looked_at_is_the_one_that_is_used(
    web: Web, fetch: FetchOne
) -> None:
    """A name that means another address a moment later is asked once."""
    web.addresses = [[HERE], [ip_address("10.0.0.1")]]
    assert await fetch(web.url("/a.png")) == png()
    assert web.addresses == [[ip_address("10.0.0.1")]]


async def test_a_certificate_for_another_name_is_refused(web: Web, fetch: FetchOne) -> None:
    with pytest.raises(InvalidRequest, match=r"could not be fetched: other\.test can't be reached"):
        await fetch(web.url("/a.png", host="other.test"))


@pytest.mark.parametrize(
    ("domains", "allowed"),
    [("*", True), ("pictures.test", True), ("*.test, a.b", True), ("*.pictures.test", False)],
)
async def test_only_allowed_domains_are_asked(
    web: Web, fetch: FetchOne, domains: str, allowed: bool
) -> None:
    if allowed:
        assert await fetch(web.url("/a.png"), domains=domains) == png()
        return
    with pytest.raises(InvalidRequest, match=r"pictures\.test, which this service does not fetch"):
        await fetch(web.url("/a.png"), domains=domains)
    assert web.asked == []


async def test_no_domains_mean_no_fetching(web: Web, fetch: FetchOne) -> None:
    with pytest.raises(InvalidRequest, match="does not fetch from"):
        await fetch(web.url("/a.png"), domains="")


@pytest.mark.parametrize(
    "url",
    [
        "http://pictures.test/a.png",
        "ftp://pictures.test/a.png",
        "file:///etc/passwd",
        "https://me:secret@pictures.test/a.png",
        "https:///a.png",
        "https://[::1/a.png",
        "https://pictures.test:99999/a.png",
        "a.png",
    ],
)
async def test_other_urls_are_refused(web: Web, fetch: FetchOne, url: str) -> None:
    with pytest.raises(InvalidRequest, match=r"https: URL|can't be read"):
        await fetch(url)
    assert web.asked == []


async def test_a_large_file_is_not_read_to_its_end(web: Web, fetch: FetchOne) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + bytes(4096) + b"\r\n")
            await writer.drain()

    web.replies["/b"] = endless
    with pytest.raises(InvalidRequest, match="has more than 65536 bytes"):
        await fetch(web.url("/b"), max_bytes=65_536)


async def test_a_slow_server_is_not_waited_for(web: Web, fetch: FetchOne) -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    web.replies["/b"] = silent
    with pytest.raises(InvalidRequest, match=r"could not be fetched within 0\.3 seconds"):
        await fetch(web.url("/b"), fetch_seconds=0.3)


@pytest.mark.parametrize("status", ["404 Not Found", "500 Internal Server Error", "304 No"])
async def test_what_the_server_refuses_is_said_without_its_words(
    web: Web, fetch: FetchOne, status: str
) -> None:
    web.replies["/b"] = says(status, b"inner words")
    with pytest.raises(InvalidRequest, match=f"said {status[:3]}") as refused:
        await fetch(web.url("/b"))
    assert "inner words" not in refused.value.message


async def test_what_speaks_no_http_is_refused(web: Web, fetch: FetchOne) -> None:
    async def noise(writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x01\x02 hello\r\n\r\n")

    web.replies["/b"] = noise
    with pytest.raises(InvalidRequest, match="can't be reached"):
        await fetch(web.url("/b"))
