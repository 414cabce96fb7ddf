"""The tokenizer: byte-level BPE with the pre-tokenizer that llama.cpp calls `qwen2`."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from pocket.chat_format import SPECIALS, full_text
from pocket.dialogues import conversation

SHIPPED = Path(__file__).with_name("tokenizer.json")
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def load(path: Path = SHIPPED) -> Tokenizer:
    """A tokenizer from its file. A new vocabulary would not fit the shipped weights."""
    return Tokenizer.from_file(str(path))


def train(size: int, num_dialogues: int = 8000) -> Tokenizer:
    """A new tokenizer from fresh dialogues; only for a model that starts from nothing."""
    r, texts = Random(7), []
    for _ in range(num_dialogues):
        text = full_text(conversation(r))
        for special in SPECIALS:
            text = text.replace(special, "\n")
        texts.append(text)
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), "isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=SPECIALS, show_progress=False, initial_alphabet=alphabet
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def word_pieces(tokenizer: Tokenizer) -> list[str]:
    """The tokens that are pieces of words, for words made up of them."""
    pieces = (token.lstrip("Ġ") for token in tokenizer.get_vocab())
    return sorted({p for p in pieces if p.isascii() and p.isalpha()})
