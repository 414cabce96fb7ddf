"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine makes any example slow now and then; pytest-timeout looks after what hangs.
settings.register_profile("parley", deadline=None)
settings.load_profile("parley")
