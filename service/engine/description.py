"""What the workers are told of a model that an engine has loaded."""

from __future__ import annotations

from service.domain.model import ModelInfo
from service.engine.planning.loading import LoadedModel
from service.engine.planning.memory import Sizes
from service.engine.vocabulary import Vocabulary


def describe(model: LoadedModel, vocabulary: Vocabulary, name: str, slots: Sizes) -> ModelInfo:
    """The facts; `slots` are as long as conversations may be."""
    return ModelInfo(
        name=name,
        description=in_words(model.description, model.num_parameters),
        context_length=slots.cells,
        trained_context_length=model.trained_context_length,
        num_slots=slots.slots,
        vocabulary_size=vocabulary.size,
        num_parameters=model.num_parameters,
        size_bytes=model.size_bytes,
        created=int(model.path.stat().st_mtime),
        chat_template=model.chat_template,
        bos_token=vocabulary.spelling("bos"),
        eos_token=vocabulary.spelling("eos"),
        adds_bos=vocabulary.adds_bos,
        control_tokens=vocabulary.control_tokens,
        markup_tokens=vocabulary.markup_tokens,
        infill_tokens=vocabulary.infill(),
    )


def in_words(description: str, num_parameters: int) -> str:
    """llama.cpp's words for a model, with its size where llama.cpp has no name for that."""
    millions = num_parameters / 1e6
    size = f"{millions:.1f}M" if millions < 1000 else f"{millions / 1000:.1f}B"
    return description.replace("?B", size)
