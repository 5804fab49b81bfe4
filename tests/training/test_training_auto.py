"""Training automatic models: folders checked, windows that match their labels, resuming, and a model that loads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from napari_medtransformer.cli.app import run
from napari_medtransformer.errors import InvalidOption, UnreadableFile, UnreadableWeights, UnsupportedVolume
from napari_medtransformer.models.card_files import read_card
from napari_medtransformer.models.compact import CompactConfig
from napari_medtransformer.models.registry import load_model
from napari_medtransformer.models.scaling import FixedRange
from napari_medtransformer.progress import Progress, Result, run_to_end
from napari_medtransformer.segmentation import segment
from napari_medtransformer.training import auto_model
from napari_medtransformer.training.augment import Augmentation, draw_window
from napari_medtransformer.training.auto import AutoRecipe, learning_rate, segmentation_loss, train_network
from napari_medtransformer.training.auto_cases import AutoCase, find_cases, prepare_case, read_pair, split_cases
from napari_medtransformer.training.auto_plan import fitting_window
from napari_medtransformer.training.auto_report import CaseScore
from napari_medtransformer.volumes.volume import Volume
from napari_medtransformer.volumes.writing import write_labels

UNCHANGED = Augmentation(
    (), spatial_chance=0, elastic_chance=0, gamma_chance=0, contrast_chance=0, noise_chance=0, blur_chance=0,
    low_resolution_chance=0, bias_chance=0,
)  # fmt: skip
TINY = CompactConfig("unetr", 2, (16, 16, 16), width=4, hidden=12, layers=3, heads=2)


def write_case(folder: Path, name: str, seed: int, suffix: str = ".nii.gz") -> None:
    """A bright ball, labelled 3, in noise; 16 voxels wide, 2 mm."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"), axis=-1)
    ball = ((grid - rng.uniform(6, 9, 3)) ** 2).sum(axis=-1) < 16
    image = (rng.normal(100, 10, ball.shape) + 80 * ball).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for kind, values in (("images", image), ("labels", ball.astype(np.uint8) * 3)):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(values, affine), folder / kind / f"{name}{suffix}")


@pytest.fixture(scope="module")
def balls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "Balls 1"
    for i in range(5):
        write_case(folder, f"case{i}", i)
    (folder / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "ball": 3}}))
    return folder


def smooth_case(shape: tuple[int, int, int]) -> AutoCase:
    """An image that is linear in z, y and x, so that interpolation is exact, and labels by where it is high."""
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    image = (z + 2 * y + 4 * x).astype(np.float32)
    return AutoCase.of("smooth", image, (image > 1).astype(np.uint8))


# ---------------------------------------------------------------- folders


def test_images_and_labels_pair_by_name_whatever_their_format(balls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(balls, folder)
    (folder / "images" / "case0.nii.gz").rename(folder / "images" / "case0_0000.nii.gz")
    image = nib.load(folder / "images" / "case1.nii.gz")
    nib.save(image, folder / "images" / "case1.nii")
    (folder / "images" / "case1.nii.gz").unlink()
    volume, labels = read_pair(find_cases(folder)[2])
    write_labels(labels, volume, folder / "labels" / "case2.seg.nrrd")
    (folder / "labels" / "case2.nii.gz").unlink()
    files = find_cases(folder)
    assert [case.name for case in files] == [f"case{i}" for i in range(5)]
    assert files[1].image.suffix == ".nii"
    np.testing.assert_array_equal(read_pair(files[2])[1], labels)


def test_every_fifth_case_is_for_validation(balls: Path) -> None:
    training, validation = split_cases(find_cases(balls))
    assert [case.name for case in training] == ["case0", "case1", "case2", "case3"]
    assert [case.name for case in validation] == ["case4"]


def test_the_hippocampus_split_is_that_of_the_data(shared_data: Path) -> None:
    training, validation = split_cases(find_cases(shared_data / "msd_hippocampus"))
    assert (len(training), len(validation)) == (160, 40)
    assert not {case.name for case in training} & {case.name for case in validation}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder / "labels"), "no folder labels"),
        (lambda folder: (folder / "labels" / "case2.nii.gz").unlink(), "case2"),
        (lambda folder: [path.unlink() for path in folder.glob("*/case0*")], "at least 5"),
        (lambda folder: shutil.copy(folder / "images/case0.nii.gz", folder / "images/case0_0000.nii.gz"), "two files"),
    ],
)
def test_a_folder_that_is_not_as_expected_says_what_is_wrong(balls: Path, tmp_path: Path, damage, words: str) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(balls, folder)
    damage(folder)
    with pytest.raises(UnreadableFile, match=words):
        find_cases(folder)


