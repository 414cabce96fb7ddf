"""Asks a GGUF the held-out questions, through llama.cpp, and grades the answers."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment
from llama_cpp import Llama

from pocket.cases import Case, cases, smoke
from pocket.chat_format import Message
from pocket.grades import calls_of

UNCOUNTED = ("smoke", "forced call")  # not held out, so not part of the pass rate
MAX_TOKENS = 500

Results = dict[str, list[bool]]


class Chat:
    """A loaded GGUF with the chat template that it carries."""

    def __init__(self, path: Path, *, thinking: bool = False, temperature: float = 0.0) -> None:
        # One thread: the model is tiny, and several wait for one another on a busy machine.
        self.llm = Llama(
            str(path), n_ctx=2048, n_threads=1, n_threads_batch=1, verbose=False, seed=1
        )
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda x, **_: json.dumps(x, ensure_ascii=False)
        self.template = environment.from_string(self.llm.metadata["tokenizer.chat_template"])
        self.thinking, self.temperature = thinking, temperature
        self.num_tokens, self.seconds, self.num_thoughts = 0, 0.0, 0

    def answer(self, messages: list[Message], tools: list[Message], given: str = "") -> str:
        """The answer without its thought; `given` is how it has to begin."""
        extra: dict[str, Any] = {"enable_thinking": True} if self.thinking and not given else {}
        prompt = self.template.render(
            messages=messages, tools=tools, add_generation_prompt=True, **extra
        )
        start = time.monotonic()
        reply = self.llm.create_completion(
            prompt + given,
            max_tokens=MAX_TOKENS,
            temperature=self.temperature,
            stop=["<|im_end|>"],
        )
        self.seconds += time.monotonic() - start
        self.num_tokens += reply["usage"]["completion_tokens"]
        text: str = given + reply["choices"][0]["text"]
        thought = re.match(r"<think>\n(.+?)\n</think>\n\n", text, re.DOTALL)
        self.num_thoughts += thought is not None
        return text[thought.end() :] if thought else text

    def ask(self, case: Case) -> str:
        """The last answer of a case, after the turns before it."""
        messages: list[Message] = []
        reply = ""
        for turn, after in zip(case.turns, [*case.turns[1:], None], strict=True):
            if isinstance(turn, str):
                messages.append({"role": "user", "content": turn})
            else:
                if messages[-1]["role"] == "assistant":
                    made = [call for call in calls_of(reply) if call]
                    messages[-1] = {"role": "assistant", "content": "", "tool_calls": made}
                messages.append(turn)
            if isinstance(turn, str) or not isinstance(after, dict):
                reply = self.answer(messages, case.tools, case.given)
                messages.append({"role": "assistant", "content": reply})
        return reply


def grade(chat: Chat, asked: Iterable[Case], show: int = 0) -> Results:
    """Pass or fail of every case, by behaviour; prints the first `show` failures of each."""
    results: Results = defaultdict(list)
    for case in asked:
        reply = chat.ask(case)
        passed = case.grade(reply)
        results[case.behaviour].append(passed)
        if not passed and results[case.behaviour].count(False) <= show:
            turns = [t if isinstance(t, str) else t["content"] for t in case.turns]
            print(f"  [{case.behaviour}] {turns!r} -> {reply!r}"[:500])
    return results


def grade_all(chat: Chat, *, every: int = 1, show: int = 0) -> Results:
    """Every n-th held-out case, and all smoke tests."""
    return grade(chat, [*islice(cases(), 0, None, every), *smoke()], show)


def pass_rate(results: Results) -> float:
    """The share of held-out cases that passed."""
    counted = [ok for kind, part in results.items() if kind not in UNCOUNTED for ok in part]
    return sum(counted) / len(counted)


def print_table(results: Results) -> float:
    """Print a table in Markdown; returns the pass rate of the held-out cases."""
    counted = {kind: part for kind, part in results.items() if kind not in UNCOUNTED}
    held_out = [ok for part in counted.values() for ok in part]
    print("| behaviour | passed | |\n|---|---:|---:|")
    for kind, part in [*counted.items(), ("all held-out cases", held_out)]:
        print(f"| {kind} | {sum(part)} / {len(part)} | {100 * sum(part) / len(part):.0f} % |")
    for kind in UNCOUNTED:
        if kind in results:
            print(f"| *{kind}* | {sum(results[kind])} / {len(results[kind])} | |")
    return pass_rate(results)
