"""What a few labelled slices of one structure gain: Dice on other volumes before and after `train click`.

    python benchmarks/fine_tuning.py --data DATA [--weights FILE] [--label 1] [--slices 10] [--volumes 3] [--steps 100]

Ten axial slices of one label, spread over three hippocampus volumes of the validation split, go into a folder of
images and labels as a user would make it; nothing else is labelled there. Asked, before and after, on the slice of
every other validation volume, at most 15, where the label is largest: its innermost pixel, and its bounding box.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from rules import bounding_box, dice, innermost

import napari_medtransformer as nmt
from napari_medtransformer.progress import Progress, Result
from napari_medtransformer.training.click_report import ClickTraining, train_click_model

ASKED = 15


def write_cases(files: list[Path], labels_of: dict[Path, Path], folder: Path, label: int, slices: int) -> int:
    """Images as they are, and labels with `label` alone on some slices; returns how many slices are labelled."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    left = slices
    for number, path in enumerate(files):
        image, labels = nib.load(path), nib.load(labels_of[path])
        where = np.asarray(labels.dataobj) == label
        there = np.flatnonzero(where.any(axis=(0, 1)))
        count = min(-(-left // (len(files) - number)), len(there))
        left -= count
        kept = np.zeros(where.shape, np.uint8)
        for z in _spread(there, count):
            kept[..., z] = where[..., z]
        nib.save(image, folder / "images" / path.name)
        nib.save(nib.Nifti1Image(kept, labels.affine), folder / "labels" / path.name)
    return slices - left


def _spread(there: np.ndarray, count: int) -> np.ndarray:
    """`count` of these slices, evenly, without the very ends."""
    return there[np.rint((np.arange(count) + 0.5) / count * (len(there) - 1)).astype(int)]


def scores(weights: Path | None, files: list[Path], labels_of: dict[Path, Path], label: int) -> dict[str, float]:
    """Mean Dice after one click and with a box, on each volume's slice where the label is largest."""
    predictor = nmt.ImagePredictor(nmt.load_model("medt-click-tiny", weights=weights))
    found: dict[str, list[float]] = {"one click": [], "box": []}
    for path in files:
        volume, labels = nmt.read_volume(path), np.asarray(nmt.read_volume(labels_of[path]).data) == label
        z = int(labels.sum(axis=(1, 2)).argmax())
        mask = labels[z]
        image = np.asarray(volume.data[z], np.float32)
        low, high = np.percentile(np.asarray(volume.data), [0.5, 99.5])
        predictor.set_image(image, window=(float(low), float(high)))
        found["one click"].append(dice(predictor.predict(points=[innermost(mask)], labels=[1]).mask, mask))
        found["box"].append(dice(predictor.predict(box=bounding_box(mask)).mask, mask))
    return {name: float(np.mean(values)) for name, values in found.items()}


def main() -> None:
    """Train in a temporary folder, and print both scores and the time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds msd_hippocampus/")
    parser.add_argument("--weights", type=Path, help="start from this file instead of the bundled weights")
    parser.add_argument("--label", type=int, default=1)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--volumes", type=int, default=3)
    parser.add_argument("--steps", type=int, default=100)
    arguments = parser.parse_args()
    images = sorted((arguments.data / "msd_hippocampus" / "images").glob("*.nii.gz"))[4::5]
    if len(images) <= arguments.volumes:
        parser.error(f"{arguments.data}/msd_hippocampus/images holds too few volumes: {len(images)} of its fifths.")
    labels_of = {path: path.parents[1] / "labels" / path.name for path in images}
    trained, asked = images[: arguments.volumes], images[arguments.volumes : arguments.volumes + ASKED]
    before = scores(arguments.weights, asked, labels_of, arguments.label)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        count = write_cases(trained, labels_of, data, arguments.label, arguments.slices)
        start = "medt-click-tiny" if arguments.weights is None else str(arguments.weights)
        begun = time.monotonic()
        wanted = ClickTraining(data, Path(folder) / "out", "tuned", start=start, steps=arguments.steps)
        for step in train_click_model(wanted):
            if isinstance(step, Progress):
                print(f"{step.done} of {step.total}: {step.message}", end="\r", flush=True)
            elif isinstance(step, Result):
                print(f"\n{count} slices of {step.value.cases} volumes, {(time.monotonic() - begun) / 60:.1f} minutes")
        after = scores(Path(folder) / "out" / "tuned.safetensors", asked, labels_of, arguments.label)
    for name, value in before.items():
        print(f"{name}, {len(asked)} other volumes: {value:.3f} -> {after[name]:.3f}")


if __name__ == "__main__":
    main()