@pytest.mark.parametrize(
    ("values", "affine", "words"),
    [
        (np.zeros((16, 16, 15), np.uint8), np.diag([2, 2, 2, 1]), "resample"),
        (np.zeros((16, 16, 16), np.uint8), np.diag([2.2, 2, 2, 1]), "elsewhere"),
        (np.full((16, 16, 16), 0.5, np.float32), np.diag([2, 2, 2, 1]), "whole numbers"),
        (np.full((16, 16, 16), -1, np.int16), np.diag([2, 2, 2, 1]), "whole numbers"),
    ],
)
def test_labels_that_do_not_fit_their_image_are_refused(balls: Path, tmp_path: Path, values, affine, words) -> None:
    folder = tmp_path / "wrong"
    shutil.copytree(balls, folder)
    nib.save(nib.Nifti1Image(values, affine.astype(float)), folder / "labels" / "case0.nii.gz")
    with pytest.raises(UnsupportedVolume, match=words):
        read_pair(find_cases(folder)[0])


# ---------------------------------------------------------------- windows


def test_a_case_is_brought_to_the_spacing_and_its_classes_stay_in_place() -> None:
    labels = np.zeros((8, 8, 8), np.uint16)
    labels[2:6, 2:6, 2:6] = 40
    volume = Volume.from_array(labels.astype(np.float32) * 10, (3.0, 3.0, 3.0))
    case = prepare_case(volume, labels, "a", (1.5, 1.5, 1.5), (40,), FixedRange(0, 400))
    assert case.image.shape == case.classes.shape == (16, 16, 16)
    wanted = np.zeros((16, 16, 16), np.uint8)
    wanted[4:12, 4:12, 4:12] = 1
    # a share of one half counts as inside: corners of the cube, three axes at once, have less and are rounded
    assert np.count_nonzero(case.classes != wanted) <= 8 * 7
    assert case.image.max() == pytest.approx(1)


def test_an_unchanged_window_is_the_volume_padded() -> None:
    case = smooth_case((10, 12, 14))
    image, classes = draw_window(case, (10, 12, 14), np.random.default_rng(0), UNCHANGED)
    np.testing.assert_allclose(image[0], case.image, atol=1e-5)
    np.testing.assert_array_equal(classes, case.classes)


def test_labels_move_with_the_image_through_every_change_of_place() -> None:
    # a hill that is high, and labelled, in the middle alone: whatever lies outside the volume is low
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in (30, 32, 34)), indexing="ij")
    hill = (2 - 3 * np.sqrt(z**2 + 1.3 * y**2 + 0.8 * x**2)).astype(np.float32)
    case = AutoCase.of("hill", hill, (hill > 1).astype(np.uint8))
    moved = Augmentation((0, 1, 2), spatial_chance=1, elastic_chance=1, gamma_chance=0, contrast_chance=0,
                         noise_chance=0, blur_chance=0, low_resolution_chance=0, bias_chance=0)  # fmt: skip
    for seed in range(10):
        image, classes = draw_window(case, (16, 16, 16), np.random.default_rng(seed), moved)
        # between voxels the hill is nearly linear, so it is high where the labels were, but for the border itself
        sure = (image[0] - 1).abs() > 0.25
        assert ((image[0] > 1) == (classes == 1))[sure].float().mean() > 0.995


