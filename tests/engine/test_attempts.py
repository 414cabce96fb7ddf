"""A start that is killed again and again takes less, and says so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from service.engine.planning.attempts import Attempts
from service.engine.planning.memory import Sizes

GIB = 2**30
WISH, HALF, QUARTER = Sizes(8, 4096), Sizes(4, 4096), Sizes(2, 4096)


@dataclass
class Machine:
    """Starts of one engine; the process of a start is gone by the time of the next."""

    folder: Path
    births: int = 0

    def start(
        self, wish: Sizes = WISH, planned: Sizes | None = None, limit: int = GIB
    ) -> tuple[Attempts, Sizes, str | None]:
        self.births += 1
        stat = self.folder / "proc" / str(os.getpid()) / "stat"
        stat.parent.mkdir(parents=True, exist_ok=True)
        stat.write_text(f"{os.getpid()} (an engine)) " + "0 " * 19 + str(self.births))
        attempts = Attempts(self.folder / "notes" / "attempts.json", self.folder / "proc")
        sizes, sentence = attempts.begin(wish, planned or wish, limit)
        return attempts, sizes, sentence


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_first_start_takes_what_was_planned(machine: Machine) -> None:
    assert machine.start()[1:] == (WISH, None)


def test_two_deaths_in_a_row_halve_it(machine: Machine) -> None:
    machine.start()
    assert machine.start()[1:] == (WISH, None)
    _, sizes, sentence = machine.start()
    assert sizes == HALF
    assert sentence == (
        "The engine died 2 times in a row before it had served, with more than 4 slots of 4096 "
        "tokens in 1.0 GiB of memory; it runs with 4 slots of 4096 tokens instead of 8 slots of "
        "4096 tokens."
    )


def test_and_halve_it_again(machine: Machine) -> None:
    sizes = [machine.start()[1] for _ in range(5)]
    assert sizes == [WISH, WISH, HALF, HALF, QUARTER]


def test_what_has_worked_before_is_preferred(machine: Machine) -> None:
    machine.start(Sizes(3, 4096))[0].worked()
    sizes = [machine.start()[1] for _ in range(3)]
    assert sizes == [WISH, WISH, Sizes(3, 4096)]


def test_what_has_worked_is_kept_and_still_told(machine: Machine) -> None:
    for _ in range(2):
        machine.start()
    machine.start()[0].worked()
    _, sizes, sentence = machine.start()
    assert sizes == HALF
    assert sentence


def test_an_end_that_nobody_forced_does_not_count(machine: Machine) -> None:
    for _ in range(5):
        attempts, sizes, _ = machine.start()
        assert sizes == WISH
        attempts.ended()


def test_deaths_after_it_has_worked_do_not_count(machine: Machine) -> None:
    for _ in range(5):
        attempts, sizes, _ = machine.start()
        assert sizes == WISH
        attempts.worked()


@pytest.mark.parametrize("change", [{"wish": Sizes(6, 4096)}, {"limit": 2 * GIB}])
def test_another_wish_or_more_memory_is_a_new_beginning(
    machine: Machine, change: dict[str, int]
) -> None:
    for _ in range(3):
        machine.start()
    _, sizes, sentence = machine.start(**change)  # type: ignore[arg-type]
    assert sizes == change.get("wish", WISH)
    assert sentence is None


def test_a_plan_that_is_smaller_anyway_wins(machine: Machine) -> None:
    for _ in range(3):
        machine.start()
    assert machine.start(planned=Sizes(1, 512))[1:] == (Sizes(1, 512), None)


def test_an_engine_that_is_still_running_has_not_died(machine: Machine) -> None:
    for _ in range(4):
        machine.births = 0
        assert machine.start()[1] == WISH


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", '{"wish": 8}', '{"wish": {"slots": 1}}']
)
def test_a_torn_file_is_no_file(machine: Machine, content: str) -> None:
    notes = machine.folder / "notes" / "attempts.json"
    notes.parent.mkdir()
    notes.write_text(content)
    assert machine.start()[1:] == (WISH, None)


def test_a_disk_that_refuses_prevents_nothing(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("a file where the folder should be")
    assert Machine(tmp_path).start()[1] == WISH
