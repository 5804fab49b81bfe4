"""The whole volume in one pass against windows, for a network whose positions are interpolated to the larger grid.

    python benchmarks/whole_context.py FOLDER [--model medt-hippocampus-unetr] [--blocks 1,2,2] [--mosaics 2]

FOLDER holds images/ and labels/ of the Decathlon's hippocampus task. Its volumes are about as large as the model's
window, so validation crops, each scaled to one mean and deviation, are laid side by side to larger ones: every voxel
and every label is real, but what lies beyond a crop's border is another patient. Dice is the mean of both labels over
the voxels of a mosaic, seconds are CPU time of the process.
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


def main() -> None:
    import torch

    import napari_medtransformer as nmt
    from napari_medtransformer.volumes import Volume

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="medt-hippocampus-unetr")
    parser.add_argument("--blocks", default="1,2,2", help="crops along z, y, x")
    parser.add_argument("--mosaics", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    blocks = tuple(int(n) for n in chosen.blocks.split(","))
    model = nmt.load_model(chosen.model, device="cpu")
    size = model.card.input.size
    ids, each = validation_ids(chosen.folder), int(np.prod(blocks))
    ways: dict[str, dict[str, Any]] = {
        "windows, overlap 0.25": {"overlap": 0.25},
        "windows, overlap 0.5": {"overlap": 0.5},
        "the whole volume in one pass": {"whole": True},
    }
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for number in range(chosen.mosaics):
        pairs = [crop(chosen.folder, name, size) for name in ids[number * each : (number + 1) * each]]
        image, truth = (mosaic([pair[i] for pair in pairs], blocks) for i in (0, 1))
        volume = Volume.from_array(image, model.card.input.spacing_mm or (1.0, 1.0, 1.0), "MR")
        for way, options in ways.items():
            begun = time.process_time()
            labels = nmt.segment(model, volume, **options)
            found[way].append((dice(np.asarray(labels), truth), time.process_time() - begun))
    print(f"{chosen.model}, {chosen.mosaics} mosaics of {image.shape} voxels, windows of {size}")
    print("\n| | mean Dice | CPU s |\n|---|---|---|")
    for way, rows in found.items():
        print(f"| {way} | {np.mean([r[0] for r in rows]):.3f} | {np.mean([r[1] for r in rows]):.1f} |")


if __name__ == "__main__":
    # The folder of this file must not shadow packages.
    sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]
    main()
