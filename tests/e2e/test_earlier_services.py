"""The documents of five earlier services, replayed: every request they show, against this one.

The shell commands are theirs, but for the address; only what they promise is asserted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import service.models
from tests.e2e.parley import Parley, running_parley
from tests.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.model]

POCKET = Path(service.models.__file__).parent / "pocket.gguf"
NODE = shutil.which("node")


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    """Configured as the last of them was: by its own names."""
    environment = {
        "MODEL_PATH": str(POCKET),
        "MODEL_NAME": "llama-local",
        "N_CTX": "1024",
        "N_GPU_LAYERS": "40",
        "MAX_TOKENS_HARD_CAP": "128",
        "LLM_LOG_LEVEL": "INFO",
        "LLM_MAX_CONVERSATION_LENGTH": "50",
    }
    folder = tmp_path_factory.mktemp("earlier")
    with running_parley(folder, environment=environment) as running:
        running.wait_healthy()
        yield running


def shell(parley: Parley, command: str) -> str:
    """Run a documented command with our address in it."""
    for address in ("http://localhost:8000", "http://localhost:8002"):
        command = command.replace(address, parley.url)
    done = subprocess.run(
        ["bash", "-ec", command.replace("curl ", "curl -sS --fail-with-body ")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def reply(parley: Parley, command: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shell(parley, command))
    return found


# --- the local chatbot API ------------------------------------------------------------------


def test_the_chatbot_api_answers_user_input(parley: Parley) -> None:
    told = reply(
        parley,
        """curl -X POST "http://localhost:8000/chat" \\
  -H "Content-Type: application/json" \\
  -d '{"user_input": "Explain quantization in plain English."}'""",
    )
    assert list(told) == ["reply"]
    asked = parley.client.post(f"{parley.url}/chat", json={"user_input": "What is token sampling?"})
    assert asked.json()["reply"]
    status = reply(parley, "curl http://localhost:8000/")
    assert (status["status"], status["message"]) == ("ok", "Chatbot API is running.")
    assert httpx.post(f"{parley.url}/chat", json={}, timeout=60).status_code == 422


# --- the local chatbot web app --------------------------------------------------------------


def test_the_web_app_streams_raw_tokens_up_to_its_end_mark(parley: Parley) -> None:
    """What its page does with the bytes; the page itself is run in tests/browser."""
    page = httpx.get(f"{parley.url}/", headers={"Accept": "text/html"}, timeout=60)
    assert page.headers["content-type"].startswith("text/html")
    streamed = httpx.post(f"{parley.url}/chat/stream", json={"user_input": "Hello!"}, timeout=60)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    frames = [f[6:] for f in streamed.text.split("\n\n") if f.startswith("data: ")]
    assert frames[-1] == "[END]"
    assert "".join(frames[:-1]).strip()


# --- the LLaMA chat API ---------------------------------------------------------------------


def test_the_chat_api_describes_itself_and_its_health(parley: Parley) -> None:
    facts = reply(parley, "curl http://localhost:8002/")
    assert {"service", "version", "docs", "health"} <= set(facts)
    health = reply(parley, "curl http://localhost:8002/health")
    assert (health["status"], health["model_loaded"]) == ("healthy", True)
    assert "<html" in shell(parley, "curl http://localhost:8002/docs").lower()
    assert "<html" in shell(parley, "curl http://localhost:8002/redoc").lower()


def test_the_chat_api_answers_and_keeps_sessions(parley: Parley) -> None:
    first = reply(
        parley,
        """curl -X POST "http://localhost:8002/chat" \\
  -H "Content-Type: application/json" \\
  -d '{
    "message": "What is Python?",
    "temperature": 0.7
  }'""",
    )
    assert set(first) == {"response", "session_id", "tokens_used"}
    reply(
        parley,
        """curl -X POST "http://localhost:8002/chat" \\
  -H "Content-Type: application/json" \\
  -d '{
    "message": "Write a haiku about AI",
    "temperature": 0.9,
    "max_tokens": 100
  }'""",
    )
    sessions = reply(parley, "curl http://localhost:8002/sessions")
    assert first["session_id"] in sessions["sessions"]
    assert sessions["count"] == len(sessions["sessions"])
    cleared = reply(
        parley,
        """curl -X POST "http://localhost:8002/chat/clear" \\
  -H "Content-Type: application/json" \\
  -d '{"session_id": "SESSION"}'""".replace("SESSION", first["session_id"]),
    )
    assert cleared == {"status": "cleared", "session_id": first["session_id"]}
    unknown = parley.client.post(
        f"{parley.url}/chat/clear", json={"session_id": first["session_id"]}
    )
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == "Session not found"
    empty = parley.client.post(f"{parley.url}/chat", json={"message": " "})
    assert (empty.status_code, empty.json()["detail"]) == (400, "Message cannot be empty")


