"""The whole volume in one pass against windows, for a network whose positions are interpolated to the larger grid.

    python benchmarks/whole_context.py FOLDER [--model medt-hippocampus-unetr] [--blocks 1,2,2] [--mosaics 2]
    python benchmarks/whole_context.py FILE --box z0,y0,x0,z1,y1,x1 [--model medt-hippocampus-unetr]

FOLDER holds images/ and labels/ of the Decathlon's hippocampus task. Its volumes are about as large as the model's
window, so validation crops, each scaled to one mean and deviation, are laid side by side to larger ones: every voxel
and every label is real, but what lies beyond a crop's border is another patient. Dice is the mean of both labels over
the voxels of a mosaic, seconds are CPU time of the process.

FILE is a whole head, the box a part of it, larger than a window. Nobody drew its labels: what is told is how large the
structures come out, and how far the ways agree with one another.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def validation_ids(folder: Path) -> list[str]:
    """Every fifth case, beginning with the fifth."""
    return sorted(path.name for path in (folder / "images").glob("*.nii*"))[4::5]


def crop(folder: Path, name: str, size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A case's image, mean 0 and deviation 1, and labels: cut or mirrored at the borders to one size."""
    from napari_medtransformer.volumes import read_volume
    from napari_medtransformer.volumes.reading import read_labels

    image = np.asarray(read_volume(folder / "images" / name).data, np.float32)
    labels = np.asarray(read_labels(folder / "labels" / name).data)
    image = (image - image.mean()) / image.std()
    parts = []
    for array in (image, labels):
        missing = [max(0, n - have) for n, have in zip(size, array.shape)]
        array = np.pad(array, [(m // 2, m - m // 2) for m in missing], mode="reflect")
        first = [(have - n) // 2 for n, have in zip(size, array.shape)]
        parts.append(array[tuple(slice(a, a + n) for a, n in zip(first, size))])
    return parts[0], parts[1]


def mosaic(pieces: list[np.ndarray], blocks: tuple[int, ...]) -> np.ndarray:
    """Pieces of one shape side by side, `blocks` along z, y, x."""
    z, y, x = blocks
    rows = [np.concatenate(pieces[i * x : (i + 1) * x], axis=2) for i in range(z * y)]
    slabs = [np.concatenate(rows[i * y : (i + 1) * y], axis=1) for i in range(z)]
    return np.concatenate(slabs, axis=0)


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean over both labels."""
    scores = [2 * np.sum((found == n) & (truth == n)) / (np.sum(found == n) + np.sum(truth == n)) for n in (1, 2)]
    return float(np.mean(scores))


WAYS: dict[str, dict[str, Any]] = {
    "windows, overlap 0.25": {"overlap": 0.25},
    "windows, overlap 0.5": {"overlap": 0.5},
    "the whole volume in one pass": {"whole": True},
}


def of_mosaics(model: Any, folder: Path, blocks: tuple[int, ...], mosaics: int) -> None:
    """Dice and time of each way on mosaics of validation crops."""
    import napari_medtransformer as nmt
    from napari_medtransformer.volumes import Volume

    size = model.card.input.size
    ids, each = validation_ids(folder), int(np.prod(blocks))
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for number in range(mosaics):
        pairs = [crop(folder, name, size) for name in ids[number * each : (number + 1) * each]]
        image, truth = (mosaic([pair[i] for pair in pairs], blocks) for i in (0, 1))
        volume = Volume.from_array(image, model.card.input.spacing_mm or (1.0, 1.0, 1.0), "MR")
        for way, options in WAYS.items():
            begun = time.process_time()
            labels = nmt.segment(model, volume, **options)
            found[way].append((dice(np.asarray(labels), truth), time.process_time() - begun))
    print(f"{model.card.name}, {mosaics} mosaics of {image.shape} voxels, windows of {size}")
    print("\n| | mean Dice | CPU s |\n|---|---|---|")
    for way, rows in found.items():
        print(f"| {way} | {np.mean([r[0] for r in rows]):.3f} | {np.mean([r[1] for r in rows]):.1f} |")


def of_a_head(model: Any, file: Path, box: list[list[int]]) -> None:
    """Size, agreement and time of each way in a box of a real head."""
    import napari_medtransformer as nmt
    from napari_medtransformer.volumes import read_volume

    volume = read_volume(file, modality="MR")
    region = tuple(tuple(corner) for corner in box)
    found: dict[str, tuple[np.ndarray, float]] = {}
    for way, options in WAYS.items():
        begun = time.process_time()
        labels = np.asarray(nmt.segment(model, volume, region=region, **options))
        found[way] = labels, time.process_time() - begun
    first = next(iter(found.values()))[0]
    voxel_ml = float(np.prod(volume.spacing)) / 1000
    print(f"{model.card.name}, {file.name}, a box of {np.subtract(*box[::-1]).tolist()} voxels (z, y, x)")
    print("\n| | ml | Dice with the first row | CPU s |\n|---|---|---|---|")
    for way, (labels, seconds) in found.items():
        sizes = ", ".join(f"{voxel_ml * np.count_nonzero(labels == n):.2f}" for n in (1, 2))
        print(f"| {way} | {sizes} | {dice(labels, first):.3f} | {seconds:.1f} |")


def main() -> None:
    import torch

    import napari_medtransformer as nmt
    from napari_medtransformer.volumes import Volume

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", metavar="FOLDER|FILE", type=Path)
    parser.add_argument("--model", default="medt-hippocampus-unetr")
    parser.add_argument("--blocks", default="1,2,2", help="crops along z, y, x")
    parser.add_argument("--mosaics", type=int, default=2)
    parser.add_argument("--box", help="of a FILE: z0,y0,x0,z1,y1,x1, half-open")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    model = nmt.load_model(chosen.model, device="cpu")
    nmt.segment(model, Volume.from_array(np.random.default_rng(0).normal(size=model.card.input.size), modality="MR"))
    if chosen.source.is_dir():
        of_mosaics(model, chosen.source, tuple(int(n) for n in chosen.blocks.split(",")), chosen.mosaics)
    else:
        corners = np.array([int(n) for n in chosen.box.split(",")]).reshape(2, 3).tolist()
        of_a_head(model, chosen.source, corners)


if __name__ == "__main__":
    # The folder of this file must not shadow packages.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main()
