"""Dialogues as batches of token ids: rows of like length together, never packed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import torch
from tokenizers import Tokenizer
from torch import Tensor

from pocket.chat_format import render
from pocket.dialogues import conversation

SIZES = (64, 96, 128, 160, 208, 256, 320, 384, 448, 512, 640, 768, 1024, 1280, 1536)
IGNORED = -1  # target of a token that the model need not produce

Row = tuple[list[int], list[bool]]


def batches(
    tokenizer: Tokenizer, r: Random, num_tokens: int, drills: Callable[[], float]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (ids, targets) of about `num_tokens` each; rows of more than 1,536 are left out.

    `drills` says which share of the dialogues are mere copying at present.
    """
    bins: dict[int, list[Row]] = {size: [] for size in SIZES}
    padding = tokenizer.token_to_id("<|endoftext|>")
    while True:
        for ids, mask in _rows(tokenizer, r, drills(), 600):
            size = next((s for s in SIZES if len(ids) <= s + 1), None)
            if size is not None:
                bins[size].append((ids, mask))
        ready = []
        for size, rows in bins.items():
            per_batch = max(1, num_tokens // size)
            while len(rows) >= per_batch:
                ready.append(_padded(rows[:per_batch], size, padding))
                del rows[:per_batch]
        r.shuffle(ready)
        yield from ready


def _rows(tokenizer: Tokenizer, r: Random, drills: float, count: int) -> Iterator[Row]:
    drawn = [render(conversation(r, drills)) for _ in range(count)]
    coded = iter(tokenizer.encode_batch([text for pieces in drawn for text, _ in pieces]))
    for pieces in drawn:
        ids: list[int] = []
        mask: list[bool] = []
        for _, is_target in pieces:
            found = next(coded).ids
            ids += found
            mask += [is_target] * len(found)
        yield ids, mask


def _padded(rows: list[Row], size: int, padding: int) -> tuple[Tensor, Tensor]:
    x = torch.full((len(rows), size), padding)
    y = torch.full((len(rows), size), IGNORED)
    for i, (ids, mask) in enumerate(rows):
        x[i, : len(ids) - 1] = torch.tensor(ids[:-1])
        y[i, : len(ids) - 1] = torch.where(torch.tensor(mask[1:]), torch.tensor(ids[1:]), IGNORED)
    return x, y
