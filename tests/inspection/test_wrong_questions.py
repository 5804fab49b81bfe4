"""Whatever an inspection is asked with values of another type is one error of this package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from wrong_values import assert_refused

from napari_medtransformer.inspection import (
    AttentionProbe,
    PrefixQuery,
    PromptQuery,
    RegionQuery,
    SlicePlane,
    VoxelQuery,
    answer_figure,
    answer_shares,
    answer_volume,
    ask,
    compare_maps,
    head_matrix,
    head_similarity,
    inspect_slice,
    mask_relevance,
    masks_without,
    matrix_steps,
    prompt_queries,
    rank_heads,
    write_figure,
    write_table,
)
from napari_medtransformer.models import load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.volumes import Volume

SITE = "encoder.2"
VOXEL = VoxelQuery((3.0, 6.0, 8.0))
CLICK = Prompts(np.array([[5.0, 9.0]], np.float32), np.array([1]))
MODEL = load_model("medt-click-tiny", weights="random", device="cpu")
VOLUME = Volume.from_array(np.random.default_rng(0).normal(size=(12, 20, 30)).astype(np.float32), (4, 1.5, 0.8), "MR")


@pytest.fixture(scope="module")
def inspection():
    return inspect_slice(MODEL, VOLUME, 0, 3, prompts=CLICK)


# Each takes an inspection, an answer and something wrong. Which of WRONG is right there: after it.
CALLS = {
    "model": (lambda i, a, x: inspect_slice(x, VOLUME, 0, 3), ""),
    "volume": (lambda i, a, x: inspect_slice(MODEL, x, 0, 3), ""),
    "axis": (lambda i, a, x: inspect_slice(MODEL, VOLUME, x, 3), ""),
    "index": (lambda i, a, x: inspect_slice(MODEL, VOLUME, 0, x), ""),
    "window": (lambda i, a, x: inspect_slice(MODEL, VOLUME, 0, 3, window=x), "None"),
    "prompts": (lambda i, a, x: inspect_slice(MODEL, VOLUME, 0, 3, prompts=x), "None"),
    "sites": (lambda i, a, x: inspect_slice(MODEL, VOLUME, 0, 3, sites=x), "None"),
    "probe's model": (lambda i, a, x: AttentionProbe(x), ""),
    "probe's sites": (lambda i, a, x: AttentionProbe(MODEL, x), "None"),
    "probe's place": (lambda i, a, x: AttentionProbe(MODEL, keep_on=x), ""),
    "probe's calls": (lambda i, a, x: AttentionProbe(MODEL, keep=x), ""),
    "probe's memory": (lambda i, a, x: AttentionProbe(MODEL, memory_bytes=x), "None"),
    "site": (lambda i, a, x: i.probe.site(x), ""),
    "call": (lambda i, a, x: i.probe.captured(SITE, call=x), ""),
    "image": (lambda i, a, x: i.probe.captured(SITE, image=x), ""),
    "query": (lambda i, a, x: i.probe.heatmap(SITE, x), ""),
    "rollout's query": (lambda i, a, x: i.probe.rollout(x), ""),
    "slice's axis": (lambda i, a, x: SlicePlane(x, 3, (12, 20, 30)), ""),
    "slice's index": (lambda i, a, x: SlicePlane(0, x, (12, 20, 30)), ""),
    "slice's volume": (lambda i, a, x: SlicePlane(0, 3, x), ""),
    "heatmap's site": (lambda i, a, x: i.heatmap(x, (3, 5, 6)), ""),
    "heatmap's voxel": (lambda i, a, x: i.heatmap(SITE, x), ""),
    "received at": (lambda i, a, x: i.received(x), ""),
    "rolled out from": (lambda i, a, x: i.rollout(x), ""),
    "shared out": (lambda i, a, x: i.shares(x, VOLUME.data > 0), ""),
    "shared out among": (lambda i, a, x: i.shares(i.received(SITE), x), ""),
    "on the slice": (lambda i, a, x: i.on_slice(x), ""),
    "decoded": (lambda i, a, x: i.with_prompts(x), ""),
    "voxel": (lambda i, a, x: VoxelQuery(x), ""),
    "prefix": (lambda i, a, x: PrefixQuery(x), ""),
    "prompt's number": (lambda i, a, x: PromptQuery(x, i.tokens[0]), ""),
    "prompt's token": (lambda i, a, x: PromptQuery(0, x), ""),
    "region": (lambda i, a, x: ask(i, SITE, RegionQuery("a region", x)), ""),
    "region's name": (lambda i, a, x: RegionQuery(x, np.ones((20, 30), bool)), "text"),
    "asked": (lambda i, a, x: ask(x, SITE, VOXEL), ""),
    "asked at": (lambda i, a, x: ask(i, x, VOXEL), ""),
    "asked by": (lambda i, a, x: ask(i, SITE, x), ""),
    "whose prompts": (lambda i, a, x: prompt_queries(x), ""),
    "matrix of": (lambda i, a, x: list(matrix_steps(x, VOXEL)), ""),
    "map": (lambda i, a, x: a.values(x), ""),
    "map on pixels": (lambda i, a, x: a.on_pixels(x, smooth=False), ""),
    "peak of": (lambda i, a, x: a.peak(x), ""),
    "figure of": (lambda i, a, x: answer_figure(x, a), ""),
    "figure's answer": (lambda i, a, x: answer_figure(i, x), ""),
    "figure's maps": (lambda i, a, x: answer_figure(i, a, x), "None"),
    "figure's smoothness": (lambda i, a, x: answer_figure(i, a, ["0"], smooth=x), ""),
    "volume's answer": (lambda i, a, x: answer_volume(i, x), ""),
    "volume's maps": (lambda i, a, x: answer_volume(i, a, x), "None"),
    "shares of": (lambda i, a, x: answer_shares(x, a, VOLUME.data > 0, {}), ""),
    "labels": (lambda i, a, x: answer_shares(i, a, x, {}), ""),
    "labels' names": (lambda i, a, x: answer_shares(i, a, VOLUME.data > 0, x), ""),
    "table": (lambda i, a, x: write_table(x, "a.csv"), "text list matrix"),
    "table's file": (lambda i, a, x: write_table([["a"]], x), ""),
    "figure written": (lambda i, a, x: write_figure(x, "a.png"), ""),
    "figure's file": (lambda i, a, x: write_figure(None, x), ""),
    "map compared": (lambda i, a, x: compare_maps(x, VOLUME.data[0]), ""),
    "answers alike": (lambda i, a, x: head_similarity(x), ""),
    "answers counted": (lambda i, a, x: head_matrix(x, "entropy"), ""),
    "quantity": (lambda i, a, x: head_matrix([a], x), ""),
    "organ": (lambda i, a, x: head_matrix([a], "share", x), ""),
    "relevance of": (lambda i, a, x: mask_relevance(x, CLICK), ""),
    "relevant to": (lambda i, a, x: mask_relevance(i, x), ""),
    "switched off": (lambda i, a, x: masks_without(i, x, {1: CLICK}), ""),
    "objects": (lambda i, a, x: masks_without(i, {SITE: "all"}, x), ""),
    "ranked for": (lambda i, a, x: list(rank_heads(i, x)), ""),
}


@pytest.mark.parametrize("called", CALLS)
def test_what_is_of_another_type_is_refused_in_one_line(called: str, inspection, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ask(inspection, SITE, VOXEL)
    call, right = CALLS[called]
    assert_refused(lambda x: call(inspection, answer, x), right)
    assert not list(tmp_path.iterdir())
