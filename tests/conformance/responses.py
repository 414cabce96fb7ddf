"""`/v1/responses` and OpenAI's conversations."""

from __future__ import annotations

import json
from typing import Any

from tests.conformance.chat import CAPITAL, STORY
from tests.conformance.checks import Subject, check, refused
from tests.conformance.tools import ABOUT, CITY, SUNNY, WEATHER, Place

AREA = "Responses"
BACKGROUND = "Responses in the background"
CONVERSATIONS = "Conversations"
TOOL = {"type": "function", **ABOUT, "parameters": CITY, "strict": True}
_ENDS = {"response.completed", "response.incomplete", "response.failed"}


def ended(server: Subject, response_id: str) -> Any:
    """The response once it is over. Follows it, so that nobody has to ask again and again."""
    for _ in server.openai.responses.retrieve(response_id, stream=True):
        pass
    return server.openai.responses.retrieve(response_id)


@check(AREA, "a whole answer with usage, kept, retrieved, and forgotten")
def _(server: Subject) -> None:
    first = server.respond(CAPITAL)
    assert first.status == "completed"
    assert "Paris" in first.output_text, f"the answer is {first.output_text!r}"
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    assert server.openai.responses.retrieve(first.id).output_text == first.output_text
    server.openai.responses.delete(first.id)
    refused(lambda: server.openai.responses.retrieve(first.id), 404)
    server.respond("Hello.", max_output_tokens=16)


@check(AREA, "a stream: events in order, numbered, each with its place; adds up")
def _(server: Subject) -> None:
    events = list(server.respond(CAPITAL, stream=True))
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"], f"begins {kinds[:2]}"
    assert kinds[-1] == "response.completed", f"ends with {kinds[-1]}"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert kinds.index("response.output_item.added") < kinds.index("response.content_part.added")
    assert kinds.index("response.output_text.done") < kinds.index("response.output_item.done")
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == events[-1].response.output_text
    assert server.respond(CAPITAL).output_text == "".join(deltas)


@check(AREA, "openai-python's own accumulator agrees with the stream")
def _(server: Subject) -> None:
    asked: Any = {"model": server.model, "input": CAPITAL, "temperature": 0}
    with server.openai.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        final = stream.get_final_response()
    assert "Paris" in final.output_text


