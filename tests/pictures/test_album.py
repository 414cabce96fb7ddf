"""A request's pictures within the operator's limits."""

from __future__ import annotations

import base64

import pytest

from service.domain.errors import InvalidRequest
from service.domain.pictures import Picture
from service.pictures.album import Album
from service.pictures.fetch import Fetch
from service.settings import PictureSettings
from tests.pictures.files import png, png_head


def shown(data: bytes, where: str = "messages[0].content[0]", kind: str = "image/png") -> Picture:
    return Picture(f"data:{kind};base64,{base64.b64encode(data).decode()}", where)


async def test_pictures_that_are_brought_along_are_decoded() -> None:
    pictures = [shown(png()), shown(png(4, 4)), shown(png())]
    found = await Album(PictureSettings()).collect(pictures)
    assert [picture.data for picture in found] == [png(), png(4, 4), png()]
    assert found[0].digest == found[2].digest != found[1].digest
    assert [picture.source for picture in found] == [picture.source for picture in pictures]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (shown(b"hello").source, "is no picture that can be read; PNG, JPEG, GIF and BMP can"),
        (shown(b"RIFF0000WEBPVP8 ").source, "is a WebP picture, which can't be read; PNG, JPEG"),
        (shown(b"\0\0\0\x20ftypavif").source, "is a HEIC or AVIF picture, which can't be read"),
        (shown(b"II*\0....").source, "is a TIFF picture, which can't be read"),
        (shown(b"%PDF-1.7").source, "is a PDF document, which can't be read"),
        (shown(b'\n<svg width="1">').source, "is a drawing (SVG), which can't be read"),
        ("data:image/png;base64,@@@", "is not valid base64"),
        ("data:image/png;base64,", "is no picture that can be read"),
        ("data:image/png,hello", "is a data: URL that is not base64"),
        (shown(png_head(60_000, 60_000)).source, "has 60000 x 60000 pixels; at most 16777216"),
        (shown(png() + bytes(9_000_000)).source, "has more than 8388608 bytes"),
    ],
)
async def test_others_are_refused_by_place_and_reason(source: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await Album(PictureSettings()).collect([Picture(source, "messages[3].content[1]")])
    assert refused.value.param == "messages[3].content[1]"
    assert f"The picture at messages[3].content[1] {reason}" in refused.value.message


async def test_only_so_many_are_looked_at() -> None:
    album = Album(PictureSettings(max_count=2))
    with pytest.raises(InvalidRequest, match="holds 3 pictures; at most 2 are accepted"):
        await album.collect([shown(png())] * 3)


async def test_all_of_them_fit_into_one_message_between_processes() -> None:
    large = shown(png() + bytes(8_000_000))
    with pytest.raises(InvalidRequest, match="pictures of more than 50331648 bytes together"):
        await Album(PictureSettings()).collect([large] * 7)


async def test_a_url_is_fetched_once_for_all_that_name_it() -> None:
    class Web(Fetch):
        num_asked = 0

        async def fetch(self, picture: Picture) -> bytes:
            self.num_asked += 1
            return png()

    web = Web(PictureSettings())
    url = "https://pictures.test/a.png"
    found = await Album(PictureSettings(), web).collect([Picture(url, "a"), Picture(url, "b")])
    assert (web.num_asked, [picture.where for picture in found]) == (1, ["a", "b"])
