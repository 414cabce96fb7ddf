"""Parley: a self-hosted LLM chat appliance.

The roots of this package and the direction in which they may import one another are
checked by import-linter (`pyproject.toml`); each root's docstring is its charter.
"""

__version__ = "0.1.0"