@check(AREA, "`previous_response_id` goes on; `instructions` are not inherited")
def _(server: Subject) -> None:
    first = server.respond("My name is Alice.", instructions="Be kind. " * 20)
    second = server.respond("What is my name?", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert "Alice" in second.output_text, f"the answer is {second.output_text!r}"
    assert second.instructions is None
    again = server.respond("Hello.", previous_response_id=first.id, instructions="Be kind. " * 40)
    assert again.usage.input_tokens > second.usage.input_tokens


@check(AREA, "`store: false` keeps nothing")
def _(server: Subject) -> None:
    gone = server.respond("Hello.", store=False)
    error = refused(lambda: server.openai.responses.retrieve(gone.id), 404)
    assert set(error.body) >= {"message", "type", "param", "code"}
    server.respond("Hello.", max_output_tokens=16)


@check(AREA, "tools: the call, its result, the answer that uses it")
def _(server: Subject) -> None:
    asked = server.respond(WEATHER, tools=[TOOL])
    (call,) = [item for item in asked.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": SUNNY}
    told = server.respond([result], previous_response_id=asked.id, tools=[TOOL])
    assert "21" in told.output_text, f"the answer is {told.output_text!r}"


@check(AREA, "a streamed call: its arguments come in pieces that add up")
def _(server: Subject) -> None:
    choice = {"type": "function", "name": "get_weather"}
    events = list(server.respond(WEATHER, tools=[TOOL], tool_choice=choice, stream=True))
    kind = "response.function_call_arguments"
    pieces = "".join(event.delta for event in events if event.type == f"{kind}.delta")
    (whole,) = [event.arguments for event in events if event.type == f"{kind}.done"]
    assert pieces == whole
    assert json.loads(whole) == {"city": "Paris"}


@check(AREA, "an answer parsed by openai-python into a model of the caller's")
def _(server: Subject) -> None:
    asked: Any = {"model": server.model, "input": "Describe Paris.", "temperature": 0}
    parsed = server.openai.responses.parse(text_format=Place, max_output_tokens=400, **asked)
    assert isinstance(parsed.output_parsed, Place)


@check(AREA, "thoughts are an item of their own, and counted")
def _(server: Subject) -> None:
    effort = {"effort": "high"}
    events = list(server.respond("How much is 2 and 3?", reasoning=effort, stream=True))
    final = events[-1].response
    assert [item.type for item in final.output] == ["reasoning", "message"]
    counted = final.usage.output_tokens_details.reasoning_tokens
    assert 0 < counted < final.usage.output_tokens, f"{counted} reasoning tokens"
    assert "</think>" not in final.output_text


@check(AREA, "an answer that is cut is `incomplete`, and says why, streamed or not")
def _(server: Subject) -> None:
    cut = server.respond(STORY, max_output_tokens=16)
    assert cut.status == "incomplete"
    assert cut.incomplete_details.reason == "max_output_tokens"
    *_, last = server.respond(STORY, max_output_tokens=16, stream=True)
    assert last.type == "response.incomplete", f"the stream ends with {last.type}"


@check(AREA, "`input_tokens` counts as the answer does")
def _(server: Subject) -> None:
    counted = server.openai.responses.input_tokens.count(model=server.model, input=CAPITAL)
    assert counted.input_tokens == server.respond(CAPITAL).usage.input_tokens


@check(AREA, "`input_items`, page by page, in either order")
def _(server: Subject) -> None:
    said: Any = [{"role": "user", "content": text} for text in ("One.", "Two.", "Three.")]
    made = server.respond(said, max_output_tokens=16)
    listing = server.openai.responses.input_items.list
    ids = [item.id for item in listing(made.id, order="asc")]
    assert len(ids) == 3
    assert [item.id for item in listing(made.id)] == ids[::-1]
    paged = [item.id for item in listing(made.id, order="asc", limit=1)]
    assert paged == ids, "the pages do not add up"


@check(AREA, "`include: message.output_text.logprobs`")
def _(server: Subject) -> None:
    include: Any = ["message.output_text.logprobs"]
    made = server.respond(CAPITAL, include=include, top_logprobs=2)
    (part,) = made.output[0].content
    assert "".join(entry.token for entry in part.logprobs) == made.output_text
    assert all(len(entry.top_logprobs) == 2 for entry in part.logprobs)


@check(AREA, "what cannot be answered is refused by name")
def _(server: Subject) -> None:
    for body, param in (
        ({"input": [{"type": "no_such_item"}]}, "input[0].type"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ):
        status, reply = server.post("/v1/responses", {"model": server.model, "input": "Hi", **body})
        assert status in (400, 404), f"{param}: {status}"
        assert reply["error"]["param"] == param, f"{param}: {reply['error']['param']}"
    server.respond("Hello.", max_output_tokens=16)


@check(BACKGROUND, "is answered without a client; `GET` polls, and tells the end")
def _(server: Subject) -> None:
    begun = server.respond(CAPITAL, background=True)
    assert begun.status in ("queued", "in_progress", "completed")
    assert begun.background
    final = ended(server, begun.id)
    assert final.status == "completed"
    assert "Paris" in final.output_text


@check(BACKGROUND, "a stream that was left is resumed with `starting_after`, without a gap")
def _(server: Subject) -> None:
    stream = server.respond(STORY, background=True, stream=True, max_output_tokens=120)
    seen = [next(stream) for _ in range(6)]
    stream.close()
    after = seen[-1].sequence_number
    retrieve = server.openai.responses.retrieve
    rest = list(retrieve(seen[0].response.id, stream=True, starting_after=after))
    numbers = [event.sequence_number for event in [*seen, *rest]]
    assert numbers == list(range(len(numbers))), f"the numbers are {numbers[:12]}"
    assert rest[-1].type in _ENDS
    deltas = [e.delta for e in [*seen, *rest] if e.type == "response.output_text.delta"]
    assert "".join(deltas) == rest[-1].response.output_text
    whole = list(retrieve(seen[0].response.id, stream=True))
    assert [event.sequence_number for event in whole] == numbers


@check(BACKGROUND, "is cancelled, once or twice")
def _(server: Subject) -> None:
    for _ in range(5):  # one that has come to its end by then says nothing
        begun = server.respond(STORY, background=True, max_output_tokens=1500)
        cancelled = server.openai.responses.cancel(begun.id)
        if cancelled.status not in ("completed", "incomplete"):
            break
    assert cancelled.status == "cancelled", f"status is {cancelled.status}"
    assert server.openai.responses.cancel(begun.id).status == "cancelled"
    assert server.openai.responses.retrieve(begun.id).status == "cancelled"


@check(BACKGROUND, "without `store`: refused; in the foreground: not to be cancelled")
def _(server: Subject) -> None:
    refused(lambda: server.respond("Hi.", background=True, store=False))
    made = server.respond("Hi.", max_output_tokens=16)
    refused(lambda: server.openai.responses.cancel(made.id))


@check(CONVERSATIONS, "are made with items and metadata, read, changed, and forgotten")
def _(server: Subject) -> None:
    api = server.openai.conversations
    said: Any = [{"type": "message", "role": "user", "content": "My name is Alice."}]
    made = api.create(metadata={"topic": "names"}, items=said)
    assert api.retrieve(made.id).metadata == {"topic": "names"}
    assert api.update(made.id, metadata={"topic": "other"}).metadata == {"topic": "other"}
    (item,) = api.items.list(made.id).data
    assert item.type == "message"
    assert api.delete(made.id).deleted
    refused(lambda: api.retrieve(made.id), 404)
    server.respond("Hello.", max_output_tokens=16)


@check(CONVERSATIONS, "`conversation` goes on, and takes in what was asked and answered")
def _(server: Subject) -> None:
    made = server.openai.conversations.create()
    first = server.respond("My name is Alice.", conversation=made.id)
    assert first.conversation.id == made.id
    second = server.respond("What is my name?", conversation={"id": made.id})
    assert "Alice" in second.output_text, f"the answer is {second.output_text!r}"
    items = server.openai.conversations.items.list(made.id, order="asc", limit=2)
    texts = [part.text for item in items for part in item.content]
    assert texts[::2] == ["My name is Alice.", "What is my name?"]
    assert texts[3] == second.output_text
    newest = server.openai.conversations.items.list(made.id, limit=1).data[0]
    assert newest.content[0].text == second.output_text, "the newest item does not come first"


@check(CONVERSATIONS, "keep calls and their results, streamed too")
def _(server: Subject) -> None:
    made = server.openai.conversations.create()
    *_, last = server.respond(WEATHER, conversation=made.id, tools=[TOOL], stream=True)
    (call,) = [item for item in last.response.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": SUNNY}
    told = server.respond([result], conversation=made.id, tools=[TOOL])
    assert "21" in told.output_text, f"the answer is {told.output_text!r}"
    items = server.openai.conversations.items.list(made.id, order="asc")
    kinds = [item.type for item in items]
    assert kinds == ["message", "function_call", "function_call_output", "message"]


@check(CONVERSATIONS, "take items one by one, and give them back and up")
def _(server: Subject) -> None:
    api = server.openai.conversations
    made = api.create()
    said: Any = [{"type": "message", "role": "user", "content": text} for text in ("One.", "Two.")]
    first, second = api.items.create(made.id, items=said).data
    got = api.items.retrieve(first.id or "", conversation_id=made.id)
    assert got == first
    api.items.delete(first.id or "", conversation_id=made.id)
    assert [item.id for item in api.items.list(made.id)] == [second.id]


@check(CONVERSATIONS, "an unknown one is a 404; beside `previous_response_id` it is refused")
def _(server: Subject) -> None:
    refused(lambda: server.respond("Hi.", conversation="conv_none"), 404)
    made = server.openai.conversations.create()
    both = {"conversation": made.id, "previous_response_id": "resp_none"}
    refused(lambda: server.respond("Hi.", **both))
