"""Fuzz the readers: damaged files of every format must end in a Volume or in one of the project's own errors.

Small valid files are mutated (bytes flipped, cut, doubled, header fields rewritten, extreme numbers put in) and read
in a worker process, which is watched for time, memory and survival. The same seed makes the same files.

    python benchmarks/fuzz_volumes.py --cases 5000            # prints the table, writes docs/fuzzing.md
    python benchmarks/fuzz_volumes.py --cases 1 --keep DIR    # keeps what failed
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import random
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

LIMIT_SECONDS = 10.0
# A reader may take four times the file's honest size, the decoded voxels included, on top of what its libraries need.
LIMIT_RATIO = 4
LIBRARIES_BYTES = 96 << 20
_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_EXTREME_TEXTS = (b"0", b"-1", b"1e308", b"nan", b"inf", b"99999999999", b"", b"x", b"../../../etc/passwd", b"%s")


@dataclass
class Tally:
    """What came out: how often each outcome, and the cases that broke the rule."""

    outcomes: Counter = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    slowest: float = 0.0
    hungriest: int = 0


def make_seeds(folder: Path) -> list[Path]:
    """One small valid file per format and variant."""
    import nibabel as nib
    import pydicom
    import SimpleITK as sitk
    import tifffile
    from PIL import Image
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless, generate_uid

    folder.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(0).integers(-1000, 1000, (6, 7, 8)).astype(np.int16)
    affine = np.array([[-0.7, 0, 0, 12], [0, 0.8, 0.1, -30], [0, 0, 2.5, 9], [0, 0, 0, 1.0]])
    for name in ("a.nii", "b.nii.gz", "c.img"):
        image = (nib.Nifti1Pair if name.endswith("img") else nib.Nifti1Image)(values, affine)
        nib.save(image, folder / name)
    nib.save(nib.Nifti2Image(values.astype(np.float32), affine), folder / "d.nii")
    scaled = nib.Nifti1Image(values, affine)
    scaled.header.set_slope_inter(0.5, -3)
    nib.save(scaled, folder / "e.nii.gz")
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((0.7, 0.8, 2.5))
    for name, packed in (("f.nrrd", False), ("g.nrrd", True), ("h.mha", False), ("i.mha", True), ("j.mhd", False)):
        sitk.WriteImage(image, str(folder / name), useCompression=packed)
    np.save(folder / "k.npy", values)
    np.savez_compressed(folder / "l.npz", data=values, spacing=(1, 2, 3))
    grey = (values[0] + 1000).astype(np.uint8)
    Image.fromarray(grey).save(folder / "m.png")
    Image.fromarray(np.dstack([grey] * 3)).save(folder / "n.jpg")
    tifffile.imwrite(folder / "o.tif", values, compression="zlib")
    for letter, syntax in (("p", None), ("q", RLELossless), ("r", JPEGLSLossless)):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = "1.2.3", "1.2", "CT"
        ds.FrameOfReferenceUID = "1.2.4"
        ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = 7, 8, 1, "MONOCHROME2"
        ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
        ds.ImagePositionPatient, ds.ImageOrientationPatient = [1, 2, 3], [1, 0, 0, 0, 1, 0]
        ds.PixelSpacing, ds.SliceThickness = [0.7, 0.8], 2.5
        ds.RescaleSlope, ds.RescaleIntercept, ds.WindowCenter, ds.WindowWidth = 1, -24, [40, 300], [400, 1500]
        ds.PixelData = values[0].tobytes()
        if syntax is not None:
            ds.compress(syntax, generate_instance_uid=False)
        pydicom.dcmwrite(folder / f"{letter}.dcm", ds)
    with zipfile.ZipFile(folder / "s.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "p.dcm", "study/p.dcm")
    _make_dicom_seg(folder, values)
    return sorted(path for path in folder.iterdir() if path.suffix != ".raw")


def _make_dicom_seg(folder: Path, values: np.ndarray) -> None:
    try:
        import highdicom  # noqa: F401
    except ImportError:
        return
    from napari_medtransformer.volumes import read_volume, write_labels

    volume = read_volume(folder / "p.dcm")
    write_labels((volume.data > 0).astype(np.uint8), volume, folder / "t.dcm", names={1: "liver"})


def mutate(content: bytes, chance: random.Random) -> bytes:
    """A damaged copy. Headers, where a file's promises are, are hit more often than voxels."""
    packed = content[:2] == b"\x1f\x8b" and chance.random() < 0.5
    if packed:  # damage inside, so that the checksum does not catch everything
        content = gzip.decompress(content)
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        _one_damage(data, chance)
    return gzip.compress(bytes(data), mtime=0) if packed else bytes(data)


