"""Labels handed over to a layer of the user's own: never over what is there without asking, and undone with care."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_medtransformer.plugin.layer_volume import labels_of_layer, lies_on
from napari_medtransformer.prompting.state import SessionState

if TYPE_CHECKING:
    from napari_medtransformer.plugin.workspace import Workspace
    from napari_medtransformer.prompting import PromptSession


class Overlap(Enum):
    """What becomes of labels that are there already."""

    KEEP = "keep"
    OVERWRITE = "overwrite"
    NEW_LAYER = "new layer"


@dataclass(frozen=True, eq=False)
class Commit:
    """One handing over. places: flat indices of the voxels changed; before, after: their labels.

    state: of the session when it was made.
    """

    state: SessionState
    layer: weakref.ref[Labels]
    places: np.ndarray
    before: np.ndarray
    after: np.ndarray


@dataclass
class Commits:
    """What was handed over from one session, so that undo and redo pass over it in its turn."""

    done: list[Commit] = field(default_factory=list)
    undone: list[tuple[Commit, int]] = field(default_factory=list)  # with how many steps were made by then

    def add(self, commit: Commit) -> None:
        """Remember one that was just made."""
        self.done.append(commit)
        self.undone.clear()

    def undo(self, session: PromptSession) -> bool:
        """Take back the last one if it was made in this very state of the session; whether it was."""
        state = session.state
        if not self.done or (self.done[-1].state is not state and self.done[-1].state != state):
            return False
        commit = self.done.pop()
        self.undone.append((commit, session.steps_made))
        _paint(commit, commit.after, commit.before)
        return True

    def redo(self, session: PromptSession) -> bool:
        """Do the one again that was taken back last, if it was made in this very state; whether it was.

        A step made since then has taken its place.
        """
        if not self.can_redo(session):
            return False
        commit, _ = self.undone[-1]
        if commit.state is not session.state and commit.state != session.state:
            return False
        self.undone.pop()
        self.done.append(commit)
        _paint(commit, commit.before, commit.after)
        return True

    def can_undo(self, state: SessionState) -> bool:
        """Whether the next step back is one of these."""
        return bool(self.done) and self.done[-1].state.step == state.step

    def can_redo(self, session: PromptSession) -> bool:
        """Whether the next step forward is one of these."""
        if not self.undone:
            return False
        commit, made = self.undone[-1]
        return made == session.steps_made and commit.state.step == session.state.step


def in_the_way(workspace: Workspace, layer: Labels) -> int:
    """How many voxels of the user's layer have another label than the one that would be put there."""
    new = labels_of_layer(workspace.session.live_labels, workspace.layer)
    old = np.asarray(layer.data)
    return int(np.count_nonzero((new != 0) & (old != 0) & (old != new)))


def commit_to(workspace: Workspace, layer: Labels, overlap: Overlap) -> Commit:
    """Put the session's labels into the user's layer. Voxels without a label of the session stay as they are."""
    new = labels_of_layer(workspace.session.live_labels, workspace.layer)
    old = np.asarray(layer.data)
    wanted = (new != 0) & (old != new)
    if overlap is Overlap.KEEP:
        wanted &= old == 0
    places = np.flatnonzero(wanted)
    before, after = old.reshape(-1)[places], new.reshape(-1)[places].astype(old.dtype)
    commit = Commit(workspace.session.state, weakref.ref(layer), places, before, after)
    _paint(commit, before, after)
    return commit


def fits(layer: Any, workspace: Workspace) -> bool:
    """Whether labels of the session can be put into a layer: in memory, on the same grid, of a type that holds them."""
    if not isinstance(layer, Labels) or not isinstance(layer.data, np.ndarray) or layer is workspace.masks:
        return False
    new = labels_of_layer(workspace.session.live_labels, workspace.layer)
    if layer.data.shape != new.shape or not layer.data.flags.writeable or not lies_on(layer, workspace.layer):
        return False
    return int(new.max()) <= np.iinfo(layer.data.dtype).max


def _paint(commit: Commit, expected: np.ndarray, wanted: np.ndarray) -> None:
    """Paint the places that still hold what is expected there: what the user painted since is the user's."""
    layer = commit.layer()
    if layer is None or not len(commit.places):
        return
    flat = layer.data.reshape(-1)
    ours = flat[commit.places] == expected
    flat[commit.places[ours]] = wanted[ours]
    if not np.shares_memory(flat, layer.data):
        layer.data = flat.reshape(layer.data.shape)
    layer.refresh(extent=False)
