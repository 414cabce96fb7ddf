"""How much a grammar may cost."""

from __future__ import annotations

from llguidance import LLParserLimits


def create_limits() -> LLParserLimits:
    """Measured with hostile grammars: a mask takes 0.2 s at the very most; with llguidance's own
    limits it takes 1.3 s, and three times the memory."""
    return LLParserLimits(
        initial_lexer_fuel=200_000,
        step_lexer_fuel=50_000,
        step_max_items=20_000,
        max_lexer_states=20_000,
        max_grammar_size=100_000,
        verbose_errors=False,
    )