def _one_damage(data: bytearray, chance: random.Random) -> None:
    if not data:
        return
    head = min(len(data), chance.choice((64, 400, 1200, len(data))))
    at = chance.randrange(head)
    kind = chance.randrange(8)
    if kind == 0:
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1:
        data[at] = chance.randrange(256)
    elif kind == 2:
        value = chance.choice(_EXTREMES)
        packed = struct.pack(chance.choice(("<I", ">I")), value)[: chance.choice((1, 2, 4))]
        data[at : at + len(packed)] = packed
    elif kind == 3:
        number = chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf"), 1e-45))
        data[at : at + 4] = struct.pack("<f", number)
    elif kind == 4:
        del data[chance.randrange(len(data)) :]
    elif kind == 5:
        del data[at : at + chance.randrange(1, 64)]
    elif kind == 6:
        data[at:at] = data[at : at + chance.randrange(1, 64)]
    else:
        numbers = list(re.finditer(rb"-?\d+(\.\d+)?", data[:head]))
        if numbers:
            found = chance.choice(numbers)
            data[found.start() : found.end()] = chance.choice(_EXTREME_TEXTS)


def cases(seeds: list[Path], count: int, seed: int, folder: Path) -> Iterator[Path]:
    """`count` damaged files, the formats in turn, each with its companion files beside it."""
    chance = random.Random(seed)
    for number in range(count):
        source = seeds[number % len(seeds)]
        place = folder / f"{number:06d}"
        place.mkdir()
        for companion in (".raw", ".hdr", ".img"):
            beside = source.with_suffix(companion)
            if beside.exists() and source.suffix in (".mhd", ".img", ".hdr"):
                shutil.copy(beside, place / beside.name)
        target = place / source.name
        target.write_bytes(mutate(source.read_bytes(), chance))
        yield target


class Worker:
    """A process that reads files and reports; it is replaced when it dies or hangs."""

    def __init__(self) -> None:
        self.process: subprocess.Popen | None = None

    def read(self, path: Path) -> dict:
        """What reading `path` came to: outcome, error, seconds, bytes."""
        if self.process is None or self.process.poll() is not None:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
            self.process.stdout.readline()  # it has loaded its libraries
        self.process.stdin.write(f"{path}\n")
        started = time.monotonic()
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_SECONDS)
        if not ready:
            self.close()
            return {"outcome": "hang", "seconds": time.monotonic() - started, "bytes": 0}
        line = self.process.stdout.readline()
        if not line:
            code = self.process.wait()
            return {"outcome": f"crash ({code})", "seconds": time.monotonic() - started, "bytes": 0}
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def work() -> None:
    """The worker: a path per line in, a report per line out."""
    import warnings

    from napari_medtransformer.errors import MedTransformerError
    from napari_medtransformer.volumes import read_frames, read_label_names, read_labels

    warnings.simplefilter("ignore")
    warm = Path(tempfile.mkdtemp(prefix="medt-fuzz-"))
    try:
        for seed in make_seeds(warm):
            read_frames(seed) if seed.name != "t.dcm" else read_labels(seed)
    finally:
        shutil.rmtree(warm)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        path = Path(line.rstrip("\n"))
        report = {"outcome": "volume", "error": ""}
        before = _reset_peak()
        started = time.monotonic()
        try:
            honest = path.stat().st_size
            if path.name.startswith("t."):
                honest += read_labels(path).data.nbytes
                read_label_names(path)
            else:
                for volume in read_frames(path):
                    honest += volume.data.nbytes
                    volume.window  # noqa: B018 - computed on first use, and part of opening
                    float(volume.data.ravel()[-1])
        except MedTransformerError as error:
            text = str(error)
            report |= {"outcome": type(error).__name__ if "\n" not in text else "error of several lines", "error": text}
        except BaseException as error:
            report |= {"outcome": f"foreign {type(error).__name__}", "error": repr(error)}
        taken = max(0, _peak() - before)
        report |= {"seconds": time.monotonic() - started, "bytes": taken}
        if taken > LIBRARIES_BYTES + LIMIT_RATIO * honest:
            report["outcome"] = "memory"
        sys.stdout.write(json.dumps(report) + "\n")
        sys.stdout.flush()


