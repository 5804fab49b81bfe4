"""Parts of a page: below one another in a narrow dock, side by side in a wide one."""

from __future__ import annotations

import pytest
from qtpy.QtWidgets import QLabel

from napari_medtransformer.plugin.widgets.columns import WIDE, SideBySide, stacked


@pytest.fixture
def page(qtbot):
    page = SideBySide()
    qtbot.addWidget(page)
    page.first, page.second = QLabel("first"), QLabel("second")
    page.fill((page.first, 0), (page.second, 1), first_width=200)
    return page


def resized(page: SideBySide, width: int) -> None:
    page.resize(width, 400)
    page.show()
    page.layout().activate()


def test_a_wide_page_lays_its_parts_side_by_side_and_gives_the_rest_to_the_second(page):
    resized(page, WIDE + 100)
    first, second = page.first.geometry(), page.second.geometry()
    assert first.right() < second.left()
    assert first.top() == second.top()
    assert first.width() <= 200
    assert second.width() > 400


def test_a_narrow_page_lays_them_below_one_another_at_its_full_width(page):
    resized(page, WIDE + 100)
    resized(page, WIDE - 100)
    first, second = page.first.geometry(), page.second.geometry()
    assert first.bottom() < second.top()
    assert first.width() == second.width() > 200


@pytest.mark.parametrize("last_grows", [False, True])
def test_the_room_below_stacked_parts_is_the_last_ones_only_when_it_grows(qtbot, last_grows):
    first, last = QLabel("first"), QLabel("last")
    page = stacked(first, last, last_grows=last_grows)
    qtbot.addWidget(page)
    page.resize(300, 600)
    page.show()
    page.layout().activate()
    assert first.geometry().bottom() < last.geometry().top()
    assert (last.geometry().bottom() > 550) is last_grows
