"""What makes a model see: a projector file, and llama.cpp's mtmd around it.

A picture becomes places in the prompt. The model reads rows of numbers there instead of tokens;
for all who compare prompts (slots, what is parked, what is on disk) the places have ids of their
own, below zero, that follow from the picture's digest: equal pictures are found again, others
never are. Only models that read pictures as they read words, one place after another, are served:
those with positions of two dimensions (Qwen-VL) or that look ahead (Gemma 3) are left blind.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol

import llama_cpp.llama_cpp as llama
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
from numpy.typing import NDArray

from service.domain.chat import Prompt
from service.domain.errors import GenerationFailed, InvalidRequest, ModelFileError, Unsupported
from service.domain.model import ModelInfo
from service.engine import library
from service.engine.planning import machine
from service.engine.seen import Rows
from service.log import get_logger

_TEXT, _IMAGE = mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT, mtmd.MTMD_INPUT_CHUNK_TYPE_IMAGE
# What is kept of pictures that conversations come back to.
_MAX_ROWS_BYTES = 256 * 1024 * 1024

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Looked:
    """A picture as the model is told of it: its places, and a row for each that is below zero."""

    token_ids: tuple[int, ...]
    rows: Rows


class Sight:
    """Pictures to rows. Tokenizer thread only, but for `open` and `close`."""

    def __init__(self, context: Any, width: int) -> None:
        self._context = context
        self._width = width
        self._marker: bytes = mtmd.mtmd_default_marker()
        self._known: OrderedDict[str, Looked] = OrderedDict()

    @classmethod
    def open(cls, projector: Path, model: Any) -> Sight:
        """Raises `ModelFileError` for what is no projector, none for this model, or one of a kind
        that is not served."""
        if not projector.is_file():
            raise ModelFileError(f"{projector} is not a file; name the model's projector file.")
        mtmd.mtmd_helper_log_set(library.log_callback(), ctypes.c_void_p())
        params = mtmd.mtmd_context_params_default()
        params.use_gpu = bool(llama.llama_supports_gpu_offload())
        params.print_timings = False
        params.warmup = False
        params.n_threads = machine.usable_cores()
        library.forget_errors()
        context = mtmd.mtmd_init_from_file(bytes(projector), model, params)
        if not context:
            raise ModelFileError(
                f"{projector} can't be used with this model: {library.last_error()}"
            )
        reason = _why_not(context)
        if reason:
            mtmd.mtmd_free(context)
            raise ModelFileError(f"{projector} can't be used: {reason}.")
        return cls(context, int(llama.llama_model_n_embd(model)))

    def close(self) -> None:
        self._known.clear()
        mtmd.mtmd_free(self._context)

    def look(self, prompt: Prompt, pictures: Sequence[bytes]) -> tuple[Prompt, Rows]:
        """The prompt with token ids where pictures are, and all rows in order. Raises
        `InvalidRequest` for what can't be unpacked."""
        if sum(bool(piece.picture) for piece in prompt) != len(pictures):
            raise GenerationFailed("The prompt's pictures did not come with it.")
        files, told, rows = iter(pictures), [], [np.empty((0, self._width), np.float32)]
        for piece in prompt:
            if not piece.picture:
                told.append(piece)
                continue
            looked = self._look_at(piece.picture, next(files))
            told.append(replace(piece, token_ids=looked.token_ids))
            rows.append(looked.rows)
        return tuple(told), np.concatenate(rows)

    def _look_at(self, digest: str, data: bytes) -> Looked:
        looked = self._known.get(digest)
        if looked is None:
            looked = self._known[digest] = self._read(digest, data)
        self._known.move_to_end(digest)
        while sum(each.rows.nbytes for each in self._known.values()) > _MAX_ROWS_BYTES:
            if len(self._known) == 1:
                break
            self._known.popitem(last=False)
        return looked

    def _read(self, digest: str, data: bytes) -> Looked:
        with ExitStack() as freeing:
            chunks = mtmd.mtmd_input_chunks_init()
            freeing.callback(mtmd.mtmd_input_chunks_free, chunks)
            bitmap = self._unpacked(data)
            freeing.callback(mtmd.mtmd_bitmap_free, bitmap)
            self._cut(bitmap, chunks)
            token_ids: list[int] = []
            rows = [np.empty((0, self._width), np.float32)]
            for index in range(mtmd.mtmd_input_chunks_size(chunks)):
                chunk = mtmd.mtmd_input_chunks_get(chunks, index)
                if mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
                    token_ids += _text_of(chunk)
                    continue
                if mtmd.mtmd_decode_use_non_causal(self._context, chunk):
                    raise Unsupported("This model looks ahead in pictures, which is not supported.")
                rows.append(self._encoded(chunk))
                token_ids += _places(digest, index, len(rows[-1]))
        return Looked(tuple(token_ids), np.concatenate(rows))

    def _unpacked(self, data: bytes) -> Any:
        buffer = (ctypes.c_uint8 * len(data)).from_buffer_copy(data)
        options = mtmd.mtmd_helper_init_opt_default()
        made = mtmd.mtmd_helper_bitmap_init_from_buf_wrapper(
            self._context, buffer, len(data), False, options
        )
        if not made.bitmap or mtmd.mtmd_bitmap_is_audio(made.bitmap):
            raise InvalidRequest("A picture can't be unpacked; its file is broken.")
        return made.bitmap

    def _cut(self, bitmap: Any, chunks: Any) -> None:
        """Into what the model is shown: whole, or in parts with words between."""
        text = mtmd.mtmd_input_text(self._marker, len(self._marker), False, True)
        bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
        if mtmd.mtmd_tokenize(self._context, chunks, ctypes.byref(text), bitmaps, 1):
            raise InvalidRequest("A picture can't be prepared for this model.")

    def _encoded(self, chunk: Any) -> Rows:
        if mtmd.mtmd_encode_chunk(self._context, chunk):
            raise GenerationFailed("A picture could not be read.")
        count = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        found = mtmd.mtmd_get_output_embd(self._context)
        rows: NDArray[np.float32] = np.ctypeslib.as_array(found, shape=(count, self._width)).copy()
        return rows