def _reset_peak() -> int:
    """Forget the peak of resident memory (Linux) and return what is resident now, in bytes."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    """The peak of resident memory since the last reset, in bytes; 0 where the system does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return int(re.search(r"VmHWM:\s*(\d+)", status).group(1)) * 1024


def fuzz(count: int, seed: int, keep: Path | None = None) -> dict[str, Tally]:
    """Read `count` damaged files and tally by format; what broke the rule is copied to `keep`."""
    tallies: dict[str, Tally] = {}
    folder = Path(tempfile.mkdtemp(prefix="medt-fuzz-"))
    worker = Worker()
    try:
        for path in cases(make_seeds(folder / "seeds"), count, seed, folder):
            report = worker.read(path)
            tally = tallies.setdefault(path.name, Tally())
            tally.outcomes[report["outcome"]] += 1
            tally.slowest = max(tally.slowest, report["seconds"])
            tally.hungriest = max(tally.hungriest, report["bytes"])
            if report["outcome"] not in ("volume", "UnreadableFile", "UnsupportedVolume"):
                tally.broken.append(f"{path.parent.name}/{path.name}: {report['outcome']} {report.get('error', '')}")
                if keep is not None:
                    shutil.copytree(path.parent, keep / path.parent.name, dirs_exist_ok=True)
            shutil.rmtree(path.parent)
    finally:
        worker.close()
        shutil.rmtree(folder, ignore_errors=True)
    return tallies


def table(tallies: dict[str, Tally], count: int, seed: int, seconds: float) -> str:
    """The tally as Markdown."""
    lines = [
        "# Fuzzing the readers",
        "",
        f"{count} damaged files (seed {seed}) read in {seconds:.0f} s by `benchmarks/fuzz_volumes.py`. Every one must "
        f"end in a volume or in one of the project's errors, within {LIMIT_SECONDS:.0f} s and within "
        f"{LIMIT_RATIO} times its honest size of memory (plus {LIBRARIES_BYTES >> 20} MiB for libraries).",
        "",
        "| file | volume | UnreadableFile | UnsupportedVolume | rule broken | slowest, s | most memory, MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, tally in sorted(tallies.items()):
        out = tally.outcomes
        lines.append(
            f"| {name} | {out['volume']} | {out['UnreadableFile']} | {out['UnsupportedVolume']} | {len(tally.broken)} "
            f"| {tally.slowest:.2f} | {tally.hungriest / 1e6:.1f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run from the command line; 1 if the rule was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "docs" / "fuzzing.md")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work()
        return 0
    started = time.monotonic()
    tallies = fuzz(arguments.cases, arguments.seed, arguments.keep)
    text = table(tallies, arguments.cases, arguments.seed, time.monotonic() - started)
    arguments.output.parent.mkdir(exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    broken = [line for tally in tallies.values() for line in tally.broken]
    sys.stdout.write(text + "".join(f"\n{line}" for line in broken) + "\n")
    return 1 if broken else 0


if __name__ == "__main__":
    raise SystemExit(main())
