"""The tab Positions: what tells the tokens where they are, and what happens to the masks without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QWidget

from napari_medtransformer.plugin.attention.drawing import heat_of_map
from napari_medtransformer.plugin.attention.head_switches import HeadSwitches
from napari_medtransformer.plugin.attention.pictures import coloured
from napari_medtransformer.plugin.attention.state import AttentionState
from napari_medtransformer.plugin.attention.subject import object_name
from napari_medtransformer.plugin.widgets.choices import Choice, offer
from napari_medtransformer.plugin.widgets.columns import SideBySide, stacked
from napari_medtransformer.plugin.widgets.picture_view import PictureView
from napari_medtransformer.plugin.widgets.style import QuietLabel, row, section, tool_button

if TYPE_CHECKING:
    from napari_medtransformer.attention.positions import PositionalEncoding
    from napari_medtransformer.inspection.position_views import PositionView

CONTROLS_WIDTH = 320


class PositionsTab(SideBySide):
    """A face of the model's positional encodings; changes to them go through HeadSwitches."""

    def __init__(self, state: AttentionState, switches: HeadSwitches) -> None:
        super().__init__()
        self.state, self.switches = state, switches
        self.encodings: list[PositionalEncoding] = []
        self._encodings_of: object = None
        controls = stacked(self._encoding_section(), self._effect_section())
        frame, layout = section("Picture")
        self.picture = PictureView("", smooth=False)
        self.explained = QuietLabel()
        layout.addWidget(self.picture, 1)
        layout.addWidget(self.explained)
        self.fill((controls, 0), (frame, 1), first_width=CONTROLS_WIDTH)
        switches.changed.connect(self._refresh_effect)

    def _encoding_section(self) -> QWidget:
        self.as_layer = QCheckBox("on the anatomy")
        self.as_layer.setToolTip("Draw the similarity of the position that was clicked with all others as a layer")
        self.as_layer.toggled.connect(lambda: self._show_layer())
        frame, layout = section("Encoding", self.as_layer)
        self.encoding = Choice("The positional encodings that the model keeps, and sines and cosines to compare with")
        self.encoding.setPlaceholderText("encodings appear with the first click")
        self.encoding.setEnabled(False)
        self.encoding.activated.connect(lambda: self._on_encoding())
        self.view = Choice("What is shown of it")
        self.view.activated.connect(lambda: self._show_picture())
        layout.addWidget(self.encoding)
        layout.addWidget(self.view)
        self.described = QuietLabel()
        layout.addWidget(self.described)
        return frame

    def _effect_section(self) -> QWidget:
        frame, layout = section("Without it")
        self.zero = tool_button(None, "Set the encoding to zero and predict this slice's objects anew", text="Zero")
        self.shuffle = tool_button(None, "Permute its places at random and predict anew", text="Shuffle")
        self.back = tool_button(None, "The model as it is", text="As it is")
        self.zero.clicked.connect(lambda: self._alter("zero"))
        self.shuffle.clicked.connect(lambda: self._alter("shuffle"))
        self.back.clicked.connect(self.switches.all_on)
        layout.addLayout(row(self.zero, self.shuffle, self.back))
        self.effect = QuietLabel()
        layout.addWidget(self.effect)
        return frame

    # ------------------------------------------------------------------ showing

    @property
    def chosen(self) -> PositionalEncoding | None:
        """The encoding that is shown."""
        place = self.encoding.currentIndex()
        return self.encodings[place] if 0 <= place < len(self.encodings) else None

    def refresh(self) -> None:
        """Show the model's encodings and the chosen picture of the chosen one."""
        inspection = self.state.inspection
        if inspection is None:
            for chooser in (self.encoding, self.view):
                chooser.setEnabled(False)
            self._show_nothing("Click a voxel first: the position there is what is compared with all others.")
            self._refresh_effect()
            return
        if self._encodings_of is not inspection.model:
            from napari_medtransformer.inspection.position_views import shown_encodings

            self.encodings, self._encodings_of = shown_encodings(inspection), inspection.model
        offer(self.encoding, [(encoding.name, None) for encoding in self.encodings], "none")
        self._on_encoding()
        self._refresh_effect()

    def _on_encoding(self) -> None:
        from napari_medtransformer.inspection.position_views import views_of
        from napari_medtransformer.inspection.positions import describe_encoding

        encoding = self.chosen
        offer(self.view, [] if encoding is None else [(title, None) for title in views_of(encoding)], "none")
        if encoding is None:
            self._show_nothing("This model keeps no positional encoding of its own.")
            return
        self.described.setText(describe_encoding(encoding))
        self._show_picture()

    def _show_nothing(self, why: str) -> None:
        self.described.setText(why)
        self.picture.show_picture(None, "")
        self.explained.setText("")

    def _show_picture(self) -> None:
        from napari_medtransformer.errors import MedTransformerError
        from napari_medtransformer.inspection.position_views import position_view

        encoding, answer, inspection = self.chosen, self.state.answer, self.state.inspection
        if encoding is None or inspection is None or answer is None or not self.view.currentText():
            return
        place: tuple[float, ...] = answer.mark_yx or tuple(n / 2 for n in inspection.image.shape)
        if answer.solid is not None:
            place = self.state.query.position_zyx
        try:
            view: PositionView = position_view(inspection, encoding, self.view.currentText(), place)
        except MedTransformerError as error:
            self.picture.show_picture(None, "")
            self.explained.setText(str(error))
            return
        colours = coloured(view.values, "coolwarm" if view.signed else "viridis", view.limits)
        self.picture.show_picture(colours, f"{view.limits[0]:.2g} to {view.limits[1]:.2g}")
        self.explained.setText(view.explained)
        self._show_layer()

    def _show_layer(self) -> None:
        from napari_medtransformer.attention.positions import PositionTable
        from napari_medtransformer.inspection.positions import similarity_heatmap
        from napari_medtransformer.inspection.queries import encoder_sites

        encoding, answer, heat = self.chosen, self.state.answer, None
        solid = answer is not None and answer.solid is not None
        usable = isinstance(encoding, PositionTable) and len(encoding.grid) == (3 if solid else 2)
        self.as_layer.setEnabled(usable)
        if self.as_layer.isChecked() and usable and answer is not None and answer.mark_yx is not None:
            grid = encoder_sites(self.state.inspection)[-1].query_grid  # where tables lie, whatever site answers
            place: tuple[float, ...] = self.state.query.position_zyx if solid else answer.mark_yx
            found = similarity_heatmap(encoding, grid, place)
            heat = heat_of_map(found, self.state.where, smooth=self.state.style.smooth, signed=True)
        self.state.draw_instead(heat)

    # ------------------------------------------------------------------ without it

    def _alter(self, alteration: str) -> None:
        encoding = self.chosen
        if encoding is None:
            return
        from napari_medtransformer.attention.altered_positions import altered_positions
        from napari_medtransformer.inspection.positions import masks_with_altered_positions
        from napari_medtransformer.inspection.volume_ablation import labels_under

        word = {"zero": "set to zero", "shuffle": "shuffled"}[alteration]
        self.switches.off.clear()
        if self.state.inspected.is_automatic:

            def change(inspection: Any, _: Any) -> Any:
                return labels_under(inspection, altered_positions(inspection.model.network, encoding, alteration))
        else:

            def change(inspection: Any, prompts: Any) -> Any:
                return masks_with_altered_positions(inspection, encoding, alteration, prompts)

        self.switches.run(change, f"{encoding.name} {word}")

    def _refresh_effect(self) -> None:
        switches = self.switches
        own = self.chosen is not None and self.chosen.name in (e.name for e in self._kept())
        for button in (self.zero, self.shuffle):
            button.setEnabled(self.state.inspection is not None and own)
        self.back.setEnabled(bool(switches.outcome))
        if not switches.altered:
            self.effect.setText("How much of the masks hangs on it: switch it off and see.")
            return
        lines = [
            f"{object_name(self.state, number)}: Dice {effect.dice:.3f} with the mask of the whole model"
            for number, effect in switches.outcome.items()
        ]
        self.effect.setText("\n".join([switches.altered, *lines]))

    def _kept(self) -> list[PositionalEncoding]:
        """Those that the model itself keeps."""
        return [encoding for encoding in self.encodings if not encoding.name.startswith("sinusoidal")]
