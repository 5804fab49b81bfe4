"""Make the pictures of docs/attention.md from the sample data and the bundled models: docs/images/attention-*.png.

Run with `make docs-figures`; takes about a minute on two cores.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.attention.positions import PositionTable, RelativeBias, find_positional_encodings
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.ablation import ObjectEffect, masks_under, masks_without, rank_heads
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.export import answer_figure
from napari_medtransformer.inspection.figure import write_figure
from napari_medtransformer.inspection.gallery import draw_change, draw_matrix, draw_positions, draw_relative_bias
from napari_medtransformer.inspection.inspect import SliceInspection
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.position_views import CHANNELS, HERE, MOSAIC, position_view
from napari_medtransformer.inspection.positions import encodings_of, masks_with_altered_positions
from napari_medtransformer.inspection.queries import ROLLOUT, RegionQuery, VoxelQuery, default_prompt_query
from napari_medtransformer.models import list_models, load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.reading import read_labels
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

logger = logging.getLogger("docs_figures")
FOLDER = Path(__file__).resolve().parents[1] / "docs" / "images"
CLICK_MODEL, SWIN_MODEL = "medt-click-tiny", "medt-hippocampus"
DOTS_PER_INCH = 130
COLOURS, MAX_BYTES = 256, 380_000
"""Of a picture that would be larger: its palette."""


def main() -> int:
    """Write every picture."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = load_model(CLICK_MODEL, device="cpu")
    volume = read_volume(sample_path("example_ct.nii.gz"))
    labels = read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data
    numbers = {name: number for number, name in sample_label_names("total").items()}
    liver = labels == numbers["liver"]
    index = int(np.argmax(liver.sum(axis=(1, 2))))
    inside = np.argwhere(liver[index])
    y, x = inside[np.argmin(((inside - inside.mean(axis=0)) ** 2).sum(axis=1))]
    prompts = Prompts(np.array([[y, x]], np.float32), np.array([1]))
    inspection = inspect_slice(model, volume, 0, index).with_prompts(prompts)
    voxel = VoxelQuery((float(index), float(y), float(x)))

    encoder = [site.name for site in inspection.sites if site.kind == "global"]
    save("heads", answer_figure(inspection, ask(inspection, encoder[0], voxel)))
    save("rollout", answer_figure(inspection, ask(inspection, ROLLOUT, voxel), smooth=True))
    decoder = [site.name for site in inspection.sites if site.kind == "prompt-to-image"][-1]
    save("prompt", answer_figure(inspection, ask(inspection, decoder, default_prompt_query(inspection))))
    matrix_figure(inspection, RegionQuery("the liver", liver[index]), labels[index], numbers)
    position_figures(inspection, (float(y), float(x)))
    ablation_figure(inspection, prompts)
    bias_figure()
    return 0


def matrix_figure(inspection: SliceInspection, query: RegionQuery, labels: np.ndarray, numbers: dict[str, int]) -> None:
    """All heads asked by the liver, framed by how much they look at the spine."""
    # at the decoder's sites the click would ask, not the liver
    answers = [answer for answer in run_to_end(matrix_steps(inspection, query)) if answer.kind == "global"]
    spine = np.isin(labels, [number for name, number in numbers.items() if name.startswith("vertebrae")])
    matrix = head_matrix(answers, "share", spine)
    row, column = np.unravel_index(int(np.nanargmax(matrix.values)), matrix.values.shape)
    text = (
        f"{inspection.model.card.name}, asked by the liver on the axial slice {inspection.plane.index}: every head of "
        f"every encoder block. Frames and numbers: % of the attention on the spine; most has head {column} of "
        f"{matrix.sites[row]}. Each map is coloured from 0 to its own maximum."
    )
    save("matrix", draw_matrix(inspection, answers, matrix, text))


def position_figures(inspection: SliceInspection, yx: tuple[float, float]) -> None:
    """The tables of the click model: what every position has in common with every other."""
    for encoding in encodings_of(inspection):
        if isinstance(encoding, PositionTable):
            views = [(title, position_view(inspection, encoding, title, yx)) for title in (HERE, MOSAIC, CHANNELS)]
            save(f"positions-{encoding.kind}", draw_positions(views, encoding, inspection.model.card.name))


def ablation_figure(inspection: SliceInspection, prompts: Prompts) -> None:
    """Before and after: the decoder's head that matters most, all of its heads, its positions."""
    sites = [spec.name for spec in inspection.model.attention_sites() if spec.kind not in ("global", "window")]
    effects = run_to_end(rank_heads(inspection, prompts, sites))
    worst = min(effects, key=lambda effect: effect.dice)
    shown: dict[str, ObjectEffect] = {
        f"without head {worst.head} of\n{worst.site}": masks_without(
            inspection, {worst.site: [worst.head]}, {1: prompts}
        )[1]
    }
    off = ablated_heads(inspection.model, dict.fromkeys(sites, "all"))
    shown["without all heads\nof the decoder"] = masks_under(inspection, off, {1: prompts}, encode=False)[1]
    fourier = [e for e in encodings_of(inspection) if isinstance(e, PositionTable) and e.kind == "fourier"]
    for encoding in fourier[:1]:
        changed = masks_with_altered_positions(inspection, encoding, "zero", {1: prompts})[1]
        shown["without the decoder's\npositions"] = changed
    text = (
        f"{inspection.model.card.name}, one click in the liver: the mask of the whole model, then with parts of it "
        "switched off. Grey: stayed, orange: lost, blue: gained."
    )
    save("ablation", draw_change(inspection, shown, text))


def bias_figure() -> None:
    """The relative bias of a 3D Swin transformer: the bundled one where there is one, else MONAI's, drawn at random."""
    names = [card.name for card in list_models()]
    if SWIN_MODEL in names:
        network, whose = load_model(SWIN_MODEL, device="cpu").network, SWIN_MODEL
    else:
        import torch
        from monai.networks.nets import SwinUNETR

        torch.manual_seed(0)
        network, whose = SwinUNETR(1, 2, feature_size=24), "MONAI's SwinUNETR with random weights"
    found = [e for e in find_positional_encodings(network) if isinstance(e, RelativeBias)]
    text = (
        f"{whose}: {found[0].name}, what each head of the first block adds to the score of a key by its offset from "
        "the query, slices along z from left to right; the centre is offset zero."
    )
    save("bias", draw_relative_bias(found[0], text))


def save(name: str, figure: Figure) -> None:
    """Write a figure to docs/images/attention-NAME.png."""
    path = write_figure(figure, FOLDER / f"attention-{name}.png", dots_per_inch=DOTS_PER_INCH)
    with Image.open(path) as picture:
        colours = picture.convert("RGB")
    colours.save(path, optimize=True)
    if path.stat().st_size > MAX_BYTES:  # dithered: steps in a colour bar would be read as steps of attention
        palette = colours.quantize(COLOURS)
        colours.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    logger.info("%s, %d kB", path.relative_to(FOLDER.parents[1]), path.stat().st_size // 1000)


if __name__ == "__main__":
    sys.exit(main())
