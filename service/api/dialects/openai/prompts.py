"""What a chat looks like to the model, without an answer to it."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from service.api.deps import ChatDep, RequestIdDep
from service.api.dialects.openai.schemas import ChatCompletionBody, ErrorReply
from service.api.dialects.openai.translate import to_chat_request
from service.api.replies import Json

# llama-server has it at the top; what goes wrong is told in this dialect's words all the same.
TEMPLATE_PATH = "/apply-template"

router = APIRouter(
    tags=["openai"],
    responses={
        "4XX": {"model": ErrorReply, "description": "The chat cannot be read as it stands."},
        503: {"model": ErrorReply, "description": "No engine can take the request now."},
    },
)


class PromptReply(BaseModel):
    prompt: str


@router.post(TEMPLATE_PATH, response_model=PromptReply)
async def apply_template(
    body: ChatCompletionBody, chat: ChatDep, request_id: RequestIdDep
) -> Response:
    """The chat as the model's template writes it down."""
    return Json({"prompt": await chat.write_down(to_chat_request(body, request_id))})
