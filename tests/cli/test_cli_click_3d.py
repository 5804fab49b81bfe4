"""`medtransformer click` with a model that answers in 3D: clicks of any plane, one mask over many slices."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_medtransformer.cli.app import run
from napari_medtransformer.models.card import ModelCard
from napari_medtransformer.models.initial import draw_weights
from napari_medtransformer.models.registry import find_card, load_model, register, unregister
from napari_medtransformer.models.sam_med3d import SamMed3DModel
from napari_medtransformer.models.sam_med3d_network import SamMed3D, SamMed3DConfig
from napari_medtransformer.prompting.object_3d import segment_object
from napari_medtransformer.volumes import read_volume


def build_small(
    card: ModelCard, weights: None, *, seed: int, device: torch.device, dtype: torch.dtype
) -> SamMed3DModel:
    """The published network's kind, one block deep, with weights drawn from `seed`."""
    config = SamMed3DConfig(
        size=32, width=48, depth=1, heads=4, global_blocks=(0,), decoder_width=48, decoder_heads=4, decoder_depth=1
    )
    return SamMed3DModel(card, draw_weights(SamMed3D(config), seed), device, dtype)


@pytest.fixture
def small_model() -> Iterator[str]:
    """A name that the command knows."""
    card = find_card("sam-med3d")
    builder, small = f"{__name__}:build_small", replace(card.input, size=(32, 32, 32))
    register(replace(card, name="sam-med3d-small", builder=builder, input=small))
    yield "sam-med3d-small"
    unregister("sam-med3d-small")


def click(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    code = run([str(word) for word in ("click", *words)])
    said = capsys.readouterr()
    return code, said.out + said.err


def test_clicks_become_one_mask_in_3d_on_the_file_s_grid(small_model, repository, tmp_path, capsys):
    ct, out = repository / "sample_data" / "example_ct.nii.gz", tmp_path / "out.nii.gz"
    image = nib.load(ct)
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    i, j, k = (n // 2 for n in image.shape)
    words = (ct, "-o", out, "--model", small_model, "--weights", "random")
    code, said = click(capsys, *words, "--point", f"{i},{j},{k}", "--point", f"{i + 9},{j},{k - 6},0", "--axis", "2")
    assert (code, "voxels on " in said) == (0, True), said
    volume = read_volume(ct)
    x, y = image.shape[0] - 1 - i, image.shape[1] - 1 - j  # (z, y, x) grow towards superior, posterior and left
    model = load_model(small_model, "random", "cpu")
    expected = segment_object(model, volume, [(k, y, x), (k - 6, y, x - 9)], [1, 0]).mask
    expected[k, y, x], expected[k - 6, y, x - 9] = True, False
    found = np.asarray(nib.load(out).dataobj)[::-1, ::-1].transpose(2, 1, 0)
    np.testing.assert_array_equal(found == 1, expected)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("--box", "40,40,50,60,60,51"), "answers in 3D and takes no boxes"),
        (("--propagate",), "there is nothing to propagate"),
    ],
)
def test_what_a_model_in_3d_cannot_do_is_an_error_in_one_line(small_model, repository, tmp_path, capsys, more, told):
    ct, out = repository / "sample_data" / "example_ct.nii.gz", tmp_path / "out.nii.gz"
    words = (ct, "-o", out, "--model", small_model, "--weights", "random", "--point", "60,50,50")
    code, said = click(capsys, *words, *more)
    assert code == 2
    assert said.startswith("error: ")
    assert told in said
    assert said.count("\n") == 1
    assert not out.exists()
