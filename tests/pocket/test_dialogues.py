"""The training dialogues: reproducible, clean of what is held out, and in the model's format."""

from __future__ import annotations

import json
import re
from random import Random
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from pocket.cases import cases
from pocket.chat_format import NO_THOUGHT, TEMPLATE, Conversation, full_text, render
from pocket.dialogues import conversation
from pocket.heldout import HELD, HELD_TOOLS, HELD_WORDS, TAUGHT_WORDS, is_clean
from pocket.vocabulary import KNOWN, PHRASES

SEEN = [conversation(r, drills=0.1) for r in [Random(17)] for _ in range(1500)]


def said(text: str, tools: list[Any] | None = None) -> Conversation:
    messages = [{"role": "user", "content": text}, {"role": "assistant", "content": "Yes."}]
    return Conversation(messages, tools or [])


def test_the_same_seed_writes_the_same_dialogues() -> None:
    first = [full_text(conversation(r)) for r in [Random(3)] for _ in range(50)]
    again = [full_text(conversation(r)) for r in [Random(3)] for _ in range(50)]
    other = [full_text(conversation(r)) for r in [Random(4)] for _ in range(50)]
    assert first == again
    assert first != other


def test_no_held_out_word_or_tool_is_in_a_training_dialogue() -> None:
    words = "|".join(re.escape(word) for word in sorted(HELD_WORDS))
    found = re.compile(rf"(?<![^\W\d_])({words})(?![^\W\d_])", re.IGNORECASE)
    for dialogue in SEEN:
        text = full_text(dialogue)
        assert found.search(text) is None
        assert not [tool for tool in HELD_TOOLS if tool in text]


def test_no_question_of_the_checks_is_in_a_training_dialogue() -> None:
    too_plain = {"Hello!", "Thanks!", "Who are you?", "What is my name?"}
    asked = {
        turn
        for case in cases()
        if case.behaviour not in ("capitals", "facts", "no tool fits")
        for turn in case.turns
        if isinstance(turn, str) and not turn.startswith("Count ")
    } - too_plain
    between = {ask for case in cases() if case.behaviour == "memory 2-4" for ask in case.turns}
    for dialogue in SEEN:
        assert not (asked - between).intersection(dialogue.user_texts)


def test_no_written_phrase_is_a_held_out_one() -> None:
    asks = {ask for kind, asks in HELD.items() if kind.startswith("ask_") for ask in asks}
    asks |= {ask for group in HELD["simple"] for ask in group["asks"]}
    known = {ask for group in KNOWN["smalltalk"] for ask in group["asks"]}
    known |= {ask for kind, part in KNOWN.items() if kind.startswith("ask_") for ask in part}
    known |= {phrase for part in PHRASES.values() for phrase in part}
    assert asks & known == set(HELD["ask_repeat"]) & set(KNOWN["ask_repeat"])


def test_the_one_held_out_word_that_is_taught_is_the_answer_to_a_fact() -> None:
    assert {"giraffe"} == TAUGHT_WORDS
    assert any("giraffe" in value for value in KNOWN["facts"].values())


@pytest.mark.parametrize(
    ("text", "tools"),
    [
        ("Say: umbrella", []),
        ("My name is Giulia.", []),
        ("could you count from 3 up to 9?", []),
        ("Please name two fruits.", []),
        ("Howdy!", []),
        ("I forgot the capital of Peru. What is it?", []),
        ("Please turn this into JSON: a: b", []),
        ("Lock the door C7.", [{"name": "get_time"}]),
        ("Hi", [{"name": "lock_door"}]),
    ],
)
def test_what_is_held_out_is_recognised(text: str, tools: list[Any]) -> None:
    assert not is_clean(said(text, tools))


@pytest.mark.parametrize("text", ["Say: giraffe", "Count from 3 to 9.", "Umbrellas", "Hello!"])
def test_what_is_not_held_out_is_let_through(text: str) -> None:
    assert is_clean(said(text))


def test_the_chat_template_renders_the_training_format() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(TEMPLATE)
    for dialogue in SEEN[:400]:
        bare = Conversation(dialogue.messages, dialogue.tools)
        rendered = template.render(messages=bare.messages, tools=bare.tools)
        assert rendered == full_text(bare)


def test_a_prompt_without_thinking_is_a_prefix_of_the_next_one() -> None:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, **_: json.dumps(value, ensure_ascii=False)
    template = environment.from_string(TEMPLATE)
    messages = said("Hi").messages
    prompt = template.render(messages=messages[:1], add_generation_prompt=True)
    assert prompt.endswith(NO_THOUGHT)
    assert template.render(messages=messages).startswith(prompt)
    assert not template.render(
        messages=messages[:1], add_generation_prompt=True, enable_thinking=True
    ).endswith(NO_THOUGHT)


def test_every_dialogue_has_something_to_learn_and_ends_with_it() -> None:
    for dialogue in SEEN:
        pieces = render(dialogue)
        assert pieces[-1] == ("\n", False)
        assert pieces[-2][1]
        assert pieces[-2][0].endswith("<|im_end|>")


def test_every_skill_turns_up() -> None:
    text = "\n".join(full_text(dialogue) for dialogue in SEEN)
    for sign in (
        "How can I help you?",
        "You are welcome!",
        "I am Pocket",
        "The capital of",
        "I am only a small demo model",
        "```python",
        "The end.",
        "Your name is",
        "<tool_call>",
        "<tool_response>",
        '{"country": ',
        "- apple",
    ):
        assert sign in text
