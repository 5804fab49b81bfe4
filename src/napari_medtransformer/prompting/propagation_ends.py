"""Where an object ends while it is followed from slice to slice: judged from its sizes, its looks and its overlap.

No rule asks how sure the network is, as that differs from one training to the next. An end is often known only some
slices later: what goes on behind a waist or a wall, or does not narrow any more where ends narrow ever faster, was
something else from there on. Numbers were chosen on 31 objects of a CT, an MR of the abdomen and five of the
hippocampus; docs/benchmarks.md tells how they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SMALLEST_PIXELS = 6  # a mask below that is noise
_SHRINK = 0.15  # of the area before: an object that vanishes faster than that has ended
_GROW = 2.5  # times the area before: a mask that grows faster has leaked
_OVERLAP = 0.2  # IoU with the slice before, below which it is another object
_STUMP = 0.05  # of the largest area: what is left is not worth following
_UNLIKE = -0.3  # nats per pixel: rather what is beside the object, …
_LESS_LIKE = 1.0  # … if it also looks that much less like it than it did where it was marked
_SMALL = 0.4  # of the largest area: a mask that small ends if it looks less like the object, and the image there …
_CHANGED = 2.0  # … changed that many times as much from the slice before as usual on the way
_CHANGES = 8  # slices that tell what is usual
_LEAST_CHANGE = 0.008  # of the window: below that it is noise
_WAIST = 0.45  # of the largest area: what narrows to that, …
_WIDER = 1.5  # … and then widens by that factor …
_WIDER_BY = 0.1  # … and by that share of the largest area, is two objects
_TIP = 0.35  # of the largest area: so much narrower, an object is about to end, …
_PATIENCE = 2.0  # … and should halve again within that many times the slices in which it halved last, …
_PATIENCE_SLICES = 2  # … and these
_WALL = 2.5  # times the usual change of the image, and the most of five slices: …
_WALL_LOOKS = 0.3  # … looking so much less like the object than it did …
_BEFORE = 6  # … on the slices before, …
_BEHIND = 0.6  # … a wall, if the image behind it changes by less than that share of it …
_BEHIND_LOOKS = 0.2  # … and looks more like the object again, …
_THROUGH = 0.9  # … and what is followed has not become smaller than that: else it let go of something


@dataclass(frozen=True)
class SliceFacts:
    """What there is to judge of a slice. area: pixels. overlap: IoU with the slice before.

    looks: nats per pixel, how much more it looks like the object than like what is beside it (see Appearance). change:
    mean difference of the image to the slice before, within both masks, as a share of the window.
    """

    area: int
    overlap: float
    looks: float
    change: float


class Ends:
    """Told slice after slice; `ended` says that there is nothing more to follow, `kept` how many slices were it.

    area: pixels of the mask that it is followed from. looks: what it looks like where it was marked, as in SliceFacts.
    largest: pixels of the largest mask known of the object, on any slice. usual: how much the image changes where it
    was marked; None if too little was marked to say. open_end: False between two prompted slices, where the object is
    known to go on: then only what cannot be followed any further ends it.
    """

    def __init__(
        self, area: int, looks: float, largest: int = 0, usual: float | None = None, open_end: bool = True
    ) -> None:
        self._areas = [area]
        self._largest = max(area, largest)
        self._changes: list[float] = []
        self._seen: list[float] = []  # what each slice looked like
        self._walls: list[int] = []  # slices that may be one
        self._usual = usual
        self._looks = looks
        self._open = open_end
        self.ended = False
        self.kept = 0

    def add(self, facts: SliceFacts) -> None:
        """The next slice."""
        before = self._areas[-1]
        lost = facts.area < max(SMALLEST_PIXELS, _SHRINK * before)
        lost = lost or facts.area > _GROW * before or facts.overlap < _OVERLAP
        self._areas.append(facts.area)
        self._largest = max(self._largest, facts.area)
        if lost or (self._open and self._something_else(facts)):
            self.ended = True
            return
        self._changes.append(facts.change)
        self._seen.append(facts.looks)
        self.kept += 1
        since = self._ended_at() if self._open else None
        if since is not None:
            self.ended, self.kept = True, since

    def _something_else(self, facts: SliceFacts) -> bool:
        """Whether this very slice holds the object no more."""
        share = facts.area / self._largest
        less = self._looks - facts.looks
        changed = facts.change > _CHANGED * self._usual_change(len(self._changes), facts.change)
        return (
            share < _STUMP
            or (facts.looks < _UNLIKE and less > _LESS_LIKE)
            or (share < _SMALL and changed and less > _LESS_LIKE)
        )

    def _ended_at(self) -> int | None:
        """After how many slices the object had ended already, seen from now; None while it goes on."""
        areas = np.array(self._areas)
        known = [_waist(areas, self._largest), self._wall()]
        if known == [None, None] and areas[-1] < _TIP * self._largest:
            known.append(_blunt_tip(areas, self._largest))
        return min((at for at in known if at is not None), default=None)

    def _wall(self) -> int | None:
        """After how many slices there was a wall, behind which lies something that looks alike."""
        if self._is_wall(len(self._changes) - 3):
            self._walls.append(len(self._changes) - 3)
        for at in self._walls:
            low = min(self._seen[at - 1 : at + 2])
            calm = min(self._changes[at + 1 :]) < _BEHIND * self._changes[at]
            through = self._areas[-1] >= _THROUGH * self._areas[at - 1]
            if calm and through and max(self._seen[at + 1 :]) > low + _BEHIND_LOOKS:
                return at
        return None

    def _is_wall(self, at: int) -> bool:
        """Whether the image changes much at a slice, and looks less like the object there."""
        if at < 2:
            return False
        change = self._changes[at]
        most = change == max(self._changes[at - 2 : at + 3]) and change > _WALL * self._usual_change(at, change)
        before = self._seen[max(0, at - _BEFORE) : at - 1]
        return most and float(np.median(before)) - min(self._seen[at - 1 : at + 2]) > _WALL_LOOKS

    def _usual_change(self, before: int, otherwise: float) -> float:
        """By how much the image usually changes, told by the slices before one and by where the object was marked."""
        recent = self._changes[max(0, before - _CHANGES) : before]
        usual = float(np.median(recent)) if recent else otherwise
        return max(_LEAST_CHANGE, usual if self._usual is None else min(usual, self._usual))


def _waist(areas: np.ndarray, largest: int) -> int | None:
    """The narrowest slice behind the widest, if the last has become something wide again."""
    widest = int(np.argmax(areas)) if areas.max() == largest else 0
    narrowest = widest + int(np.argmin(areas[widest:]))
    wider = max(_WIDER * areas[narrowest], areas[narrowest] + max(SMALLEST_PIXELS, _WIDER_BY * largest))
    return narrowest if areas[narrowest] <= _WAIST * largest and areas[-1] >= wider else None


def _blunt_tip(areas: np.ndarray, largest: int) -> int | None:
    """The slice at which a narrow object halved last, if it did not go on narrowing as ends do.

    A rounded end halves its section in ever fewer slices, a cone in 0.7 times as many each time, a tube never.
    """
    last = len(areas) - 1
    for at in range(1, last):
        halved = np.flatnonzero(areas[:at] >= 2 * areas[at])
        if not len(halved) or areas[at] >= _TIP * largest or areas[last] <= areas[at] / 2:
            continue
        if last > at + _PATIENCE * (at - int(halved[-1])) + _PATIENCE_SLICES:
            return at
    return None
