"""Other people's clients, through their usual configuration, on a real service with Pocket."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.clients.tools import Tools
from tests.e2e.parley import Parley
from tests.waiting import until

pytestmark = [pytest.mark.clients, pytest.mark.timeout(900)]
QUESTION = "What is the capital of France?"

LITELLM = """
import json, litellm
litellm.telemetry = False
question = [{"role": "user", "content": "What is the capital of France?"}]
weather = {"type": "function", "function": {"name": "get_weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}
told = {}
for name, model, base in (("openai", "openai/pocket", URL + "/v1"),
                          ("anthropic", "anthropic/claude-sonnet-4-5", URL)):
    common = dict(model=model, api_base=base, api_key="none", temperature=0, max_tokens=60)
    plain = litellm.completion(messages=question, **common)
    pieces = [chunk.choices[0].delta.content or ""
              for chunk in litellm.completion(messages=question, stream=True, **common)]
    asked = [{"role": "user", "content": "What's the weather in Rome?"}]
    called = litellm.completion(messages=asked, tools=[weather], tool_choice="required", **common)
    try:
        litellm.completion(messages=question, **(common | {"model": model.split("/")[0] + "/x"}))
    except Exception as error:
        fault = type(error).__name__
    told[name] = {
        "plain": plain.choices[0].message.content, "stream": "".join(pieces),
        "tokens": plain.usage.total_tokens, "fault": fault,
        "calls": [call.function.name for call in called.choices[0].message.tool_calls],
    }
responded = litellm.responses(model="openai/pocket", input="What is the capital of France?",
                              api_base=URL + "/v1", api_key="none")
told["responses"] = responded.output[-1].content[0].text
print(json.dumps(told))
"""

LANGCHAIN = """
import json
from langchain_openai import ChatOpenAI
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

@tool
def get_weather(city: str) -> str:
    "The weather in a city."
    return "18 degrees and sunny in " + city

class Capital(BaseModel):
    "A capital."
    city: str

told = {}
for name, model in (
    ("openai", ChatOpenAI(model="pocket", base_url=URL + "/v1", api_key="none", temperature=0)),
    ("responses", ChatOpenAI(model="pocket", base_url=URL + "/v1", api_key="none",
                             use_responses_api=True)),
    ("anthropic", ChatAnthropic(model="claude-sonnet-4-5", base_url=URL, api_key="none",
                                temperature=0, max_tokens=200)),
):
    plain = model.invoke("What is the capital of France?")
    pieces = [chunk.text for chunk in model.stream("What is the capital of France?")]
    messages = [HumanMessage("What's the weather in Rome?")]
    called = model.bind_tools([get_weather], tool_choice="get_weather").invoke(messages)
    results = [ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])
               for call in called.tool_calls]
    final = model.bind_tools([get_weather]).invoke([*messages, called, *results])
    capital = model.with_structured_output(Capital, method="json_schema").invoke(
        "What is the capital of France?")
    told[name] = {
        "plain": plain.text, "stream": "".join(pieces),
        "tokens": plain.usage_metadata["total_tokens"],
        "calls": [call["name"] for call in called.tool_calls], "final": bool(final),
        "kind": type(capital).__name__,
    }
print(json.dumps(told))
"""


def say(tools: Tools, program: str, parley: Parley) -> dict[str, Any]:
    printed = tools.run("python", "-c", f"URL = {parley.url!r}\n{program}")
    told: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    return told


def requests_of(parley: Parley) -> list[str]:
    """The log's lines about finished HTTP requests, which may come after the answers."""
    return [line for line in parley.lines() if "request_finished" in line and '"method"' in line]


def test_litellm(parley: Parley, libraries: Tools) -> None:
    told = say(libraries, LITELLM, parley)
    for name in ("openai", "anthropic"):
        assert "Paris" in told[name]["plain"]
        assert told[name]["stream"] == told[name]["plain"]
        assert told[name]["calls"] == ["get_weather"]
        assert (told[name]["fault"], told[name]["tokens"] > 0) == ("NotFoundError", True)
    assert told["responses"]


def test_langchain(parley: Parley, libraries: Tools) -> None:
    for name, told in say(libraries, LANGCHAIN, parley).items():
        assert told["stream"], name
        assert (told["calls"], told["final"], told["kind"]) == (["get_weather"], True, "Capital")
        assert told["tokens"] > 0
        if name != "responses":  # which lets nobody ask for the likeliest word here
            assert "Paris" in told["plain"]
            assert told["stream"] == told["plain"]


def test_llm(parley: Parley, libraries: Tools) -> None:
    settings = libraries.home / "llm"
    settings.mkdir()
    (settings / "extra-openai-models.yaml").write_text(
        f"- model_id: parley\n  model_name: pocket\n  api_base: {parley.url}/v1\n"
        "  supports_tools: true\n  supports_schema: true\n"
    )
    variables = {"LLM_USER_PATH": str(settings), "OPENAI_API_KEY": "none"}
    asked = ("-m", "parley", "-o", "temperature", "0", QUESTION)
    assert "Paris" in libraries.run("llm", *asked, **variables)
    assert "Paris" in libraries.run("llm", *asked, "--no-stream", **variables)
    told = libraries.run("llm", *asked, "--schema", "city, country", "--no-stream", **variables)
    assert set(json.loads(told)) == {"city", "country"}
    asked = ("-m", "parley", "What is the time?", "-T", "llm_time", "--no-stream")
    assert libraries.run("llm", *asked, **variables).strip()
    assert "parley" in libraries.run("llm", "logs", "-n", "1", **variables)


@pytest.mark.parametrize(
    ("model", "variables"),
    [
        ("openai/pocket", {"OPENAI_API_BASE": "{url}/v1", "OPENAI_API_KEY": "none"}),
        (
            "anthropic/claude-pocket",  # unknown to aider, which goes on with cut answers of others
            {"ANTHROPIC_API_BASE": "{url}", "ANTHROPIC_API_KEY": "none"},
        ),
    ],
    ids=["openai", "anthropic"],
)
def test_aider(parley: Parley, aider: Tools, model: str, variables: dict[str, str]) -> None:
    """Pocket edits nothing; what counts is that a session is held and no request is refused."""
    repository = aider.home / "work"
    repository.mkdir()
    (repository / "hello.py").write_text('print("hello")\n')
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *command.split()], cwd=repository, check=True)
    before = len(requests_of(parley))
    printed = aider.run(
        "aider",
        *("--model", model, "--message", "Say hello.", "--yes-always", "--no-auto-commits"),
        *("--no-check-update", "--no-show-model-warnings", "--no-analytics", "--map-tokens", "0"),
        *("--edit-format", "whole", "--weak-model", model, "--no-gitignore", "--no-pretty"),
        *("--no-fancy-input", "--no-detect-urls", "hello.py"),
        at="work",
        **{name: value.format(url=parley.url) for name, value in variables.items()},
    )
    assert "Added hello.py to the chat" in printed, printed
    requests = until(lambda: requests_of(parley)[before:])
    assert all('"status": 200' in line for line in requests), requests
