"""How many slots fit, and what is said when none do."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.errors import ModelFileError
from service.engine.planning.memory import Need, Sizes, Wish, plan_memory, smaller, wish_of
from service.settings import EngineSettings

MIB = 2**20
PATH = Path("m.gguf")


def need_of(sizes: Sizes) -> Need:
    """Qwen2.5 0.5B, as llama.cpp reports it: 12 KiB a token."""
    conversations = sizes.total * 12 * 1024
    return Need(398 * MIB, conversations, (40 + sizes.slots) * MIB, process=100 * MIB)


WISH = Wish(Sizes(8, 4096))


def test_enough_memory_is_no_matter() -> None:
    plan = plan_memory(PATH, WISH, need_of, need_of(WISH.sizes).total)
    assert (plan.sizes, plan.notice) == (WISH.sizes, None)


def test_slots_go_first_and_it_is_told() -> None:
    plan = plan_memory(PATH, WISH, need_of, 800 * MIB)
    assert plan.sizes == Sizes(5, 4096)
    assert plan.notice == (
        "m runs with 5 slots of 4096 tokens instead of 8 slots of 4096 tokens, which would need "
        "930 MiB of memory where 800 MiB is available."
    )


def test_then_the_context_gets_shorter() -> None:
    assert plan_memory(PATH, WISH, need_of, 570 * MIB).sizes == Sizes(1, 2560)


@pytest.mark.parametrize(
    ("wish", "sizes"),
    [
        (Wish(Sizes(8, 4096), slots_are_fixed=True), Sizes(8, 1536)),
        (Wish(Sizes(8, 4096), cells_are_fixed=True), Sizes(3, 4096)),
    ],
)
def test_what_the_operator_fixed_stays(wish: Wish, sizes: Sizes) -> None:
    assert plan_memory(PATH, wish, need_of, 700 * MIB).sizes == sizes


@pytest.mark.parametrize(
    ("available", "advice"),
    [
        (800 * MIB, r"5 slots of 4096 tokens would fit \(PARLEY_ENGINE__SLOTS=5"),
        (570 * MIB, r"1 slot of 2560 tokens would fit .*CONTEXT_LENGTH=2560"),
        (
            300 * MIB,
            r"even 1 slot of 512 tokens takes 545 MiB, of which its weights are 398 MiB: use",
        ),
    ],
)
def test_what_is_fixed_and_does_not_fit_is_refused(available: int, advice: str) -> None:
    wish = Wish(Sizes(8, 4096), slots_are_fixed=True, cells_are_fixed=True)
    with pytest.raises(ModelFileError, match=f"m.gguf needs 930 MiB.*{advice}") as caught:
        plan_memory(PATH, wish, need_of, available)
    assert "\n" not in caught.value.message


def test_a_context_too_short_for_a_chat_is_refused() -> None:
    with pytest.raises(ModelFileError, match="even 1 slot of 512 tokens takes 545 MiB"):
        plan_memory(PATH, WISH, need_of, 542 * MIB)


@given(
    available=st.integers(500, 3000),
    slots=st.integers(1, 64),
    blocks=st.integers(2, 64),
)
def test_what_is_chosen_fits_and_nothing_larger_does(
    available: int, slots: int, blocks: int
) -> None:
    wish = Wish(Sizes(slots, blocks * 256))
    try:
        sizes = plan_memory(PATH, wish, need_of, available * MIB).sizes
    except ModelFileError:
        assert need_of(Sizes(1, 512)).total > available * MIB
        return
    assert need_of(sizes).total <= available * MIB
    if sizes.slots > 1:
        assert sizes.cells == wish.sizes.cells
    if sizes != wish.sizes:
        larger = (
            Sizes(sizes.slots + 1, sizes.cells)
            if sizes.cells == wish.sizes.cells
            else Sizes(1, sizes.cells + 256)
        )
        assert need_of(larger).total > available * MIB


def test_only_what_was_set_is_fixed() -> None:
    assert wish_of(EngineSettings(), 3000) == Wish(Sizes(8, 3072))
    assert wish_of(EngineSettings(slots=2), 10**6) == Wish(Sizes(2, 4096), slots_are_fixed=True)
    wish = wish_of(EngineSettings(context_length=1000), 10**6)
    assert wish == Wish(Sizes(8, 1024), cells_are_fixed=True)


def test_half_as_much_has_an_end() -> None:
    sizes: Sizes | None = Sizes(5, 4096)
    seen = []
    while sizes is not None:
        seen.append((sizes.slots, sizes.cells))
        sizes = smaller(sizes)
    assert seen == [(5, 4096), (2, 4096), (1, 4096), (1, 2048), (1, 1024), (1, 512)]
