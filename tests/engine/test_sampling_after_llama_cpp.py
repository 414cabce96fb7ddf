"""Our samplers beside llama.cpp's own, on the same logits."""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import llama_cpp.llama_cpp as llama
import numpy as np
import pytest

from service.domain.sampling import Sampling
from service.engine.llama import LlamaRunner
from service.engine.sampling.candidates import Row
from service.engine.sampling.dry import Dry
from service.engine.sampling.mirostat import Mirostat
from service.engine.sampling.penalties import Penalties
from service.engine.sampling.truncation import choose

Shares = dict[int, float]
Chain = Sequence[Any]
TOKEN = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

# Below this, single precision decides who is asked for.
VISIBLE = 1e-5


def likely(size: int, seed: int) -> Row:
    """Logits shaped like a language model's: a bulk far below, some tokens on top."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, size).astype(np.float32)
    logits[rng.permutation(size)[:60]] += rng.uniform(6, 14, 60).astype(np.float32)
    return logits


def flat(size: int, seed: int) -> Row:
    return np.random.default_rng(seed).normal(0, 1, size).astype(np.float32)


class Applied:
    """What a chain of llama.cpp's samplers, which are freed, makes of a row."""

    def __init__(self, logits: Row, chain: Chain, accepted: Sequence[int] = ()) -> None:
        tokens = np.zeros(logits.size, TOKEN)
        tokens["id"], tokens["logit"] = np.arange(logits.size), logits
        data = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
        array = llama.llama_token_data_array(data, logits.size, -1, False)
        with ExitStack() as freeing:
            for sampler in chain:
                freeing.callback(llama.llama_sampler_free, sampler)
                for token_id in accepted:
                    llama.llama_sampler_accept(sampler, token_id)
                llama.llama_sampler_apply(sampler, ctypes.byref(array))
        # The array may begin further behind now (XTC).
        skipped = (ctypes.addressof(array.data.contents) - tokens.ctypes.data) // TOKEN.itemsize
        left = tokens[skipped : skipped + array.size]
        self.ids, self.logits = left["id"], left["logit"].astype(np.float64)
        self.selected = int(left["id"][array.selected]) if array.selected >= 0 else None

    def shares(self) -> Shares:
        weights = np.exp(self.logits - self.logits.max())
        probabilities = weights / weights.sum()
        found = zip(self.ids.tolist(), probabilities.tolist(), strict=True)
        return {token_id: p for token_id, p in found if p > 0}


def numbers(*values: float) -> Callable[[], float]:
    return iter(values).__next__


def assert_same(
    expected: Shares, logits: Row, sampling: Sampling, *, by_id: bool = False, first: float = -1.0
) -> None:
    """Each of up to 50 tokens comes at the middle of its share. Shares are laid out best first,
    or by id. Where thousands are kept, single precision may move the last of them."""
    order = sorted(expected) if by_id else sorted(expected, key=lambda i: -logits[i])
    ends = dict(zip(order, itertools.accumulate(expected[i] for i in order), strict=True))
    chances = (first,) if first >= 0 else ()
    visible = [i for i in order if expected[i] > VISIBLE]
    for token_id in visible[:: max(1, len(visible) // 50)]:
        draw = ends[token_id] - expected[token_id] / 2
        chosen = choose(logits, sampling, numbers(*chances, min(draw, math.nextafter(1, 0))))
        assert chosen == token_id or ends[chosen] == pytest.approx(ends[token_id], abs=5e-4)


TRUNCATIONS: dict[str, tuple[dict[str, Any], Callable[[], Chain]]] = {
    "top-k": ({"top_k": 40}, lambda: [llama.llama_sampler_init_top_k(40)]),
    "top-k of most": ({"top_k": 3000}, lambda: [llama.llama_sampler_init_top_k(3000)]),
    "top-p": ({"top_p": 0.9}, lambda: [llama.llama_sampler_init_top_p(0.9, 0)]),
    "min-p": ({"min_p": 0.05}, lambda: [llama.llama_sampler_init_min_p(0.05, 0)]),
    "typical": ({"typical_p": 0.7}, lambda: [llama.llama_sampler_init_typical(0.7, 0)]),
    "sigma": ({"top_n_sigma": 1.5}, lambda: [llama.llama_sampler_init_top_n_sigma(1.5)]),
    "all": (
        {"top_n_sigma": 4.0, "top_k": 20, "typical_p": 0.95, "top_p": 0.9, "min_p": 0.02},
        lambda: [
            llama.llama_sampler_init_top_n_sigma(4.0),
            llama.llama_sampler_init_top_k(20),
            llama.llama_sampler_init_typical(0.95, 0),
            llama.llama_sampler_init_top_p(0.9, 0),
            llama.llama_sampler_init_min_p(0.02, 0),
        ],
    ),
}

# More than so many are laid out by id.
MANY = {"top-p": 64, "min-p": 512}


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.6])
@pytest.mark.parametrize("shape", [likely, flat])
@pytest.mark.parametrize("size", [1000, 20_000], ids=["small", "large"])
@pytest.mark.parametrize("name", TRUNCATIONS)
def test_truncation_keeps_what_llama_cpp_keeps_and_as_likely(
    name: str, size: int, shape: Callable[[int, int], Row], temperature: float
) -> None:
    options, chain = TRUNCATIONS[name]
    logits = shape(size, 7)
    applied = Applied(logits, [*chain(), llama.llama_sampler_init_temp(temperature)])
    expected = applied.shares()
    by_id = len(expected) > MANY.get(name, size)
    assert_same(expected, logits, Sampling(temperature=temperature, **options), by_id=by_id)


