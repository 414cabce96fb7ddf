"""A request's pictures, as bytes that have been looked at."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256

from service.domain.errors import InvalidRequest
from service.domain.pictures import Picture
from service.pictures.fetch import Fetch
from service.pictures.header import ACCEPTED, size_of, unread_kind
from service.settings import PictureSettings

# What fits into one message between processes, with room for the words.
_MAX_TOGETHER = 48 * 1024 * 1024
_DATA = re.compile(r"data:(?P<type>[^,]{0,200}),", re.IGNORECASE)


class Album:
    """Brings pictures together, each within the operator's limits. One per worker."""

    def __init__(self, settings: PictureSettings, fetch: Fetch | None = None) -> None:
        self._settings = settings
        self._fetch = fetch or Fetch(settings)

    async def collect(self, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
        """The same pictures with their files; a URL that is named several times is fetched once.
        Raises `InvalidRequest`, naming the place and the limit."""
        most = self._settings.max_count
        if len(pictures) > most:
            raise InvalidRequest(
                f"messages holds {len(pictures)} pictures; at most {most} are accepted.",
                param="messages",
            )
        known: dict[str, Picture] = {}
        for picture in pictures:
            if picture.source not in known:
                known[picture.source] = await self._got(picture)
            together = sum(len(known[p.source].data) for p in pictures if p.source in known)
            if together > _MAX_TOGETHER:
                raise InvalidRequest(
                    f"messages holds pictures of more than {_MAX_TOGETHER} bytes together.",
                    param="messages",
                )
        got = [(picture, known[picture.source]) for picture in pictures]
        return tuple(replace(p, data=found.data, digest=found.digest) for p, found in got)

    async def _got(self, picture: Picture) -> Picture:
        match = _DATA.match(picture.source)
        if match:
            data = await asyncio.to_thread(self._decoded, picture, match)
        else:
            data = await self._fetch.fetch(picture)
        self._check_size(picture, data)
        digest = await asyncio.to_thread(sha256, data)
        return replace(picture, data=data, digest=digest.hexdigest())

    def _check_size(self, picture: Picture, data: bytes) -> None:
        size = size_of(data)
        if size is None:
            kind = unread_kind(data)
            what = f"is {kind}, which can't be read" if kind else "is no picture that can be read"
            raise _refusal(picture, f"{what}; {ACCEPTED} can")
        width, height = size
        if width * height > self._settings.max_pixels:
            raise _refusal(
                picture,
                f"has {width} x {height} pixels; at most {self._settings.max_pixels} are accepted",
            )

    def _decoded(self, picture: Picture, match: re.Match[str]) -> bytes:
        if not match["type"].lower().endswith(";base64"):
            raise _refusal(picture, "is a data: URL that is not base64")
        most = self._settings.max_bytes
        if (len(picture.source) - match.end()) * 3 // 4 > most + 3:
            raise _refusal(picture, f"has more than {most} bytes")
        try:
            data = base64.b64decode(picture.source[match.end() :], validate=True)
        except (binascii.Error, ValueError):
            raise _refusal(picture, "is not valid base64") from None
        if len(data) > most:
            raise _refusal(picture, f"has more than {most} bytes")
        return data


def _refusal(picture: Picture, reason: str) -> InvalidRequest:
    return InvalidRequest(f"The picture at {picture.where} {reason}.", param=picture.where)
