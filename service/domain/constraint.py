"""What a generation's text is held to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from service.domain.errors import InvalidRequest

MAX_CONSTRAINT_BYTES = 256 * 1024


class ConstraintKind(StrEnum):
    """How `Constraint.source` is to be read: JSON text of a schema, a regular expression over the
    whole text, a Lark grammar (llguidance's dialect), GBNF, or a JSON array of strings."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    LARK = "lark"
    GBNF = "gbnf"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Constraint:
    """Only text that `source` describes may be written.

    It holds from the first token or, where `after` is set, from the token behind the first time
    that text (`</think>`) was written. Raises `InvalidRequest` for a source beyond
    `MAX_CONSTRAINT_BYTES`; what the source says is judged by the engine.
    """

    kind: ConstraintKind
    source: str
    after: str = ""

    def __post_init__(self) -> None:
        size = len(self.source.encode("utf-8", "surrogatepass"))
        if size > MAX_CONSTRAINT_BYTES:
            raise InvalidRequest(
                f"the {self.kind.value} has {size} bytes; at most {MAX_CONSTRAINT_BYTES} are "
                "accepted."
            )
