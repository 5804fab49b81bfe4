"""Nothing lost: unsaved sessions are kept on disk while they are worked on, and offered at the next start."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari.layers import Layer
from qtpy.QtCore import QObject, Signal

from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.files import write_text
from napari_medtransformer.plugin import planes
from napari_medtransformer.plugin.layer_volume import frames_of
from napari_medtransformer.plugin.notify import report, reported, tell, warn
from napari_medtransformer.plugin.volume.cursor_readout import is_image_of, volume_on
from napari_medtransformer.plugin.work import WorkQueue
from napari_medtransformer.prompting import PromptSession
from napari_medtransformer.prompting.autosave import Autosave, Recoverable, recoverable
from napari_medtransformer.prompting.fingerprints import volume_fingerprint

if TYPE_CHECKING:
    from napari_medtransformer.plugin.controller import SessionController
    from napari_medtransformer.plugin.workspace import Workspace

_SOURCE = ".source"  # beside a kept session: the path of the file that it was made on
_DAY_SECONDS = 86400.0


@dataclass(frozen=True)
class Offer:
    """Unsaved work of an earlier session. here: made on the volume that is open. source: its image's file, if known."""

    found: Recoverable
    here: bool
    source: Path | None

    @property
    def frame(self) -> int:
        """Which frame of the image was worked on; 0 for one of a single volume."""
        kind, _, number = self.found.facts.part.partition(" ")
        return int(number) if kind == "frame" and number.isdecimal() else 0

    def in_words(self) -> str:
        """What there is, for the user."""
        found = self.found
        age = time.time() - found.changed
        when = time.strftime("%H:%M" if age < _DAY_SECONDS else "%d %b %Y, %H:%M", time.localtime(found.changed))
        what = f"{_count(found.prompts, 'prompt')} in {_count(found.objects, 'object')}"
        name = found.facts.volume_name + (f", {found.facts.part}" if found.facts.part else "")
        return f"Unsaved work on {name} from {when}: {what}."


class Recovery(QObject):
    """Keeps the sessions of a controller, which it holds weakly, and knows what others left behind."""

    changed = Signal()
    _problem = Signal(str)

    def __init__(self, controller: SessionController) -> None:
        super().__init__()
        self._controller = weakref.ref(controller)
        self._queue = WorkQueue()
        self._put_off: set[Path] = set()
        self.offers: list[Offer] = []
        self.problem = ""
        self._problem.connect(self._on_problem)

    # Keeping

    def keep(self, workspace: Workspace) -> None:
        """See to it that a volume's unsaved work is on disk from now on."""
        session = workspace.session
        if session is None or workspace.autosave is not None or not session.unsaved:
            return
        if not self._controller().preferences.autosave or self.problem:
            return
        try:
            workspace.autosave = Autosave(session, on_problem=self._problem.emit)
        except CannotWrite as error:
            self._on_problem(str(error))
            return
        source = workspace.volume.source
        if source is not None:
            with contextlib.suppress(CannotWrite):  # without it the user opens the image by hand
                write_text(Path(f"{workspace.autosave.path}{_SOURCE}"), str(source.path))

    def let_go(self, workspace: Workspace, *, discard: bool) -> None:
        """Stop keeping. discard: its work is saved, or thrown away, so there is nothing to offer."""
        autosave, workspace.autosave = workspace.autosave, None
        if autosave is not None:
            autosave.close(discard=discard)
            if discard:
                Path(f"{autosave.path}{_SOURCE}").unlink(missing_ok=True)

    def close(self) -> None:
        """Stop looking."""
        self._queue.close()

    def _on_problem(self, text: str) -> None:
        self.problem = text
        warn(text)
        self.changed.emit()

    # Offering

    def look(self) -> None:
        """Find out, in a thread of its own, what there is to recover; `changed` tells when that is known."""
        controller = self._controller()
        if controller is None or not controller.preferences.autosave:
            return
        workspace = controller.workspace
        volume = workspace.volume if workspace is not None else None

        def search() -> list[Offer]:
            found = recoverable()
            shapes = {one.facts.volume_shape for one in found}
            # A volume is hashed only if something of its shape was left behind.
            here = volume_fingerprint(volume) if volume is not None and volume.shape in shapes else ""
            offers = [Offer(one, one.facts.volume_fingerprint == here, _source_of(one)) for one in found]
            return sorted(offers, key=lambda offer: not offer.here)

        self._queue.submit(search, label="", key="look", on_done=self._found, on_error=report)

    def restore(self, offer: Offer) -> None:
        """Go on with what was left behind; on an image that is not looked at, show that first."""
        controller = self._controller()
        if not offer.here:
            self._show_image(offer)
            return
        workspace = controller.workspace
        with reported():
            session = PromptSession.recover(
                offer.found.path, controller.model, workspace.volume, controller.embedding_store()
            )
            self.let_go(workspace, discard=not (workspace.session is not None and workspace.session.unsaved))
            controller.adopt(session)
            autosave = workspace.autosave
            # The old file goes only once the new one holds everything.
            self._queue.submit(
                lambda: autosave is not None and autosave.flush() and self._drop(offer), label="", on_error=report
            )
            self.offers = [other for other in self.offers if other is not offer]
            self.changed.emit()
            tell(f"Restored. {offer.in_words()}")

    def _show_image(self, offer: Offer) -> None:
        """Go to the image that was worked on, and to its frame; open it if it is not there, or another one by now."""
        controller = self._controller()
        viewer, frame = controller.viewer, offer.frame
        layer = _image_of(offer, viewer.layers)
        if layer is None or (layer is controller.layer and planes.shown_frame(viewer, layer) == frame):
            if offer.source is None:
                return
            layer = _image_of(offer, viewer.open(str(offer.source), plugin="napari-medtransformer"))
        if layer is not None:
            planes.show_frame(viewer, layer, frame)
            controller.set_layer(layer)
            controller.in_front.bring()

    def discard(self, offer: Offer) -> None:
        """Throw away what was left behind."""
        self._drop(offer)
        self.offers = [other for other in self.offers if other is not offer]
        self.changed.emit()

    def put_off(self, offer: Offer) -> None:
        """Do not offer it again before the next start."""
        self._put_off.add(offer.found.path)
        self.offers = [other for other in self.offers if other is not offer]
        self.changed.emit()

    def _found(self, offers: list[Offer]) -> None:
        self.offers = [offer for offer in offers if offer.found.path not in self._put_off and offer.found.objects]
        self.changed.emit()

    def _drop(self, offer: Offer) -> bool:
        offer.found.discard()
        Path(f"{offer.found.path}{_SOURCE}").unlink(missing_ok=True)
        return True


def _source_of(found: Recoverable) -> Path | None:
    note = Path(f"{found.path}{_SOURCE}")
    try:
        source = Path(note.read_text(encoding="utf-8"))
    except OSError:
        return None
    return source if source.exists() else None


def _image_of(offer: Offer, layers: Iterable[Layer]) -> Layer | None:
    """The first layer of these that shows the image of an offer, by its file and shape."""
    for layer in layers:
        volume = volume_on(layer)
        if volume is None or volume.source is None or offer.source is None or not is_image_of(layer, volume):
            continue
        same_file = volume.source.path.resolve() == offer.source.resolve()
        if same_file and volume.shape == offer.found.facts.volume_shape and offer.frame < frames_of(layer):
            return layer
    return None


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"
