"""Texts of a dock: whole, however narrow it is."""

from __future__ import annotations

import numpy as np
import pytest

from napari_medtransformer.plugin.widgets.style import QuietLabel

FILE = "TotalSegmentator_s0011_ct_without_contrast_phase_registered_affine"


def right_edge(qtbot, text: str) -> np.ndarray:
    """The last two columns of a label of 200 pixels, as they are painted."""
    label = QuietLabel(text)
    qtbot.addWidget(label)
    label.setFixedWidth(200)
    label.setFixedHeight(label.heightForWidth(200))
    picture = label.grab().toImage()
    return np.array([[picture.pixel(x, y) for x in (198, 199)] for y in range(picture.height())])


@pytest.mark.parametrize("name", [FILE, "x" * 70, "C:\\data\\" + FILE])
def test_a_name_longer_than_a_line_is_not_cut_off(name, qtbot):
    assert len(np.unique(right_edge(qtbot, f"“{name}” hides another image."))) == 1


def test_what_a_text_says_is_what_it_was_told():
    label = QuietLabel(f"{FILE} and more")
    assert label.text() == f"{FILE} and more"
    label.setText("")
    assert label.text() == ""