def test_the_chat_api_streams_json_lines_until_done(parley: Parley) -> None:
    """The loop of its Python example."""
    tokens, complete = [], False
    body = {"message": "Tell me a short story"}
    with httpx.stream("POST", f"{parley.url}/chat/stream", json=body, timeout=60) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                data = json.loads(line[6:])
                if "token" in data:
                    tokens.append(data["token"])
                elif "done" in data:
                    complete = True
                    break
    assert complete
    assert "".join(tokens).strip()


class ChatClient:
    """As its Python client does: the session of each reply goes with the next message."""

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.session_id: str | None = None

    def chat(self, message: str) -> str:
        payload = {"message": message, "temperature": 0.7}
        if self.session_id:
            payload["session_id"] = self.session_id
        response = httpx.post(f"{self.base_url}/chat", json=payload, timeout=60)
        response.raise_for_status()
        data = response.json()
        self.session_id = data["session_id"]
        return str(data["response"])


def test_the_chat_api_s_python_client_holds_a_conversation(parley: Parley) -> None:
    client = ChatClient(parley.url)
    assert client.chat("Hello!")
    first = client.session_id
    assert client.chat("What did I just say?")
    assert client.session_id == first


@pytest.mark.skipif(NODE is None, reason="there is no node on this machine")
def test_the_chat_api_s_javascript_client_holds_a_conversation(parley: Parley) -> None:
    """Its class, on a stand-in for the HTTP library that it names."""
    program = """
const axios = {
  async post(url, data) {
    const reply = await fetch(url, {method: 'POST', body: JSON.stringify(data),
      headers: {'Content-Type': 'application/json'}});
    if (!reply.ok) throw new Error(`${reply.status}`);
    return {data: await reply.json()};
  }
};
let sessionId = null;
async function chat(message, temperature = 0.7) {
  const payload = {message, temperature};
  if (sessionId) payload.session_id = sessionId;
  const response = await axios.post(`${process.argv[1]}/chat`, payload);
  sessionId = response.data.session_id;
  return response.data.response;
}
(async () => {
  const first = await chat('Hello!'), session = sessionId, second = await chat('Hello!');
  await axios.post(`${process.argv[1]}/chat/clear`, {session_id: sessionId});
  console.log(JSON.stringify({first, second, same: session === sessionId}));
})();
"""
    done = subprocess.run(
        [str(NODE), "-e", program, parley.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["first"]
    assert told["second"]
    assert told["same"]


# --- the LLM serving API --------------------------------------------------------------------


def test_the_serving_api_starts_and_continues_conversations(parley: Parley) -> None:
    started = reply(
        parley,
        """curl -X POST "http://localhost:8000/api/v1/chat/new" \\
  -H "Content-Type: application/json\"""",
    )
    assert started["message"] == "New conversation started"
    answered = reply(
        parley,
        """curl -X POST "http://localhost:8000/api/v1/chat" \\
  -H "Content-Type: application/json" \\
  -d '{
    "message": "What is the capital of France?",
    "conversation_id": "CONVERSATION",
    "max_length": 100,
    "temperature": 0.7
  }'""".replace("CONVERSATION", started["conversation_id"]),
    )
    assert set(answered) == {"response", "conversation_id", "generation_time"}
    assert answered["conversation_id"] == started["conversation_id"]
    name = started["conversation_id"]
    history = reply(parley, f"curl http://localhost:8000/api/v1/chat/conversation/{name}")
    assert [message["role"] for message in history["messages"]] == ["user", "assistant"]
    reply(
        parley,
        """curl -X POST "http://localhost:8000/api/v1/chat" \\
  -H "Content-Type: application/json" \\
  -d '{
    "message": "Write a Python function to add two numbers",
    "temperature": 0.8,
    "max_tokens": 150
  }'""",
    )


def test_the_serving_api_s_quick_diagnosis_finds_nothing_wrong(parley: Parley) -> None:
    diagnosis = """
curl http://localhost:8000/api/v1/health > /dev/null && echo "Server OK" || echo "Server issue"
curl http://localhost:8000/api/v1/chat/models > /dev/null && echo "Models OK" || echo "Model issue"
curl -X POST "http://localhost:8000/api/v1/chat" -H "Content-Type: application/json" \\
  -d '{"message":"test"}' > /dev/null && echo "Chat OK" || echo "Chat issue"
"""
    assert shell(parley, diagnosis) == "Server OK\nModels OK\nChat OK\n"
    info = reply(parley, "curl http://localhost:8000/api/v1/model-info")
    assert (info["model_name"], info["loaded"]) == ("llama-local", True)


def test_the_serving_api_completes_text(parley: Parley) -> None:
    body = {"prompt": "Once upon a time", "max_length": 20}
    completed = httpx.post(f"{parley.url}/api/v1/generate", json=body, timeout=60)
    assert completed.status_code == 200
    assert isinstance(completed.json()["generated_text"], str)


def test_the_serving_api_switches_models_and_says_when_it_cannot(
    tmp_path: Path,
) -> None:
    environment = {"LLM_MODEL_NAME": str(POCKET), "MODEL_NAME": "first", "LLM_DEVICE": "cpu"}
    with running_parley(tmp_path, environment=environment) as parley:
        parley.wait_healthy()
        check_switching(parley)


def check_switching(parley: Parley) -> None:
    refused = httpx.post(
        f"{parley.url}/api/v1/chat/switch-model", json={"model_name": "no-such-model"}, timeout=60
    )
    assert refused.status_code == 404
    assert "no-such-model" in refused.json()["detail"]
    switched = reply(
        parley,
        """curl -X POST "http://localhost:8000/api/v1/chat/switch-model" \\
  -H "Content-Type: application/json" \\
  -d '{"model_name": "pocket"}'""",
    )
    assert switched["model_name"] == "pocket"
    asked = "curl http://localhost:8000/api/v1/chat/models"  # of whichever worker
    models = until(lambda: reply(parley, asked), lambda told: told["current_model"] == "pocket")
    known = {model["name"] for model in models["models"]}
    assert {"gpt2", "gpt2-medium", "distilgpt2", "llama3-1b", "llama3-3b"} <= known


# --- the multi-API server -------------------------------------------------------------------

OPENAI = """curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama-local",
    "messages": [
      {"role": "system", "content": "You are a helpful assistant."},
      {"role": "user", "content": "Write a haiku about Jetson."}
    ],
    "max_tokens": 128
  }'"""
ANTHROPIC = """curl http://localhost:8000/v1/messages \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama-local",
    "messages": [
      {"role": "user", "content": "Say hello in three words."}
    ],
    "max_tokens": 64
  }'"""
STREAMED = """curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama-local",
    "messages": [
      {"role": "user", "content": "Give me a short list of planets."}
    ],
    "stream": true,
    "max_tokens": 128
  }'"""
TOOLS = """curl http://localhost:8000/v1/chat/completions \\
  -H "Content-Type: application/json" \\
  -d '{
    "model": "llama-local",
    "messages": [
      {"role": "user", "content": "Get the weather in Paris."}
    ],
    "tools": [
      {
        "type": "function",
        "function": {
          "name": "get_weather",
          "description": "Return current weather for a city",
          "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"]
          }
        }
      }
    ],
    "tool_choice": "auto",
    "max_tokens": 128
  }'"""


@pytest.mark.parametrize("think", ["", "/think"])
def test_the_multi_api_server_speaks_openai(parley: Parley, think: str) -> None:
    told = reply(parley, OPENAI.replace("/completions", "/completions" + think))
    assert told["choices"][0]["message"]["content"]
    assert told["usage"]["completion_tokens"] <= 128


@pytest.mark.parametrize("suffix", ["", "/clean", "/think"])
def test_the_multi_api_server_speaks_anthropic(parley: Parley, suffix: str) -> None:
    told = reply(parley, ANTHROPIC.replace("/v1/messages", "/v1/messages" + suffix))
    assert told["type"] == "message"
    block = told["content"][-1]
    assert block["type"] == "text" or suffix == "/think"  # where Pocket may end with a thought
    assert block[block["type"]]


def test_the_multi_api_server_streams(parley: Parley) -> None:
    lines = [line for line in shell(parley, STREAMED).splitlines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    assert all(json.loads(line[6:])["object"] for line in lines[:-1])


def test_the_multi_api_server_calls_tools(parley: Parley) -> None:
    choice = reply(parley, TOOLS)["choices"][0]
    assert choice["finish_reason"] in ("tool_calls", "stop", "length")
    if choice["finish_reason"] == "tool_calls":
        call = choice["message"]["tool_calls"][0]
        assert call["function"]["name"] == "get_weather"
        assert "city" in json.loads(call["function"]["arguments"])