@pytest.mark.parametrize("shape", [likely, flat])
@pytest.mark.parametrize("size", [1000, 20_000], ids=["small", "large"])
@pytest.mark.parametrize("top_k", [0, 30])
def test_xtc_drops_the_top_choices(size: int, shape: Callable[[int, int], Row], top_k: int) -> None:
    logits = shape(size, 3)
    chain = [llama.llama_sampler_init_top_k(top_k)] if top_k else []
    expected = Applied(logits, [*chain, llama.llama_sampler_init_xtc(1.0, 0.05, 0, 1)]).shares()
    sampling = Sampling(xtc_probability=0.5, xtc_threshold=0.05, top_k=top_k)
    assert_same(expected, logits, sampling, by_id=not top_k and shape is likely, first=0.3)
    plain = Applied(logits, [llama.llama_sampler_init_top_k(30)]).shares()
    assert_same(plain, logits, replace(sampling, top_k=30), first=0.6)


@pytest.mark.parametrize("shape", [likely, flat])
@pytest.mark.parametrize("top_k", [0, 30])
@pytest.mark.parametrize("exponent", [1.0, 0.5])
def test_the_temperature_follows_the_entropy(
    shape: Callable[[int, int], Row], top_k: int, exponent: float
) -> None:
    logits = shape(5000, 5)
    chain = [llama.llama_sampler_init_top_k(top_k)] if top_k else []
    applied = Applied(logits, [*chain, llama.llama_sampler_init_temp_ext(0.8, 0.5, exponent)])
    sampling = Sampling(
        temperature=0.8, dynatemp_range=0.5, dynatemp_exponent=exponent, top_k=top_k
    )
    assert_same(applied.shares(), logits, sampling, by_id=not top_k and shape is likely)


def mirostats(version: int, seed: int) -> Iterator[tuple[Row, Mirostat, Any]]:
    tau, eta, size = 3.0, 0.2, 2000
    ours = Mirostat(
        Sampling(mirostat=version, mirostat_tau=tau, mirostat_eta=eta, temperature=0.9),
        lambda: 0.0,
    )
    if version == 1:
        theirs = llama.llama_sampler_init_mirostat(size, seed, tau, eta, 100)
    else:
        theirs = llama.llama_sampler_init_mirostat_v2(seed, tau, eta)
    for step in range(25):
        yield likely(size, 100 * seed + step), ours, theirs
    llama.llama_sampler_free(theirs)


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_keeps_what_llama_cpp_keeps_while_its_limit_moves(version: int) -> None:
    """Both are given the token that llama.cpp drew, and must then agree on the next kept set."""
    for logits, ours, theirs in mirostats(version, seed=11):
        kept, chosen = mirostat_step(theirs, logits)
        ids = sorted(kept, key=lambda i: -logits[i])
        ends = np.cumsum([kept[i] for i in ids])
        for token_id, end in zip(ids, ends.tolist(), strict=True):
            if kept[token_id] > VISIBLE:
                ours._random = numbers(end - kept[token_id] / 2)
                assert ours.choose(logits) == token_id
        place = ids.index(chosen)
        ours._random = numbers(float(ends[place]) - kept[chosen] / 2)
        assert ours.choose(logits) == chosen
        ours.accept()


