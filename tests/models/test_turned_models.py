"""SwinUNETR as published sees the patient as (x, y, z) to Right, Anterior, Superior: its maps lie on the patient.

Two oracles: the same network without the turn, its input flipped and its maps flipped back by hand; and attention made
local on purpose, asked for one place of the patient in files of every orientation.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from small_models import window_card
from turned_models import CARD, EncoderAlone, build_local, orientations, write_oriented

from napari_medtransformer.attention.ablation import ablated_heads
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.probe import AttentionProbe
from napari_medtransformer.attention.turn import Turn
from napari_medtransformer.inspection.answering import ask
from napari_medtransformer.inspection.positions import encodings_of
from napari_medtransformer.inspection.queries import ROLLOUT, EverythingQuery, RegionQuery, VoxelQuery
from napari_medtransformer.inspection.relevance import label_relevance
from napari_medtransformer.inspection.volume_ablation import labels_without
from napari_medtransformer.inspection.volume_queries import ask_everywhere_steps
from napari_medtransformer.inspection.windows import inspect_windows
from napari_medtransformer.models import swin_unetr
from napari_medtransformer.models.window_model import WindowModel
from napari_medtransformer.progress import run_to_end
from napari_medtransformer.segmentation.window_plan import plan_windows
from napari_medtransformer.volumes import Volume, read_volume

CPU, FLOAT = torch.device("cpu"), torch.float32
WINDOW, SMALL = (64, 32, 32), (32, 32, 64)


def build(architecture: str, size: tuple[int, int, int] = WINDOW) -> WindowModel:
    return swin_unetr.build(window_card("swin-unetr", architecture, size), None, seed=0, device=CPU, dtype=FLOAT)


@pytest.fixture(scope="module")
def turned() -> WindowModel:
    return build("monai-12-ras")


def by_hand(array: np.ndarray) -> np.ndarray:
    """(..., z, y, x) as (..., x, y, z), x and y reversed; a second time for axes in the other order is the way back."""
    return np.ascontiguousarray(np.moveaxis(array, (-3, -2, -1), (-1, -2, -3))[..., ::-1, ::-1, :])


def back_by_hand(array: np.ndarray) -> np.ndarray:
    """(..., x, y, z), x and y reversed, as (..., z, y, x)."""
    return np.ascontiguousarray(np.moveaxis(array[..., ::-1, ::-1, :], (-3, -2, -1), (-1, -2, -3)))


def probed(model: WindowModel, window: np.ndarray) -> AttentionProbe:
    shape = window.shape
    with AttentionProbe(model) as probe:
        for listener in model.on_encode:
            listener(InputPlacement(shape, shape, shape))
        model.logits(torch.from_numpy(window)[None, None])
    return probe


def test_every_sites_maps_are_those_of_the_unturned_network_flipped_back_by_hand(turned: WindowModel) -> None:
    window = np.random.default_rng(0).random(WINDOW, dtype=np.float32)
    plain = WindowModel(turned.card, turned.network, CPU, FLOAT, multiple=32)
    ours, theirs = probed(turned, window), probed(plain, by_hand(window))
    assert len(ours.sites) == 8
    assert any(any(site.query_grid.shift) for site in ours.sites)
    z, y, x = voxel = (43, 22, 5)
    seen = (WINDOW[2] - 1 - x, WINDOW[1] - 1 - y, z)
    region = np.zeros(WINDOW, bool)
    region[5:40, 20:30, :9] = True
    for site in ours.sites:
        name = site.name
        np.testing.assert_array_equal(
            ours.heatmap(name, voxel).values, back_by_hand(theirs.heatmap(name, seen).values), err_msg=name
        )
        # sums of the same rows in another order
        np.testing.assert_allclose(
            ours.mean_row(name, region).values,
            back_by_hand(theirs.mean_row(name, by_hand(region)).values),
            rtol=1e-4, atol=1e-8,
        )  # fmt: skip
        np.testing.assert_allclose(
            ours.received(name).values, back_by_hand(theirs.received(name).values), rtol=1e-4, atol=1e-6
        )
    np.testing.assert_allclose(
        ours.rollout(voxel).values, back_by_hand(theirs.rollout(seen).values), rtol=1e-4, atol=1e-8
    )


def test_entropy_distance_and_heads_off_are_the_unturned_networks(turned: WindowModel) -> None:
    shape, spacing = (32, 64, 32), (2.0, 1.5, 1.0)
    window = np.random.default_rng(1).random(shape, dtype=np.float32)
    plain = WindowModel(turned.card, turned.network, CPU, FLOAT, multiple=32)
    ours, theirs = probed(turned, window), probed(plain, by_hand(window))
    site = ours.sites[1]
    entropy, distance = ours.entropy_and_distance(site, spacing)
    other, far = theirs.entropy_and_distance(site.name, spacing[::-1])
    grid = site.query_grid.shape
    for mine, them in ((entropy, other), (distance, far)):
        back = back_by_hand(them.reshape(-1, *grid[::-1]).numpy())
        np.testing.assert_allclose(mine.reshape(-1, *grid).numpy(), back, rtol=1e-4, atol=1e-4)
    with ablated_heads(turned, {site.name: [0]}):
        changed = turned.logits(torch.from_numpy(window)[None, None])
    with ablated_heads(plain, {site.name: [0]}):
        expected = plain.logits(torch.from_numpy(by_hand(window))[None, None])
    np.testing.assert_array_equal(changed.numpy(), back_by_hand(expected.numpy()))


@pytest.fixture(scope="module")
def local_model() -> WindowModel:
    return build_local(CARD, None)


@pytest.mark.parametrize("name", orientations())
def test_a_local_heads_map_is_highest_at_the_place_of_the_patient_that_asks(tmp_path, local_model, name) -> None:
    """In files of any orientation, stitched over the windows that hold it: every site, rollout, a region."""
    world = write_oriented(tmp_path / "v.nii.gz", name)
    volume = read_volume(tmp_path / "v.nii.gz")
    zyx = tuple(np.linalg.solve(volume.affine, [*world, 1])[:3])
    inspection = inspect_windows(plan_windows(local_model, volume), zyx)
    assert len(inspection.runs.starts) > 1
    for site in inspection.sites:
        heatmap = ask(inspection, site.name, VoxelQuery(zyx)).whole
        for head in heatmap.on_pixels(smooth=True):
            peak = np.array(np.unravel_index(int(head.argmax()), head.shape))
            # within a token, which windows that begin elsewhere cut otherwise
            assert (np.abs(peak - zyx) <= np.array(site.key_grid.scale)).all(), (site.name, peak, zyx)
            assert head.max() > 5 * np.median(head)
    region = np.zeros(volume.shape, bool)
    region[tuple(slice(round(c) - 1, round(c) + 2) for c in zyx)] = True
    first = inspection.sites[0].name
    last = inspection.sites[-1].key_grid.scale
    for answer, reach in (
        # rollout begins at a token of the last site
        (ask(inspection, ROLLOUT, VoxelQuery(zyx)), last),
        (run_to_end(ask_everywhere_steps(inspection, [first], RegionQuery("here", region)))[0], (2.0, 2.0, 2.0)),
    ):
        head = answer.whole.on_pixels(smooth=True)[0]
        peak = np.array(np.unravel_index(int(head.argmax()), head.shape))
        assert (np.abs(peak - zyx) <= np.array(reach)).all(), (answer.site, peak, zyx)


def test_gradients_heads_off_and_everything_are_told_where_they_lie_in_the_patient(turned: WindowModel) -> None:
    quick = EncoderAlone(turned.network)
    turned = WindowModel(turned.card, quick, CPU, FLOAT, multiple=32, turn=turned.turn)
    plain = WindowModel(turned.card, quick, CPU, FLOAT, multiple=32)
    data = np.random.default_rng(2).random(SMALL, dtype=np.float32)
    ours, theirs = (
        inspect_windows(plan_windows(model, Volume.from_array(values, (1.0,) * 3, "MR"), window=values.shape), zyx)
        for model, values, zyx in ((turned, data, (5.0, 20.0, 9.0)), (plain, by_hand(data), (54.0, 11.0, 5.0)))
    )
    assert ours.label == theirs.label
    winners = turned.logits(torch.from_numpy(data)[None, None])[0].argmax(0).numpy()
    number = int(np.bincount(winners.ravel(), minlength=3)[1:].argmax()) + 1
    label = turned.card.labels[number - 1].value
    mine, them = (label_relevance(inspection, label).values for inspection in (ours, theirs))
    np.testing.assert_allclose(mine, back_by_hand(them), rtol=1e-3, atol=1e-7)
    site = ours.sites[1].name
    effect, other = (labels_without(inspection, {site: [0]})[label] for inspection in (ours, theirs))
    assert effect.dice == other.dice
    np.testing.assert_array_equal(effect.whole, winners[5] == number)
    mine, them = (
        run_to_end(ask_everywhere_steps(inspection, [site], EverythingQuery()))[0].whole.values
        for inspection in (ours, theirs)
    )
    np.testing.assert_allclose(mine, back_by_hand(them), rtol=1e-4, atol=1e-6)


def test_relative_positions_are_shown_along_the_patients_axes(turned: WindowModel) -> None:
    volume = Volume.from_array(np.random.default_rng(3).random(SMALL, dtype=np.float32), (1.0,) * 3, "MR")
    inspection = inspect_windows(plan_windows(turned, volume, window=SMALL), (10.0, 10.0, 10.0))
    shown, table = encodings_of(inspection)[0], next(
        value for name, value in turned.network.named_parameters() if name.endswith("relative_position_bias_table")
    )  # fmt: skip
    own = table.detach().T.reshape(-1, *(13,) * 3).numpy()
    np.testing.assert_array_equal(shown.values.numpy(), back_by_hand(own))


def test_a_turn_of_ones_own_is_undone_as_well() -> None:
    """A package's network may see any order of axes."""
    turn = Turn((1, 2, 0), (True, False, True))
    network = build("monai-12", (32, 32, 32)).network
    shape = (32, 64, 32)
    window = np.random.default_rng(4).random(shape, dtype=np.float32)
    model = WindowModel(window_card("swin-unetr", "x", shape), network, CPU, FLOAT, multiple=32, turn=turn)
    plain = WindowModel(window_card("swin-unetr", "x", shape), network, CPU, FLOAT, multiple=32)
    ours = probed(model, window)
    theirs = probed(plain, np.ascontiguousarray(window[::-1, :, ::-1].transpose(1, 2, 0)))
    voxel, seen = (7, 50, 20), (50, 31 - 20, 31 - 7)
    for site in ours.sites:
        expected = theirs.heatmap(site.name, seen).values.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1]
        np.testing.assert_array_equal(ours.heatmap(site.name, voxel).values, expected)
