"""Pictures through a whole service: Pocket, with a projector of random weights beside it."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.e2e.parley import Parley, running_parley
from tests.engine.conftest import POCKET
from tests.engine.projector_file import RandomProjector
from tests.pictures.files import png

pytestmark = [pytest.mark.model, pytest.mark.sdk]
PROJECTOR = RandomProjector(text_width=256)
RED, BLUE = png(), png(40, 30, colour=(0, 0, 250))


@pytest.fixture(scope="module")
def parley(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parley]:
    directory = tmp_path_factory.mktemp("parley")
    model = directory / "models" / "pocket.gguf"
    model.parent.mkdir()
    shutil.copy(POCKET, model)
    PROJECTOR.write(model.with_name("mmproj-pocket.gguf"))
    with running_parley(directory, "--model", str(model)) as service:
        service.wait_healthy()
        yield service


@pytest.fixture
def client(parley: Parley) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{parley.url}/v1", api_key="none", timeout=60) as client:
        yield client


def asked(*pictures: bytes, text: str = "What is this?") -> list[dict[str, Any]]:
    urls = [f"data:image/png;base64,{base64.b64encode(data).decode()}" for data in pictures]
    shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


def answer(client: openai.OpenAI, messages: list[dict[str, Any]], **options: Any) -> Any:
    return client.chat.completions.create(
        model="pocket",
        messages=messages,  # type: ignore[arg-type]
        temperature=0,
        max_tokens=12,
        **options,
    )


def test_a_picture_takes_its_places_in_the_prompt(client: openai.OpenAI) -> None:
    blind = answer(client, asked()).usage.prompt_tokens
    for number, pictures in enumerate(((RED,), (RED, BLUE)), 1):
        usage = answer(client, asked(*pictures)).usage
        assert usage.prompt_tokens == blind + number * PROJECTOR.num_tokens


def test_a_picture_is_read_once_and_another_is_not_taken_for_it(client: openai.OpenAI) -> None:
    question = "How many times was this shown?"
    green, grey = png(colour=(0, 250, 0)), png(colour=(90, 90, 90))  # of no other test
    first = answer(client, asked(green, text=question))
    again = answer(client, asked(green, text=question))
    assert again.choices[0].message.content == first.choices[0].message.content
    assert again.usage.prompt_tokens_details.cached_tokens == again.usage.prompt_tokens - 1
    other = answer(client, asked(grey, text=question)).usage.prompt_tokens_details.cached_tokens
    assert other < PROJECTOR.num_tokens
    mixed = answer(client, asked(green, grey, text=question)).usage.prompt_tokens_details
    assert PROJECTOR.num_tokens <= mixed.cached_tokens < 2 * PROJECTOR.num_tokens + other + 1


def test_a_conversation_goes_on_behind_a_picture(client: openai.OpenAI) -> None:
    messages = asked(BLUE)
    said = answer(client, messages).choices[0].message.content or "?"
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "Sure?"}]
    usage = answer(client, messages).usage
    assert usage.prompt_tokens_details.cached_tokens > PROJECTOR.num_tokens


def test_a_stream_says_the_same(client: openai.OpenAI) -> None:
    whole = answer(client, asked(RED, BLUE)).choices[0].message.content
    pieces = answer(client, asked(RED, BLUE), stream=True)
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == whole


def test_many_at_once_answer_as_alone(client: openai.OpenAI) -> None:
    shades = [png(colour=(40 * shade, 0, 0)) for shade in range(4)]
    alone = [answer(client, asked(shade)).choices[0].message.content for shade in shades]
    together = answer(client, asked(shades[2]), n=4)
    assert {choice.message.content for choice in together.choices} == {alone[2]}


def test_anthropic_counts_pictures_exactly(parley: Parley) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(RED).decode()}
    said: Any = [{"role": "user", "content": [{"type": "image", "source": source}]}]
    with anthropic.Anthropic(base_url=parley.url, api_key="none", timeout=60) as client:
        counted = client.messages.count_tokens(model="pocket", messages=said).input_tokens
        usage = client.messages.create(model="pocket", messages=said, max_tokens=5).usage
    assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    assert counted > PROJECTOR.num_tokens


def test_after_a_restart_a_conversation_goes_on_behind_its_picture(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """From what the service kept, the picture among it; its places are found where they were
    parked."""
    directory = tmp_path_factory.mktemp("restarted")
    model = directory / "models" / "pocket.gguf"
    model.parent.mkdir()
    shutil.copy(POCKET, model)
    PROJECTOR.write(model.with_name("mmproj-pocket.gguf"))
    url = f"data:image/png;base64,{base64.b64encode(RED).decode()}"
    content: Any = [{"type": "input_image", "image_url": url, "detail": "auto"}]
    # Long enough to be worth parking.
    content += [{"type": "input_text", "text": "Tell me what you see in this picture. " * 20}]
    said: Any = [{"role": "user", "content": content}]
    response_id = None
    for turn in (said, "And now?"):
        with running_parley(directory, "--model", str(model)) as service:
            service.wait_healthy()
            with openai.OpenAI(base_url=f"{service.url}/v1", api_key="none", timeout=60) as client:
                response = client.responses.create(
                    model="pocket",
                    input=turn,
                    previous_response_id=response_id,
                    max_output_tokens=5,
                    temperature=0,
                )
        response_id = response.id
    assert response.usage is not None
    assert response.usage.input_tokens > PROJECTOR.num_tokens
    assert response.usage.input_tokens_details.cached_tokens > PROJECTOR.num_tokens


def test_a_broken_picture_is_refused_and_the_next_is_read(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="its file is broken"):
        answer(client, asked(RED[:60]))
    assert answer(client, asked(RED)).choices


def test_a_responses_input_may_hold_a_picture(client: openai.OpenAI) -> None:
    url = f"data:image/png;base64,{base64.b64encode(RED).decode()}"
    content: Any = [{"type": "input_image", "image_url": url, "detail": "auto"}]
    content += [{"type": "input_text", "text": "What is this?"}]
    response = client.responses.create(
        model="pocket", input=[{"role": "user", "content": content}], max_output_tokens=5
    )
    assert response.usage is not None
    assert response.usage.input_tokens > PROJECTOR.num_tokens
