"""What can go wrong, in the caller's terms.

Every refusal that a caller can understand is a `ServiceError`; anything else that is raised is a
fault of ours, logged once at the edge and reported as "internal error".
"""

from __future__ import annotations

from typing import ClassVar, Self


class ServiceError(Exception):
    """A refusal with one clear sentence: the thing, the value, and what would be accepted.

    `code` is stable and machine-readable (it crosses the wire between processes); `param` names
    the offending field where there is one; `retry_after_seconds` says when trying again can help.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_seconds = retry_after_seconds


class InvalidRequest(ServiceError):
    """The request cannot mean anything as it stands."""

    code = "invalid_request"


class ConversationLocked(InvalidRequest):
    """An answer in the conversation is being written; when it has ended, the request is good."""

    code = "conversation_locked"

    @classmethod
    def named(cls, conversation_id: str) -> ConversationLocked:
        return cls(
            f"An answer in the conversation `{conversation_id[:200]}` is being written; wait for "
            "its end.",
            param="conversation",
        )


class Unsupported(ServiceError):
    """The request is well-formed, but asks for what this service or model does not do."""

    code = "unsupported"


class ContextLengthExceeded(ServiceError):
    """Prompt and answer do not fit the model's context; the message holds the exact numbers."""

    code = "context_length_exceeded"


class PayloadTooLarge(ServiceError):
    code = "payload_too_large"


class Unauthenticated(ServiceError):
    code = "unauthenticated"


class Forbidden(ServiceError):
    code = "forbidden"


class ModelNotFound(ServiceError):
    code = "model_not_found"


class ConversationNotFound(ServiceError):
    """Unknown to this caller; another caller's conversation looks exactly the same."""

    code = "conversation_not_found"

    @classmethod
    def named(cls, conversation_id: str) -> Self:
        return cls(f"There is no conversation `{conversation_id}`.")


class ResponseNotFound(ServiceError):
    """Unknown to this caller; another caller's response looks exactly the same."""

    code = "response_not_found"


class RateLimited(ServiceError):
    code = "rate_limited"


class QuotaSpent(RateLimited):
    """What a day or a month allows is used up: waiting a moment does not help."""

    code = "quota_spent"


class QueueFull(ServiceError):
    """The engine has as many requests waiting as it may keep."""

    code = "queue_full"


class DeadlineMissed(ServiceError):
    """The first token has not come within the time that the request allows, or would not."""

    code = "deadline_missed"


class EngineUnavailable(ServiceError):
    """No engine can take this request now: loading, draining, or restarting after a crash."""

    code = "engine_unavailable"


class GenerationFailed(ServiceError):
    """The engine gave up on a request that it had accepted."""

    code = "generation_failed"


class Conflict(ServiceError):
    """What is asked for cannot be done while something else goes on, which the message names."""

    code = "conflict"


class SwitchFailed(ServiceError):
    """Another model was to answer, and does not; the message says why, and which one does."""

    code = "switch_failed"


class PoisonousRequest(ServiceError):
    """The same request was being answered each time when the engine crashed; it is not tried
    again for a while."""

    code = "poisonous_request"


class StoreUnavailable(ServiceError):
    """What is kept on disk can't be read or written now: the disk is full, or the file broken."""

    code = "store_unavailable"


class ConfigurationError(ServiceError):
    """A setting or command-line value that stops the start (exit code 2)."""

    code = "configuration_error"


class ModelFileError(ServiceError):
    """A model file that is missing, truncated, not GGUF, or too large for this machine."""

    code = "model_file_error"


class DownloadFailed(ServiceError):
    """A model could not be fetched; the message says from where and why."""

    code = "download_failed"


def error_codes() -> dict[str, type[ServiceError]]:
    """Every code with its class, so that an error can be rebuilt on the far side of a socket."""
    known: dict[str, type[ServiceError]] = {ServiceError.code: ServiceError}
    pending = list(ServiceError.__subclasses__())
    while pending:
        error = pending.pop()
        known[error.code] = error
        pending += error.__subclasses__()
    return known
