"""Numbers and pictures to take away: shares that sum to one, figures with captions, lines where they should lie."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import CannotWrite
from napari_medtransformer.inspection import inspect_slice
from napari_medtransformer.inspection.ablation import masks_without, rank_heads
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.export import answer_figure, answer_shares, answer_volume, write_table
from napari_medtransformer.inspection.gallery import draw_change, draw_matrix
from napari_medtransformer.inspection.matrix import head_matrix, matrix_steps
from napari_medtransformer.inspection.outline import token_lines, top_mass_contour, top_mass_level, window_lines
from napari_medtransformer.inspection.queries import ROLLOUT, RegionQuery, VoxelQuery
from napari_medtransformer.inspection.shares import share_inside, shares_by_label
from napari_medtransformer.models import load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.progress import Partial, run_to_end
from napari_medtransformer.volumes import read_volume
from napari_medtransformer.volumes.reading import read_labels
from napari_medtransformer.volumes.sample_data import sample_label_names, sample_path

SLICE = 104  # of the sample CT: liver, spleen, stomach, spine
CLICK = Prompts(np.array([[42.0, 43.0]], np.float32), np.array([1]))


@pytest.fixture(scope="module")
def inspection():
    volume = read_volume(sample_path("example_ct.nii.gz"))
    return inspect_slice(load_model("medt-click-tiny", device="cpu"), volume, 0, SLICE).with_prompts(CLICK)


@pytest.fixture(scope="module")
def organs():
    return read_labels(sample_path("example_seg_fast_force_split.nii.gz")).data


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_attention_on_the_61_organs_and_the_background_sums_to_one(inspection, organs, axis):
    assert len(np.unique(organs)) == 62
    index = organs.shape[axis] // 2
    seen = inspect_slice(inspection.model, inspection.volume, axis, index)
    voxel = [n / 2 for n in organs.shape]
    voxel[axis] = float(index)
    for answer in run_to_end(matrix_steps(seen, VoxelQuery(tuple(voxel)))):
        shares = shares_by_label(answer.heatmap, seen.on_slice(organs))
        np.testing.assert_allclose(shares.shares.sum(axis=1) + shares.outside, 1, atol=1e-5)
        assert shares.extent.sum() == pytest.approx(1)
    np.testing.assert_allclose(
        share_inside(answer.heatmap, seen.on_slice(organs) == shares.labels[-1]), shares.shares[:, -1], atol=1e-6
    )


def test_the_table_names_structures_and_every_head_sums_to_one(inspection, organs, tmp_path):
    names = sample_label_names("total")
    answer = ask(inspection, "encoder.3", RegionQuery("liver", inspection.on_slice(organs) == 5))
    path = write_table(answer_shares(inspection, answer, organs, names), tmp_path / "shares.csv")
    rows = list(csv.DictReader(path.read_text().splitlines()))
    assert {row["head"] for row in rows} == {"0", "1", "2", "3", "4", "5", "mean"}
    for head in ("0", "5", "mean"):
        assert sum(float(row["share"]) for row in rows if row["head"] == head) == pytest.approx(1, abs=1e-4)
    assert {row["name"] for row in rows} >= {"background", "outside", "liver"}
    with pytest.raises(CannotWrite, match=r"\.csv"):
        write_table([["a"]], tmp_path / "shares.xlsx")


def test_five_lines_of_python_go_from_a_file_to_table_and_figure(organs, tmp_path):
    import napari_medtransformer as nmt
    from napari_medtransformer import inspection as look

    volume = nmt.read_volume(sample_path("example_ct.nii.gz"))
    seen = look.inspect_slice(nmt.load_model("medt-click-tiny"), volume, axis=0, index=106)
    answer = look.ask(seen, "encoder.2", look.RegionQuery("liver", organs[106] == 5))
    table = look.answer_shares(seen, answer, organs, {5: "liver", 32: "vertebrae_T12"})
    assert look.write_figure(look.answer_figure(seen, answer), tmp_path / "heads.png").stat().st_size > 10_000
    assert {"liver", "vertebrae_T12"} <= {row[3] for row in table}


def test_a_figure_says_model_site_and_who_asked(inspection):
    answer = ask(inspection, "encoder.1", VoxelQuery((float(SLICE), 42.0, 43.0)))
    figure = answer_figure(inspection, answer)
    caption = figure.texts[0].get_text().replace("\n", " ")
    for word in ("medt-click-tiny", "site encoder.1 (global, 6 heads)", "voxel z 104, y 42, x 43", "example_ct"):
        assert word in caption
    assert caption.endswith("Titles: entropy and mean distance of the attention.")


@pytest.mark.parametrize("site, names", [(ROLLOUT, None), ("encoder.1", ["mean"])])
def test_a_figure_whose_titles_have_no_numbers_does_not_say_that_they_have(inspection, site, names):
    answer = ask(inspection, site, VoxelQuery((float(SLICE), 42.0, 43.0)))
    figure = answer_figure(inspection, answer, names)
    assert " nats" not in figure.axes[0].get_title()
    assert figure.texts[0].get_text().startswith("medt-click-tiny")
    assert "Titles" not in figure.texts[0].get_text()


def test_maps_on_the_volume_lie_on_their_slice_alone(inspection):
    answer = ask(inspection, "encoder.1", VoxelQuery((float(SLICE), 42.0, 43.0)))
    full = answer_volume(inspection, answer, ["2", "mean"])
    assert full.shape == (2, *inspection.volume.shape)
    np.testing.assert_array_equal(full[0, SLICE], answer.on_pixels("2", smooth=False))
    assert not np.delete(full, SLICE, axis=1).any()


def test_the_matrix_figure_frames_every_head(inspection):
    answers = run_to_end(matrix_steps(inspection, VoxelQuery((float(SLICE), 42.0, 43.0))))[:2]
    figure = draw_matrix(inspection, answers, head_matrix(answers, "entropy"), "a caption")
    titles = [axis.get_title() for axis in figure.axes[:12]]
    assert titles == [f"{value:.1f}" for answer in answers for value in answer.entropy_nats]


def test_switching_off_a_block_is_the_engines_ablation(inspection):
    model, site = inspection.model, "encoder.0"
    found = masks_without(inspection, {site: range(6), "encoder.1": []}, {1: CLICK, 4: CLICK})
    with ablated_heads(model, {site: "all"}):
        without = model.decode(model.encode(inspection.image, inspection.spacing_mm), CLICK)
    best = int(np.argmax(model.decode(inspection.embedding, CLICK).scores))
    np.testing.assert_array_equal(found[1].changed, without.logits[best] > 0)
    assert sorted(found) == [1, 4]
    assert draw_change(inspection, {"without": found[1]}, "a caption").axes[1].get_title().startswith("without: Dice")


def test_ranking_can_be_stopped_after_any_head(inspection):
    steps = rank_heads(inspection, CLICK, ["decoder.1.image-to-prompt"])
    first = next(step for step in steps if isinstance(step, Partial))
    steps.close()
    every = run_to_end(rank_heads(inspection, CLICK, ["decoder.1.image-to-prompt"]))
    assert first.value == every[:1]
    assert [effect.head for effect in every] == [0, 1, 2, 3]


def test_the_contour_surrounds_the_share_that_was_asked_for():
    rng = np.random.default_rng(0)
    values = rng.random((30, 40)) ** 4
    for share in (0.1, 0.5, 0.9):
        level = top_mass_level(values, share)
        above = values[values >= level].sum() / values.sum()
        assert share <= above <= share + values.max() / values.sum()
    with pytest.raises(ValueError, match="share"):
        top_mass_level(values, 1.0)
    bump = np.zeros((30, 40))
    bump[10:20, 5:15] = 1.0
    segments = top_mass_contour(bump, 0.99)
    assert segments[..., 0].min() == pytest.approx(9, abs=1)
    assert segments[..., 1].max() == pytest.approx(15, abs=1)
    corner = np.zeros((5, 5))
    corner[0, 0] = 1
    closed = top_mass_contour(corner, 0.5)  # ends meet, also at the image's edge
    np.testing.assert_allclose(np.sort(closed[:, 0], axis=0), np.sort(closed[:, 1], axis=0), atol=1e-9)


def test_lines_lie_on_the_edges_of_tokens_and_of_shifted_windows():
    placement = InputPlacement((8, 12), (8, 12), (8, 12))
    grid = TokenGrid(TokenLayout((2, 2), window=(2, 3), shift=(1, 1)), placement)
    across = {float(s[0, 0]) for s in token_lines(grid) if s[0, 0] == s[1, 0]}
    assert across == {-0.5, 1.5, 3.5, 5.5, 7.5}
    rows = {float(s[0, 0]) for s in window_lines(grid) if s[0, 0] == s[1, 0]}
    # windows of two tokens, rolled by one: they end after one token, three tokens, …
    assert rows == {-0.5, 1.5, 5.5, 7.5}
    tokens = np.arange(24).reshape(4, 6)
    for window in grid.window_tokens:
        places = np.argwhere(np.isin(tokens, window.numpy()))
        for y, x in places:
            # a token and its neighbour below are in one window unless a line lies between them
            below = tokens[y + 1, x] if y + 1 < 4 else -1
            wraps = y + 1 < 4 and (2 * y + 1.5) in rows
            if below >= 0 and not wraps:
                assert below in window
