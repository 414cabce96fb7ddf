"""Pictures from the web: over https, from allowed domains, within limits of size and time."""

from __future__ import annotations

import asyncio
import ssl
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore2

from service import __version__
from service.domain.errors import InvalidRequest
from service.domain.pictures import Picture
from service.pictures.network import NotPublic, PublicNetwork
from service.settings import PictureSettings

_MAX_REDIRECTS = 3
_REDIRECTS = (301, 302, 303, 307, 308)
_HEADERS = [("User-Agent", f"parley/{__version__}"), ("Accept", "image/*")]


class Fetch:
    """Gets one file after another, with a connection of its own for each."""

    def __init__(
        self,
        settings: PictureSettings,
        network: httpcore2.AsyncNetworkBackend | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._settings = settings
        self._domains = settings.domains.replace(",", " ").lower().split()
        self._network = network or PublicNetwork()
        self._ssl_context = ssl_context

    async def fetch(self, picture: Picture) -> bytes:
        """The file behind the picture's URL. Raises `InvalidRequest`, naming the place and what
        was wrong, never what an answer from inside would have told."""
        url, seconds = picture.source, self._settings.fetch_seconds
        try:
            async with asyncio.timeout(seconds):
                for _ in range(_MAX_REDIRECTS + 1):
                    found = await self._one(url, picture)
                    if isinstance(found, bytes):
                        return found
                    url = found
        except TimeoutError:
            raise _refusal(picture, f"could not be fetched within {seconds:g} seconds") from None
        raise _refusal(picture, f"is behind more than {_MAX_REDIRECTS} redirects")

    async def _one(self, url: str, picture: Picture) -> bytes | str:
        """The file, or where else it is to be found."""
        parts = self._allowed(url, picture)
        host = parts.hostname or ""
        try:
            async with (
                httpcore2.AsyncConnectionPool(
                    ssl_context=self._ssl_context, network_backend=self._network
                ) as pool,
                pool.stream("GET", _without_fragment(parts), headers=_HEADERS) as response,
            ):
                headers = {name.lower(): value for name, value in response.headers}
                if response.status in _REDIRECTS and b"location" in headers:
                    return urljoin(url, headers[b"location"].decode("ascii", "replace"))
                if response.status != 200:
                    raise _refusal(picture, f"could not be fetched: {host} said {response.status}")
                return await self._body(response, picture)
        except NotPublic:
            raise _refusal(
                picture, f"can't be fetched: {host} is not at a public address"
            ) from None
        except (
            httpcore2.NetworkError,
            httpcore2.ProtocolError,
            httpcore2.TimeoutException,
            httpcore2.UnsupportedProtocol,
            OSError,  # what a certificate is refused with
        ) as error:
            raise _refusal(picture, f"could not be fetched: {host} can't be reached") from error

    def _allowed(self, url: str, picture: Picture) -> SplitResult:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").lower()
            _ = parts.port
        except ValueError:
            raise _refusal(picture, "has a URL that can't be read") from None
        if parts.scheme != "https" or not host or "@" in parts.netloc:
            raise _refusal(picture, "must be an https: URL without a user's name, or a data: URL")
        if not any(fnmatchcase(host, pattern) for pattern in self._domains):
            raise _refusal(picture, f"is at {host[:200]}, which this service does not fetch from")
        return parts

    async def _body(self, response: httpcore2.Response, picture: Picture) -> bytes:
        data = bytearray()
        async for piece in response.aiter_stream():
            data += piece
            if len(data) > self._settings.max_bytes:
                raise _refusal(picture, f"has more than {self._settings.max_bytes} bytes")
        return bytes(data)


def _without_fragment(parts: SplitResult) -> bytes:
    """As it goes over the wire; what is no ASCII is escaped or the host's own business."""
    return parts._replace(fragment="").geturl().encode("ascii", "replace")


def _refusal(picture: Picture, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The picture at {picture.where} {reason}.", param=picture.where)