def test_the_same_seed_draws_the_same_window_and_another_another() -> None:
    case = smooth_case((24, 24, 24))
    first, again, other = (
        draw_window(case, (16, 16, 16), np.random.default_rng(seed), Augmentation())[0] for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_windows_of_large_volumes_are_drawn_about_labels() -> None:
    classes = np.zeros((80, 80, 80), np.uint8)
    classes[70:74, 6:10, 40:44] = 1
    case = AutoCase.of("large", classes.astype(np.float32), classes)
    drawn = [
        draw_window(case, (16, 16, 16), np.random.default_rng(seed), UNCHANGED, foreground=1.0)[1].max()
        for seed in range(12)
    ]
    assert all(drawn)


def test_a_fitting_window_holds_the_volume_in_multiples_of_eight() -> None:
    assert fitting_window((36.2, 50.0, 35.0)) == (40, 56, 40)
    assert fitting_window((3, 64, 500)) == (8, 64, 64)


# ---------------------------------------------------------------- the loop


def test_the_loss_falls_to_nothing_for_a_sure_and_right_answer() -> None:
    classes = torch.zeros(1, 4, 4, 4, dtype=torch.long)
    classes[0, :2] = 1
    right = torch.nn.functional.one_hot(classes, 2).movedim(-1, 1) * 40.0
    assert float(segmentation_loss(right, classes)) < 1e-3
    assert float(segmentation_loss(-right, classes)) > 10


def test_the_learning_rate_warms_up_and_falls() -> None:
    recipe = AutoRecipe(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [learning_rate(recipe, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(recipe.final_learning_rate, abs=2e-3)


def test_an_interrupted_training_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    cases = [smooth_case((16, 16, 16)), smooth_case((18, 16, 17))]
    recipe = AutoRecipe(steps=6, validate_every=3, checkpoint_every=2, warmup_steps=1)
    run_to_end(train_network(TINY, cases, cases[:1], tmp_path / "whole", recipe))
    steps = train_network(TINY, cases, cases[:1], tmp_path / "halved", recipe)
    for step in steps:
        if isinstance(step, Progress) and step.total == recipe.steps and step.done == 5:
            break  # after the checkpoint of step 4
    steps.close()
    done = [
        step.done
        for step in train_network(TINY, cases, cases[:1], tmp_path / "halved", recipe)
        if isinstance(step, Progress) and step.total == recipe.steps
    ]
    assert done == [5, 6]
    whole, halved = (torch.load(tmp_path / which / "checkpoint.pt", weights_only=True) for which in ("whole", "halved"))
    for name, value in whole["averaged"].items():
        torch.testing.assert_close(halved["averaged"][name], value, rtol=0, atol=0)
    assert whole["best_dice"] == halved["best_dice"]


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path) -> None:
    cases = [smooth_case((16, 16, 16))]
    run_to_end(train_network(TINY, cases, cases, tmp_path, AutoRecipe(steps=1, warmup_steps=1)))
    with pytest.raises(UnreadableWeights, match=r"it has recipe steps 1, not 2\."):
        run_to_end(train_network(TINY, cases, cases, tmp_path, AutoRecipe(steps=2, warmup_steps=1)))


def test_a_checkpoint_of_cases_prepared_otherwise_is_refused(tmp_path: Path) -> None:
    cases, recipe = [smooth_case((16, 16, 16))], AutoRecipe(steps=1, warmup_steps=1)
    run_to_end(train_network(TINY, cases, cases, tmp_path, recipe, plan={"spacing_mm": (2.0, 2.0, 2.0)}))
    with pytest.raises(UnreadableWeights, match=r"plan spacing mm \[2.0, 2.0, 2.0\], not \[3.0, 3.0, 3.0\]"):
        run_to_end(train_network(TINY, cases, cases, tmp_path, recipe, plan={"spacing_mm": (3.0, 3.0, 3.0)}))


def test_the_loop_learns(tmp_path: Path) -> None:
    cases = [smooth_case((16, 16, 16))]
    recipe = AutoRecipe(steps=60, validate_every=60, warmup_steps=5, learning_rate=5e-3, ema_decay=0.8)
    result = [s for s in train_network(TINY, cases, cases, tmp_path, recipe) if isinstance(s, Result)][-1]
    assert result.value.mean > 0.8


# ---------------------------------------------------------------- the command


def test_the_command_trains_a_model_that_loads_by_its_card_and_segments(
    balls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "auto", str(balls), "-o", str(tmp_path), "--name", "ball", "--kind", "unetr", "--steps", "2"]
    assert run([*words, "--mirror", "x", "--validate-every", "2", "--device", "cpu", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["validation_cases"] == 1
    assert set(summary["dice"]) == {"ball"}
    text = (tmp_path / "ball.md").read_text(encoding="utf-8")
    assert f"{summary['mean_dice']:.3f}" in text
    card = read_card(tmp_path / "ball.json")
    assert card.input.spacing_mm == (2.0, 2.0, 2.0)
    assert [label.value for label in card.labels] == [3]
    model = load_model(card, device="cpu")
    volume = read_pair(find_cases(balls)[4])[0]
    assert set(np.unique(segment(model, volume, mirror=(2,)))) <= {0, 3}
    with pytest.raises(InvalidOption, match="along z, x were asked for; ball was trained with mirrored ones along x"):
        segment(model, volume, mirror=(0, 2))


@pytest.mark.parametrize(
    ("scores", "dice", "words", "line"),
    [
        ([CaseScore("case4", "ball", 0.9, 2.0, 1.0)], 0.9, "validation Dice 0.900 (ball 0.900, spleen: in no", "0.900"),
        ([], None, "no validation Dice (ball: in no validation case, spleen: in no", "was not measured"),
    ],
)
def test_structures_that_no_validation_case_holds_have_no_score(
    balls: Path, tmp_path: Path, capsys, monkeypatch, scores: list[CaseScore], dice: float | None, words: str, line: str
) -> None:
    folder = tmp_path / "rare"
    shutil.copytree(balls, folder)
    (folder / "labels.csv").write_text("number,name\n3,ball\n5,spleen\n")
    labels = nib.load(folder / "labels" / "case0.nii.gz")
    values = np.asarray(labels.dataobj).copy()
    values[:2] = 5
    nib.save(nib.Nifti1Image(values, labels.affine), folder / "labels" / "case0.nii.gz")
    monkeypatch.setattr(auto_model, "score_cases", lambda *given: iter([Result(scores)]))
    call = ["train", "auto", str(folder), "-o", str(tmp_path / "out"), "--kind", "unetr", "--steps", "1"]
    assert run([*call, "--device", "cpu", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["dice"], told["mean_dice"]) == ({"ball": dice, "spleen": None}, dice)
    assert run([*call, "--device", "cpu"]) == 0
    assert words in capsys.readouterr().out
    text = (tmp_path / "out" / "rare.md").read_text(encoding="utf-8")
    assert "| spleen | in no validation case |" in text
    assert line in text
    assert "nan" not in text


def test_the_same_call_at_another_spacing_is_refused_and_a_new_table_of_labels_is_heeded(
    balls: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "named", tmp_path / "out"
    shutil.copytree(balls, folder)
    call = ["train", "auto", str(folder), "-o", str(out), "--kind", "unetr", "--steps", "1", "--device", "cpu"]
    assert run(call) == 0
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert run([*call, "--spacing", "3,3,3"]) == 2
    error = capsys.readouterr().err
    assert "spacing mm unset, not [3.0, 3.0, 3.0]" in error
    assert error.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == kept
    (folder / "labels.csv").write_text("number,name,color\n3,spleen,#ff0000\n")
    assert run(call) == 0
    (label,) = read_card(out / "named.json").labels
    assert (label.value, label.name, label.color) == (3, "spleen", (1.0, 0.0, 0.0))
    assert "segmentation network for spleen" in (out / "named.md").read_text(encoding="utf-8")


def test_a_table_of_labels_that_is_none_is_refused_before_any_volume_is_read(balls: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mistaken"
    shutil.copytree(balls, folder)
    (folder / "labels.json").write_text(json.dumps({"total": {"1": "spleen"}}))
    (folder / "images" / "case0.nii.gz").write_bytes(b"no volume")
    with pytest.raises(UnreadableFile, match="labels.json is no table of labels"):
        run_to_end(auto_model.train_auto(auto_model.AutoTraining(folder, tmp_path / "out", "mistaken")))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (["--kind", "resnet"], "swin-unetr"),
        (["--mirror", "w"], "letters x, y and z"),
        (["--window", "40,56"], "three positive numbers"),
        (["--window", "40,56,41"], "multiples of 8"),
        (["--window", "8,8,8"], "16 voxels along one axis at least"),
        (["--name", "My Model"], "lower-case"),
    ],
)
def test_the_command_refuses_in_one_line(balls: Path, tmp_path: Path, capsys, extra: list[str], words: str) -> None:
    assert run(["train", "auto", str(balls), "-o", str(tmp_path / "out"), *extra]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
