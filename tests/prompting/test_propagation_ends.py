"""Where objects end: sections of known shapes, one after another, and how far they are followed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_medtransformer.prompting.propagation_ends import Ends, SliceFacts

OWN = 1.5  # nats per pixel of the object where it was marked


def kept(
    areas: Iterable[float], looks: float = OWN, change: float = 0.02, largest: int = 0, open_end: bool = True
) -> int:
    """Slices kept of an object of these sections, the first of which is the one it was marked on."""
    first, *others = (int(area) for area in areas)
    ends = Ends(first, OWN, largest, open_end=open_end)
    for area in others:
        ends.add(SliceFacts(area, 0.8, looks, change=0.02))
        if ends.ended:
            break
    return ends.kept


def ball(slices: int, largest: float = 1000.0) -> list[float]:
    """Sections from a ball's middle to its end."""
    return [largest * (1 - (i / slices) ** 2) for i in range(slices)]


@settings(deadline=None)  # a loaded machine may take long
@given(slices=st.integers(5, 200), largest=st.floats(300, 20_000))
def test_a_ball_is_followed_to_its_end_however_thin_the_slices(slices: int, largest: float) -> None:
    areas = ball(slices, largest)
    worth = sum(area >= 0.15 * before for before, area in itertools.pairwise(areas))
    stump = sum(area < 0.05 * largest for area in areas[1:])
    assert kept([*areas, 0]) >= worth - stump - 1


@settings(deadline=None)  # a loaded machine may take long
@given(slices=st.integers(6, 150))
def test_a_cone_is_followed_until_little_is_left(slices: int) -> None:
    areas = [2000 * (1 - i / slices) ** 2 for i in range(slices)]
    assert kept([*areas, 0]) >= sum(area >= 0.06 * 2000 for area in areas[1:])


@settings(deadline=None)  # a loaded machine may take long
@given(st.lists(st.floats(0.85, 1.15), min_size=3, max_size=120))
def test_a_tube_of_uneven_width_is_followed_for_ever(widths: list[float]) -> None:
    assert kept([500 * width for width in (1, *widths)]) == len(widths)


@pytest.mark.parametrize("slices", [8, 15, 40])
def test_a_thin_tube_behind_a_ball_is_not_the_ball(slices: int) -> None:
    found = kept(ball(slices) + [120] * 3 * slices)
    assert slices * 0.6 <= found <= slices + 2


@pytest.mark.parametrize("slices", [8, 15, 40])
def test_what_widens_again_behind_a_waist_is_another_object(slices: int) -> None:
    half = ball(slices)
    waist = [area for area in half if area > 100]
    found = kept(waist + waist[::-1])
    assert found == len(waist) - 1 or found == len(waist)


def test_a_size_known_from_another_slice_tells_that_what_follows_is_something_else() -> None:
    thin_then_wider = [300, 200, 150, 140, 150, 200, 260, 300, 300]
    assert kept(thin_then_wider) == len(thin_then_wider) - 1
    assert kept(thin_then_wider, largest=1000) == 3


def test_what_looks_like_its_surroundings_ends_at_once() -> None:
    ends = Ends(500, OWN)
    ends.add(SliceFacts(480, 0.9, OWN - 0.2, 0.02))
    ends.add(SliceFacts(470, 0.9, -0.4, 0.02))
    assert ends.ended
    assert ends.kept == 1


def test_an_object_that_hardly_differs_from_its_surroundings_goes_on() -> None:
    ends = Ends(500, 0.1)
    for _ in range(20):
        ends.add(SliceFacts(480, 0.9, -0.4, 0.02))
    assert not ends.ended


@pytest.mark.parametrize(("area", "ended"), [(150, True), (480, False)])
def test_a_sudden_change_of_the_image_ends_only_what_has_become_small(area: int, ended: bool) -> None:
    ends = Ends(500, OWN)
    for size in np.linspace(500, area, 10):
        ends.add(SliceFacts(int(size), 0.9, OWN, 0.02))
    assert not ends.ended
    ends.add(SliceFacts(area, 0.8, OWN - 1.2, 0.05))
    assert ends.ended is ended


def told(looks: list[float], changes: list[float], usual: float | None = None) -> Ends:
    """An object of one size, of slices that look like this and change so much."""
    ends = Ends(500, OWN, usual=usual)
    for one, change in zip(looks, changes, strict=True):
        ends.add(SliceFacts(500, 0.9, one, change))
        if ends.ended:
            break
    return ends


ALIKE_BEHIND_A_WALL = ([OWN] * 6 + [0.8, 0.7, 1.2, OWN, OWN], [0.02] * 6 + [0.04, 0.06, 0.03, 0.02, 0.02])


def test_what_looks_alike_behind_a_wall_is_another_object() -> None:
    assert told(*ALIKE_BEHIND_A_WALL).kept == 7


def test_a_change_of_the_image_alone_is_no_wall() -> None:
    looks, changes = ALIKE_BEHIND_A_WALL
    assert told([OWN] * len(looks), changes).kept == len(looks)


def test_what_goes_on_looking_less_alike_is_no_wall() -> None:
    looks, changes = ALIKE_BEHIND_A_WALL
    assert told([*looks[:7], *[0.7] * 4], changes).kept == len(looks)


def test_what_becomes_smaller_at_a_wall_lets_go_of_something_and_goes_on() -> None:
    ends = Ends(500, OWN)
    for one, change, area in zip(*ALIKE_BEHIND_A_WALL, [500] * 6 + [460, 380, 350, 350, 350], strict=True):
        ends.add(SliceFacts(area, 0.9, one, change))
    assert not ends.ended


def test_where_the_image_always_changes_a_wall_takes_more() -> None:
    looks, changes = ALIKE_BEHIND_A_WALL
    assert told(looks, [0.04 if one == 0.02 else one for one in changes]).kept == len(looks)


def test_how_the_image_changes_where_an_object_was_marked_tells_a_wall_on_uneven_ground() -> None:
    looks, changes = ALIKE_BEHIND_A_WALL
    uneven = [0.04] * 6 + changes[6:]
    assert told(looks, uneven).kept == len(looks)
    assert told(looks, uneven, usual=0.015).kept == 7


@pytest.mark.parametrize(
    "facts",
    [
        SliceFacts(3, 0.5, OWN, 0.02),
        SliceFacts(60, 0.5, OWN, 0.02),
        SliceFacts(1300, 0.4, OWN, 0.02),
        SliceFacts(500, 0.1, OWN, 0.02),
    ],
    ids=["noise", "vanished", "leaked", "elsewhere"],
)
@pytest.mark.parametrize("open_end", [True, False])
def test_what_cannot_be_followed_ends_between_prompted_slices_too(facts: SliceFacts, open_end: bool) -> None:
    ends = Ends(500, OWN, open_end=open_end)
    ends.add(facts)
    assert ends.ended
    assert ends.kept == 0


def test_between_prompted_slices_a_waist_and_other_looks_do_not_end_an_object() -> None:
    sections = [*ball(10)[:-1], *ball(10)[-2::-1]]
    assert kept(sections, open_end=False) == len(sections) - 1
    assert kept([500] * 10, looks=-1.0, open_end=False) == 9
