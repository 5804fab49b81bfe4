"""`medtransformer inspect` on the sample CT: exact rows, maps on the file's grid, a figure, a table."""

from __future__ import annotations

import csv
import json
import math
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image
from program import call_program

import napari_medtransformer as nmt
from napari_medtransformer.volumes import apply_window

QUERY = (80, 50, 60)  # (i, j, k) of the sample CT, inside the body
MODEL = ("--weights", "random")  # the rows are exact whatever the weights


def inspect(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return call_program("inspect", *words)


@pytest.fixture(scope="module")
def ct(repository: Path) -> Path:
    return repository / "sample_data" / "example_ct.nii.gz"


@pytest.fixture(scope="module")
def answers(ct: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows, heatmaps, figure and tables of one voxel."""
    folder = tmp_path_factory.mktemp("inspect")
    query = ",".join(map(str, QUERY))
    for output in ("rows.npz", "heads.nii.gz", "table.csv"):
        figure = ("--figure", folder / "heads.png") if output == "rows.npz" else ()
        site = ("--site", "encoder.3") if output == "heads.nii.gz" else ()
        done = inspect(ct, "-q", query, "-o", folder / output, *site, *figure, *MODEL, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        (folder / f"{output}.stdout").write_text(done.stdout)
    return folder


def explicit_rows(ct: Path, monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Softmax in double precision of every attention call that the encoder makes: (heads, queries, keys) each."""
    found = []
    kernel = torch.nn.functional.scaled_dot_product_attention

    def spy(q, k, v, *rest, **options):
        scores = q.double() @ k.double().transpose(-1, -2) * (options.get("scale") or 1 / math.sqrt(q.shape[-1]))
        found.append(torch.softmax(scores, dim=-1)[0].numpy())
        return kernel(q, k, v, *rest, **options)

    volume = nmt.read_volume(ct)
    model = nmt.load_model("medt-click-tiny", weights="random", device="cpu")
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    z = int(volume.grid.zyx_from_file_index(np.array(QUERY))[0])
    with torch.no_grad():
        model.encode(apply_window(volume.data[z], volume.window))
    return found


def test_rows_of_every_encoder_site_are_the_explicit_softmax(answers: Path, ct: Path, monkeypatch):
    expected = explicit_rows(ct, monkeypatch)
    rows = np.load(answers / "rows.npz")
    encoder = [name for name in rows if name.startswith("encoder.") and name.endswith(".rows")]
    assert len(encoder) == len(expected) == 6
    volume = nmt.read_volume(ct)
    _, y, x = volume.grid.zyx_from_file_index(np.array(QUERY))
    # The longest side is resized to 256 pixels, 16 per token: the voxel's token, from first principles.
    scale = 256 / max(volume.shape[1:])
    token = int((y + 0.5) * scale // 16) * 16 + int((x + 0.5) * scale // 16)
    for name, exact in zip(encoder, expected):
        np.testing.assert_allclose(rows[name].sum(axis=-1), 1, atol=1e-4)
        np.testing.assert_allclose(rows[name], exact[:, token], atol=1e-5)


def test_heatmaps_lie_on_the_files_grid_with_heads_last(answers: Path, ct: Path):
    image, written = nib.load(ct), nib.load(answers / "heads.nii.gz")
    np.testing.assert_array_equal(written.affine, image.affine)
    assert written.shape == (*image.shape, 6)
    values = np.asarray(written.dataobj)
    assert values.dtype == np.float32
    assert not values[..., : QUERY[2], :].any()
    assert not values[..., QUERY[2] + 1 :, :].any()
    rows = np.load(answers / "rows.npz")["encoder.3.rows"]
    tokens = [set(np.unique(values[..., QUERY[2], head])) for head in range(6)]
    for head in range(6):
        assert tokens[head] <= set(rows[head])  # every pixel shows its token's attention, not something in between


def test_table_and_json_tell_the_same_numbers(answers: Path):
    with (answers / "table.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    sites = json.loads((answers / "table.csv.stdout").read_text())["sites"]
    heads = [(site["name"], head) for site in sites for head in site["heads"]]
    assert [(line["site"], int(line["head"])) for line in lines] == [(name, head["head"]) for name, head in heads]
    rows = np.load(answers / "rows.npz")
    for line, (name, head) in zip(lines, heads):
        row = rows[f"{name}.rows"][head["head"]].astype(float)
        assert float(line["row_sum"]) == pytest.approx(1, abs=1e-4)
        assert head["entropy"] == pytest.approx(-(row * np.log(np.maximum(row, 1e-300))).sum(), abs=1e-4)
        assert head["top_share"] == pytest.approx(row.max())
        assert float(line["entropy_nats"]) == pytest.approx(head["entropy"], abs=1e-6)


def test_distances_are_in_millimetres_between_token_centres(answers: Path, ct: Path):
    rows = np.load(answers / "rows.npz")["encoder.0.rows"].astype(float)
    sites = json.loads((answers / "table.csv.stdout").read_text())["sites"]
    volume = nmt.read_volume(ct)
    _, y, x = volume.grid.zyx_from_file_index(np.array(QUERY))
    side_mm = 16 * max(volume.shape[1:]) / 256 * 3  # a token's side; voxels measure 3 mm
    scale = 256 / max(volume.shape[1:])
    row, column = int((y + 0.5) * scale // 16), int((x + 0.5) * scale // 16)
    apart = np.hypot(*(np.indices((16, 16)) - np.array([row, column])[:, None, None])).ravel() * side_mm
    for head in sites[0]["heads"]:
        assert head["distance_mm"] == pytest.approx((rows[head["head"]] * apart).sum(), rel=1e-3)


def test_the_figure_shows_every_head_in_colour(answers: Path):
    picture = np.asarray(Image.open(answers / "heads.png").convert("RGB"), int)
    assert min(picture.shape[:2]) > 500
    panels = picture[:, : int(0.85 * picture.shape[1])]  # without the colour bar
    coloured = np.ptp(panels, axis=-1) > 60
    assert coloured.sum() > 6 * 500  # six heads; the marks of the query have some 100 pixels each


def test_the_table_names_every_site_and_head(ct: Path):
    done = inspect(ct, "-q", ",".join(map(str, QUERY)), "--site", "encoder.2", *MODEL)
    assert (done.returncode, done.stderr) == (0, "")
    assert "encoder.2" in done.stdout
    assert "encoder.1" not in done.stdout
    assert "entropy" in done.stdout
    assert "mm" in done.stdout


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--site", "encodr.2"), "encoder.2"),
        (("--site", "decoder.0.image-to-prompt", "--figure", "f.png"), "no place in the image"),
        (("--figure", "f.bmp"), ".png"),
        (("-o", "out.xyz"), ".npz"),
        (("-o", "missing/out.csv"), "no folder"),
        (("--site", "decoder.0.prompts", "--token", "99"), "99"),
    ],
)
def test_what_cannot_be_inspected_is_one_line(ct: Path, tmp_path: Path, words, says, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = inspect(ct, "-q", ",".join(map(str, QUERY)), *MODEL, *words)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_a_query_outside_is_told(ct: Path):
    done = inspect(ct, "-q", "500,0,0", *MODEL)
    assert done.returncode == 2
    assert "0,0,0 to 121,100,111" in done.stderr


def test_shares_of_labels_sum_to_one_and_every_figure_is_drawn(ct: Path, repository: Path, tmp_path: Path) -> None:
    labels = repository / "sample_data" / "example_seg_fast_force_split.nii.gz"
    figures = [tmp_path / f"{name}.png" for name in ("matrix", "rollout", "positions")]
    words = [word for figure in figures for word in (f"--{figure.stem}", str(figure))]
    table = tmp_path / "shares.csv"
    done = inspect(ct, "--query", "78,58,106", "--labels", labels, "--ask-label", "5", "--shares", table, *words)
    assert done.returncode == 0, done.stderr
    sums: dict[tuple[str, str], float] = {}
    with table.open(newline="") as stream:
        for row in csv.DictReader(stream):
            key = row["site"], row["head"]
            sums[key] = sums.get(key, 0.0) + float(row["share"])
    assert ("encoder.5", "0") in sums
    np.testing.assert_allclose(list(sums.values()), 1, atol=1e-3)  # shares are rounded in the table
    for figure in figures:
        assert np.asarray(Image.open(figure).convert("L")).std() > 20, figure.name  # drawn, not blank


def test_asking_a_label_without_labels_is_one_line(ct: Path) -> None:
    done = inspect(ct, "--query", "78,58,106", "--ask-label", "5")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_labels_of_another_place_are_refused(ct: Path, repository: Path, tmp_path: Path) -> None:
    drawn = nib.load(repository / "sample_data" / "example_seg_fast_force_split.nii.gz")
    affine = drawn.affine.copy()
    affine[2, 3] += 30
    nib.save(nib.Nifti1Image(np.asarray(drawn.dataobj), affine), tmp_path / "moved.nii.gz")
    words = ["--labels", tmp_path / "moved.nii.gz", "--shares", tmp_path / "shares.csv"]
    done = inspect(ct, "--query", "78,58,106", *words)
    assert done.returncode == 2
    assert "lies on another grid" in done.stderr
    assert not (tmp_path / "shares.csv").exists()
