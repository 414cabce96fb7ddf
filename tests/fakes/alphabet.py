"""The alphabet of the fake model: bytes, and the end of an answer."""

from __future__ import annotations

from llguidance import LLTokenizer, TokenizerWrapper

from service.engine.grammar.alphabet import Alphabet
from service.engine.spellings import Spellings

END = 256
NAMED = {END: b"<end>", 257: b"<tool_call>"}


class ByteTokenizer:
    """What `TokenizerWrapper` asks for: every byte is a token, and so are a few names."""

    eos_token_id = END
    bos_token_id = None

    def __init__(self) -> None:
        self.tokens = [bytes([i]) for i in range(END)] + [b"\xff" + n for n in NAMED.values()]

    def __call__(self, text: bytes) -> list[int]:
        return list(text)


def create_alphabet() -> Alphabet:
    spellings = Spellings([bytes([i]) for i in range(END)] + list(NAMED.values()))
    return Alphabet(
        spellings, frozenset({END}), lambda: LLTokenizer(TokenizerWrapper(ByteTokenizer()))
    )
