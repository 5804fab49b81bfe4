"""What the tests of the command line share."""

from collections.abc import Iterator

import pytest
from batch_card import CARD

from napari_medtransformer.models import ModelCard, register
from napari_medtransformer.models.registry import unregister


@pytest.fixture
def card() -> Iterator[ModelCard]:
    """A small automatic model with random weights, for as long as the test runs."""
    register(CARD)
    yield CARD
    unregister(CARD.name)