def mirostat_step(sampler: Any, logits: Row) -> tuple[Shares, int]:
    tokens = np.zeros(logits.size, TOKEN)
    tokens["id"], tokens["logit"] = np.arange(logits.size), logits / np.float32(0.9)
    data = tokens.ctypes.data_as(ctypes.POINTER(llama.llama_token_data))
    array = llama.llama_token_data_array(data, logits.size, -1, False)
    llama.llama_sampler_apply(sampler, ctypes.byref(array))
    left = tokens[: array.size]
    shares = dict(zip(left["id"].tolist(), left["p"].tolist(), strict=True))
    return shares, int(left["id"][array.selected])


@pytest.mark.parametrize("window", [0, 5, 64, 500])
def test_penalties_are_llama_cpps(window: int) -> None:
    logits = flat(300, 1)
    tail = np.random.default_rng(2).integers(0, 300, 200).tolist()
    options = Sampling(
        repeat_penalty=1.3, repeat_last_n=window, frequency_penalty=0.4, presence_penalty=0.2
    )
    theirs = Applied(logits, [llama.llama_sampler_init_penalties(300, window, 1.3, 0.4, 0.2)], tail)
    ours = logits.copy()
    penalties = Penalties.of(options, tail)
    if penalties is not None:
        ours[penalties.ids()] = penalties.apply(logits[penalties.ids()])
    assert np.allclose(ours, theirs.logits, atol=1e-6)


@pytest.mark.model
@pytest.mark.parametrize("window", [20, 64, 400])
@pytest.mark.parametrize("breakers", [(), ("\n", ":", '"', "*"), ("the", " a b", "is")])
def test_dry_is_llama_cpps_after_every_token_and_after_any_prompt(
    pocket: LlamaRunner, window: int, breakers: tuple[str, ...]
) -> None:
    vocabulary = pocket._vocabulary
    options = Sampling(
        dry_multiplier=0.8, dry_penalty_last_n=window, dry_sequence_breakers=breakers
    )
    tokens = repetitive(vocabulary.pieces)
    logits = np.zeros(vocabulary.size, np.float32)
    one = Dry(options, vocabulary.breakers(breakers), [])
    for length, token_id in enumerate(tokens, 1):
        one.accept(token_id)
        if length % 7 and length < 150:
            continue
        tail = tokens[:length]
        expected = Applied(logits, [dry_of(vocabulary, options)], tail[-window:]).logits
        other = Dry(options, vocabulary.breakers(breakers), tail)
        for ours in (one, other):
            off = ours.penalties()
            found = logits.copy()
            if off is not None:
                found[off[0]] -= off[1]
            assert np.allclose(found, expected, rtol=1e-5)


def repetitive(pieces: Iterable[bytes]) -> list[int]:
    """Tokens of a small choice, some of them breakers, with a long stretch that comes twice."""
    known = (b"the", b" a", b"is", b":", b"\n")
    few = [*range(300, 304), *(i for i, piece in enumerate(pieces) if piece in known)]
    tokens: list[int] = np.random.default_rng(4).choice(few, 250).tolist()
    tokens[120:200] = tokens[20:100]
    tokens[220:250] = [few[0]] * 30
    return tokens


def dry_of(vocabulary: Any, options: Sampling) -> Any:
    texts = [text.encode() for text in options.dry_sequence_breakers]
    array = (ctypes.c_char_p * len(texts))(*texts)
    return llama.llama_sampler_init_dry(
        vocabulary._vocab,
        options.dry_multiplier,
        options.dry_base,
        options.dry_allowed_length,
        options.dry_penalty_last_n,
        array,
        len(texts),
    )