class Seeing(Protocol):
    """A runner whose model can be made to see."""

    model: Any
    info: ModelInfo
    notice: str | None


def give_sight(runner: Seeing, named: Path | None, model_path: Path) -> Sight | None:
    """What lets the model see, if there is a projector for it; to be closed before the runner.

    One that is no good leaves the model blind, and says so: what it can read is answered all the
    same.
    """
    projector = find_projector(named, model_path)
    if projector is None:
        return None
    try:
        sight = Sight.open(projector, runner.model)
    except ModelFileError as error:
        _log.error("projector_refused", reason=error.message)
        runner.notice = " ".join(filter(None, (runner.notice, error.message)))
        return None
    runner.info = replace(runner.info, sees=True)
    _log.info("model_sees", projector=projector.name)
    return sight


def find_projector(named: Path | None, model_path: Path) -> Path | None:
    """The file that was named, else the only one that lies beside the model."""
    if named is not None:
        return named
    beside = sorted(model_path.parent.glob("mmproj*.gguf"))
    if len(beside) > 1:
        _log.warning("projectors_ambiguous", files=[path.name for path in beside])
    return beside[0] if len(beside) == 1 else None


def _why_not(context: Any) -> str:
    if not mtmd.mtmd_support_vision(context):
        return "it is not for pictures"
    if mtmd.mtmd_decode_use_mrope(context):
        return "its model numbers places in two dimensions, which is not supported"
    if mtmd.mtmd_decode_use_non_causal(context, None):
        return "its model looks ahead in pictures, which is not supported"
    return ""


def _text_of(chunk: Any) -> list[int]:
    count = ctypes.c_size_t(0)
    tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
    return [int(tokens[i]) for i in range(count.value)]


def _places(digest: str, part: int, count: int) -> list[int]:
    """An id below zero for each row of a part of the picture."""
    told = b"".join(sha256(f"{digest}/{part}/{i}".encode()).digest()[:4] for i in range(count))
    places: list[int] = (-1 - (np.frombuffer(told, np.uint32) >> 1).astype(np.int64)).tolist()
    return places
