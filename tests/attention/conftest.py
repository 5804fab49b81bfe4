"""Small networks whose attention can also be computed by hand."""

from __future__ import annotations

import pytest


@pytest.fixture
def small_sam():
    """8×8 tokens, 3 blocks (windows of 3, global, windows), 4 heads, seeded weights."""
    import small_models

    return small_models.small_sam()
