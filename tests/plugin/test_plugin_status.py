"""How numbers are said in the Prompt dock."""

from __future__ import annotations

import pytest

from napari_medtransformer.plugin.status import duration_in_words, overlap_in_words


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.0984, "98 ms"), (0.9, "900 ms"), (1.26, "1.3 s"), (9.9, "9.9 s"), (120.198, "120 s")]
)
def test_a_duration_is_said_as_finely_as_it_matters(seconds: float, said: str) -> None:
    assert duration_in_words(seconds) == said


@pytest.mark.parametrize(("score", "said"), [(-0.11, "0%"), (0.224, "22%"), (1.04, "100%")])
def test_no_overlap_is_below_none_or_above_all(score: float, said: str) -> None:
    assert overlap_in_words(score) == said
