"""Pictures of a request, for a model that sees."""

from __future__ import annotations

from dataclasses import replace

from service.domain.chat import ChatRequest
from service.domain.errors import Unsupported
from service.domain.model import ModelInfo
from service.pictures.album import Album


async def shown(request: ChatRequest, model: ModelInfo, album: Album) -> ChatRequest:
    """The request with its pictures' files in it.

    Nothing is fetched for a model that could not see it: that raises `Unsupported`. What is wrong
    with a picture raises `InvalidRequest`.
    """
    pictures = request.pictures
    if not pictures or all(picture.data for picture in pictures):
        return request
    if not model.sees:
        raise Unsupported(
            f"{pictures[0].where} is a picture, and {model.name} reads only text: it has no "
            "projector file (mmproj), or none that can be used, and then the log says why.",
            param=pictures[0].where,
        )
    found = iter(await album.collect(pictures))
    messages = tuple(
        replace(message, pictures=tuple(next(found) for _ in message.pictures))
        for message in request.messages
    )
    return replace(request, messages=messages)
