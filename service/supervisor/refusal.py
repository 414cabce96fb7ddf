"""Why the service does not start, or cannot go on."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_MISCONFIGURED = 2


class Refusal(Exception):
    """One sentence for the operator, and the exit code of the service."""

    def __init__(self, sentence: str, exit_code: int = EXIT_MISCONFIGURED) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
