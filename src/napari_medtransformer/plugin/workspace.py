"""One image layer that is worked on: its volume, its session, and the layers that show them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
from napari.layers import Image, Labels, Layer

from napari_medtransformer.errors import MedTransformerError
from napari_medtransformer.models.base import PromptableModel
from napari_medtransformer.plugin.adding import insert_quietly
from napari_medtransformer.plugin.label_colours import label_colours
from napari_medtransformer.plugin.layer_volume import LayerVolume, labels_of_layer, same_place, volume_of_layer
from napari_medtransformer.plugin.layers import VOLUME_KEY
from napari_medtransformer.plugin.notify import warn
from napari_medtransformer.plugin.prompts.commands import PromptCommands
from napari_medtransformer.plugin.prompts.commits import Commits
from napari_medtransformer.plugin.prompts.layers import PromptLayers
from napari_medtransformer.plugin.widgets.style import object_colour
from napari_medtransformer.prompting import PromptSession, Request
from napari_medtransformer.prompting.autosave import Autosave
from napari_medtransformer.prompting.embedding_store import EmbeddingStore
from napari_medtransformer.prompting.prompts import Prompt

MASK_OPACITY = 0.5


class Workspace:
    """The session on one image layer and its layers in the viewer. Only the window's thread touches it.

    Raises UnsupportedVolume if the layer is no volume.
    """

    def __init__(
        self,
        viewer: Any,
        layer: Image,
        commands: PromptCommands,
        frame: int = 0,
    ) -> None:
        self._viewer = weakref.ref(viewer)
        self.layer = layer
        self.frame = frame
        known: LayerVolume = volume_of_layer(layer, frame)
        self.volume = known.volume
        self.assumed = known.assumed
        self.session: PromptSession | None = None
        self.waiting: list[Prompt] = []  # prompts given before the model was there
        self.current_object = 1
        self.commits = Commits()
        self.committed: weakref.ref[Labels] | None = None  # the user's layer that labels were handed to last
        self.autosave: Autosave | None = None
        self.masks: Labels | None = None
        self._results: weakref.WeakSet[Layer] = weakref.WeakSet()
        self._aside: weakref.WeakSet[Layer] = weakref.WeakSet()  # those that are hidden with this frame
        self._is_shown = True
        self._painted = -1  # the session's, when the masks were drawn last
        here = weakref.ref(self)
        self.prompts = PromptLayers(self.add_layer, layer, commands, lambda: commands.turn_to(here()))

    def colour(self, object_id: int) -> str:
        """The object's colour, as hex."""
        objects = self.session.objects if self.session is not None else ()
        chosen = next((one.colour for one in objects if one.object_id == object_id), "")
        return chosen or object_colour(object_id)

    def object_name(self) -> str:
        """What the selected object is called."""
        objects = self.session.objects if self.session is not None else ()
        name = next((o.name for o in objects if o.object_id == self.current_object), "")
        return name or f"object {self.current_object}"

    @property
    def shown_prompts(self) -> dict[int, Prompt]:
        """Every prompt by its number; those that wait for a model are numbered from below zero."""
        if self.session is None:
            return dict(enumerate(self.waiting, start=-len(self.waiting)))
        return self.session.prompts

    def refresh(self, selected: frozenset[int] = frozenset()) -> None:
        """Show the session as it is now. selected: prompts that are marked."""
        if self.session is None:
            objects = {prompt.object_id for prompt in self.waiting} | {self.current_object}
            self.prompts.sync(self.shown_prompts, {i: self.colour(i) for i in objects})
            return
        if self.session.state.slices:
            self.show_masks()
        if self.masks is not None:
            self._colour_masks()
            if self._painted != self.session.painted:
                self.masks.refresh(extent=False, thumbnail=False)
                self._painted = self.session.painted
        self.prompts.sync(self.shown_prompts, self._colours(), selected)

    def show_masks(self) -> None:
        """Let there be a layer of the objects' masks."""
        if self.masks is None:
            masks = self._make_masks()
            self.add_layer(masks, below_prompts=True)
            self.masks = masks
            self._colour_masks()

    def use_model(
        self,
        model: PromptableModel,
        window: tuple[float, float] | None,
        embeddings_bytes: int,
        store: EmbeddingStore | None = None,
    ) -> list[Request]:
        """Let this model answer, through this window; prompts, masks and undo stay. Returns what is to be predicted.

        Of the prompts that waited for a model, those that this one does not take are left out, with a warning.
        Raises UnsupportedModel and InvalidPrompt.
        """
        if self.session is not None:
            low_high = window or (self.volume.window.low, self.volume.window.high)
            return self.session.switch_model(model, low_high)
        part = f"frame {self.frame}" if self.layer.ndim == 4 else ""
        session = PromptSession(model, self.volume, window, embeddings_bytes, store, part)
        requests: list[Request] = []
        reasons: list[str] = []
        for prompt in self.waiting:
            try:
                requests.append(session.add_prompt(prompt))
            except MedTransformerError as error:
                reasons.append(str(error))
        self.waiting = []
        self.show_session(session)
        if reasons:
            prompts = "A prompt" if len(reasons) == 1 else f"{len(reasons)} prompts"
            warn(f"{prompts} given before the model was there could not be kept. {' '.join(dict.fromkeys(reasons))}")
        return requests

    @property
    def unsaved(self) -> bool:
        """Whether there is work that no session file holds."""
        return self.session is not None and self.session.unsaved

    @property
    def drawn(self) -> list[Layer]:
        """The layers that show something of this volume: masks, prompts, and results of automatic models."""
        return [layer for layer in (self.masks, *self.prompts.layers, *self._results) if layer is not None]

    def set_visible(self, visible: bool) -> None:
        """Show or hide the layers of this volume: those of other frames would lie on it."""
        self._is_shown = visible
        for layer in (self.masks, *self.prompts.layers):
            if layer is not None:
                layer.visible = visible
        if not visible:
            self._aside.update([layer for layer in self._results if layer.visible])
        for layer in list(self._aside):
            layer.visible = visible
        if visible:
            self._aside.clear()

    def add_result(self, layer: Layer) -> None:
        """Add what an automatic model found, not drawn yet: right above image and masks."""
        self._results.add(layer)
        self.add_layer(layer, below_prompts=True)

    def show_result(self, layer: Layer) -> None:
        """Draw it, as soon as this volume is on screen."""
        if self._is_shown:
            layer.visible = True
        else:
            self._aside.add(layer)

    def show_session(self, session: PromptSession) -> None:
        """Work with another session from now on."""
        self.session = session
        self.commits = Commits()
        self._painted = -1
        self._drop_masks()
        self.refresh()

    def add_layer(self, layer: Layer, *, below_prompts: bool = False) -> None:
        """Add a layer of ours without taking the selection from the layer the user works on.

        below_prompts: right above image and masks, so that no prompt is hidden by it; else on top.
        """
        viewer = self._viewer()
        if viewer is None:
            return
        place = len(viewer.layers)
        if below_prompts:
            base = self.masks if self.masks is not None and self.masks in viewer.layers else self.layer
            place = viewer.layers.index(base) + 1  # at once: moving it would draw and list everything again
        insert_quietly(viewer, place, layer)
        if not viewer.layers.selection:
            viewer.layers.selection.active = self.layer

    def labels_layer_for_user(self) -> Labels:
        """An empty labels layer on the image's grid, in the objects' colours, for the user to keep and paint on."""
        layer = Labels(
            np.zeros_like(labels_of_layer(self.session.live_labels, self.layer)),
            name=f"{self.layer.name} labels",
            opacity=MASK_OPACITY,
            metadata={VOLUME_KEY: self.volume},
            **same_place(self.layer),
        )
        layer.colormap = label_colours({o.object_id: self.colour(o.object_id) for o in self.session.objects})
        return layer

    def forget(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        if layer is self.masks:
            self.masks = None
        self.prompts.forget(layer)

    def hand_over(self) -> None:
        """The image is gone: its prompts go too, and what was found, if any, is left as labels of the user's own."""
        viewer = self._viewer()
        if viewer is None:
            return
        for layer in self.prompts.layers:
            if layer in viewer.layers:
                viewer.layers.remove(layer)
        if self.session is not None and not self.session.state.slices:
            self._drop_masks()
        elif self.masks is not None and self.masks in viewer.layers:
            self.masks.data = np.array(self.masks.data)
            self.masks.editable = True
            self.masks.keymap = {}  # napari's own keys again, as of any layer to paint on
        self.masks = None

    def _make_masks(self) -> Labels:
        session = self.session
        layer = Labels(
            labels_of_layer(session.live_labels, self.layer),
            name=f"{self.layer.name} objects",
            opacity=MASK_OPACITY,
            metadata={VOLUME_KEY: self.volume},
            **same_place(self.layer),
        )
        layer.editable = False  # it mirrors the session; a copy is the user's to paint on
        return layer

    def _drop_masks(self) -> None:
        viewer = self._viewer()
        if self.masks is not None and viewer is not None and self.masks in viewer.layers:
            viewer.layers.remove(self.masks)
        self.masks = None

    def _colours(self) -> dict[int, str]:
        """Of the objects, and of the one that the next prompt will make."""
        return {i: self.colour(i) for i in (*(o.object_id for o in self.session.objects), self.current_object)}

    def _colour_masks(self) -> None:
        colours = self._colours()
        names = {o.object_id: o.name for o in self.session.objects}
        state = tuple(sorted(colours.items())), tuple(sorted(names.items()))
        if self.masks.metadata.get("medt_shown") == state:
            return
        self.masks.colormap = label_colours(colours)
        ids = [0, *sorted(names)]
        self.masks.features = {"index": ids, "name": ["background", *(names[i] for i in ids[1:])]}
        self.masks.metadata["medt_shown"] = state
