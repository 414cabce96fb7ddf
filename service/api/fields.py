"""Types of wire fields that all dialects share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError


def well_formed(text: str) -> str:
    """The text. JSON can spell half a surrogate pair, which is none and fits into no UTF-8: raises
    pydantic's error then."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise PydanticCustomError(
            "string_unicode", "Half a surrogate pair is not a character; send well-formed Unicode"
        ) from None
    return text


Text = Annotated[str, AfterValidator(well_formed)]
"""A string that can be written down."""
