"""From a tokenized request to a sequence, or to the sentence that says why not."""

from __future__ import annotations

from service.domain.chat import PromptPiece
from service.domain.errors import ContextLengthExceeded, InvalidRequest
from service.engine.runner import Matcher, ModelRunner, Spelling
from service.engine.sequence import Job, Sequence
from service.engine.text import TextStream
from service.engine.thought import create_thought


def create_sequence(
    job: Job, token_ids: list[int], runner: ModelRunner, matcher: Matcher | None = None
) -> Sequence:
    """What `job` asks for, bounded by what a slot can hold, and held to `matcher`.

    A prompt must leave room for one token; a larger `max_tokens` means the room there is. Raises
    `ContextLengthExceeded` with the exact numbers, or `InvalidRequest`.
    """
    room = runner.slot_length - len(token_ids)
    if not token_ids:
        raise InvalidRequest("The prompt is empty; it must have at least one token.")
    if room < 1:
        raise ContextLengthExceeded(
            f"The prompt has {len(token_ids)} tokens, but the context holds "
            f"{runner.slot_length}, at least one of them for the answer; send at most "
            f"{runner.slot_length - 1} tokens."
        )
    if token_ids[-1] < 0:
        raise InvalidRequest("The prompt ends with a picture; it must end with words.")
    said = token_ids if job.seen is None else [i for i in token_ids if i >= 0]
    wanted = job.submit.max_tokens
    return Sequence(
        job,
        token_ids,
        max_tokens=room if wanted is None else min(wanted, room),
        sampler=runner.create_sampler(job.submit.sampling, said, matcher),
        text=TextStream(job.submit.stop),
        thought=create_thought(job.submit, runner.spelling),
        shown=_shown(job.submit.shown_tokens, runner.spelling),
    )


def _shown(spellings: tuple[str, ...], spelling: Spelling) -> dict[int, bytes]:
    """The tokens of these spellings; what is no token of its own shows itself."""
    shown = {}
    for text in spellings:
        token_ids = spelling.content((PromptPiece(text, trusted=True),))
        if len(token_ids) == 1:
            shown[token_ids[0]] = text.encode()
    return shown
