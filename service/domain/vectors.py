"""Texts that become vectors, and documents that are judged."""

from __future__ import annotations

from dataclasses import dataclass

from service.domain.errors import InvalidRequest
from service.domain.model import ModelInfo

Input = str | tuple[int, ...]
"""A text, or its token ids, which are taken as they are."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Inputs to be turned into vectors. Valid by construction; raises `InvalidRequest`.

    `model` None means the one that there is. `dimensions` keeps only the first numbers.
    """

    inputs: tuple[Input, ...]
    model: str | None = None
    dimensions: int | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        if not self.inputs:
            raise InvalidRequest("input is empty; send at least one text.", param="input")
        for number, given in enumerate(self.inputs):
            if not given:
                raise InvalidRequest(f"input[{number}] is empty; send some text.", param="input")
        if self.dimensions is not None and self.dimensions < 1:
            raise InvalidRequest(
                f"dimensions is {self.dimensions}; it must be at least 1.", param="dimensions"
            )


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """Documents to be judged by how well they answer a query; otherwise as `EmbedRequest`."""

    query: str
    documents: tuple[str, ...]
    model: str | None = None
    request_id: str = ""

    def __post_init__(self) -> None:
        if not self.query:
            raise InvalidRequest("query is empty; send some text.", param="query")
        if not self.documents:
            raise InvalidRequest("documents is empty; send at least one.", param="documents")
        for number, document in enumerate(self.documents):
            if not document:
                raise InvalidRequest(
                    f"documents[{number}] is empty; send some text.", param="documents"
                )


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector of length 1 for each input, in order: 32-bit floats, little-endian."""

    model: ModelInfo
    vectors: tuple[bytes, ...]
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """A score for each document, in the order of the documents; more is better."""

    model: ModelInfo
    scores: tuple[float, ...]
    num_tokens: int
