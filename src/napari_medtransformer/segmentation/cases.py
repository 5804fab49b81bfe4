"""Which volumes a folder holds, whatever their formats, and what to call their labels."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from napari_medtransformer.errors import MedTransformerError, UnreadableFile
from napari_medtransformer.volumes.reading import ITK_SUFFIXES, NIFTI_SUFFIXES, NUMPY_SUFFIXES, has_suffix
from napari_medtransformer.volumes.volume import stem

_VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *NUMPY_SUFFIXES)
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
# Beside a header there is a file of voxels, which is no case of its own: of these suffixes, the first names the case.
_PAIRS = ((".hdr", ".img"), (".hdr.gz", ".img.gz"), (".hdr", ".img.gz"))
_HASHED_AT_ONCE = 1 << 20
_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Case:
    """One volume to segment. path: its file or folder. name: of its labels, relative, without suffix.

    series: the UID, or number, of a DICOM series where the folder holds several. frame: the time point or channel of a
    4D file. files: what the volume is made of.
    """

    path: Path
    name: str
    files: tuple[Path, ...]
    series: str | None = None
    frame: int | None = None


def find_cases(folder: Path, leave_out: Iterable[Path] = ()) -> list[Case]:
    """Every volume in a folder and below it, by name; nothing under the folders of `leave_out`, nothing hidden.

    NIfTI, NRRD, MHA and NumPy files, DICOM zips, OME-Zarr folders, and every series of a folder of DICOM files.
    Pictures are no volumes. Raises UnreadableFile if there is none.
    """
    from napari_medtransformer.volumes.ome_zarr import is_ome_zarr

    found: list[Case] = []
    skipped = {one.resolve() for one in leave_out}
    for parent, folders, names in os.walk(folder):
        here = Path(parent)
        kept = []
        for name in sorted(folders):
            inner = here / name
            if name.startswith(".") or inner.resolve() in skipped:
                continue
            if is_ome_zarr(inner):
                found.append(Case(inner, _relative(folder, inner), _all_files(inner)))
            else:
                kept.append(name)
        folders[:] = kept
        found += _cases_of(folder, here, [here / name for name in sorted(names) if not name.startswith(".")])
    if not found:
        raise UnreadableFile(
            f"{folder} holds no volume; expected DICOM files, OME-Zarr folders, or names that end in "
            f"{', '.join(_VOLUME_SUFFIXES)}."
        )
    return _with_distinct_names(sorted(found, key=lambda case: (case.name, str(case.path), case.series or "")))


def single_case(path: Path, name: str | None = None, series: str | None = None, frame: int | None = None) -> Case:
    """A file, or a folder that is one volume, or one series or frame of it."""
    files = _all_files(path) if path.is_dir() else _with_partners(path)
    return Case(path, name or stem(path), files, series, frame)


def content_hash(files: Iterable[Path]) -> str:
    """A hash of what files hold, whatever they are called. Raises UnreadableFile."""
    digests = []
    for file in files:
        digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
        try:
            with file.open("rb") as stream:
                while block := stream.read(_HASHED_AT_ONCE):
                    digest.update(block)
        except OSError as error:
            raise UnreadableFile(f"{file} cannot be read: {error.strerror}.") from error
        digests.append(digest.digest())
    return hashlib.blake2b(b"".join(sorted(digests)), digest_size=_DIGEST_BYTES).hexdigest()


def _cases_of(root: Path, here: Path, files: list[Path]) -> list[Case]:
    """The cases among the files of one folder."""
    from napari_medtransformer.volumes.dicom import holds_dicom
    from napari_medtransformer.volumes.dicom_headers import is_dicom, read_series

    cases, slices = [], []
    for file in files:
        if has_suffix(file, _VOLUME_SUFFIXES):
            if not any(has_suffix(file, (voxels,)) and _partner(file, voxels, header) for header, voxels in _PAIRS):
                cases.append(Case(file, _relative(root, file), _with_partners(file)))
        elif has_suffix(file, (".zip",)):
            if holds_dicom(file):
                cases.append(Case(file, _relative(root, file), (file,)))
        elif has_suffix(file, _DICOM_SUFFIXES) or (not file.suffix and is_dicom(file)):
            slices.append(file)
    if not slices:
        return cases
    name = _relative(root, here) if here != root else here.resolve().name
    try:
        series = read_series(slices)
    except MedTransformerError:
        # a damaged header: the whole folder is a case, and says what is wrong when it is read
        return [*cases, Case(here, name, tuple(slices))]
    if len(series) == 1:
        return [*cases, Case(here, name, tuple(slices))]
    for number, one in enumerate(series, start=1):
        files_of = tuple(dict.fromkeys(frame.file for frame in one.frames))
        cases.append(Case(here, f"{name}-{number}", files_of, one.uid))
    return cases


def _with_partners(file: Path) -> tuple[Path, ...]:
    """A file and those beside it that hold its voxels."""
    partners = [beside for header, voxels in _PAIRS if (beside := _partner(file, header, voxels))]
    detached = [file.with_suffix(suffix) for suffix in (".raw", ".zraw", ".raw.gz", ".bin")
                if has_suffix(file, (".mhd", ".nhdr"))]  # fmt: skip
    return (file, *partners, *(one for one in detached if one.is_file()))


def _partner(file: Path, own: str, other: str) -> Path | None:
    """The file beside this one with another suffix, if this one has `own` and that one is there."""
    if not has_suffix(file, (own,)):
        return None
    beside = file.with_name(file.name[: -len(own)] + other)
    return beside if beside.is_file() else None


def _all_files(folder: Path) -> tuple[Path, ...]:
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


def _relative(root: Path, path: Path) -> str:
    """Where a case lies below `root`, without its suffix, with / between folders."""
    relative = path.relative_to(root)
    name = path.name if path.is_dir() and path.suffix != ".zarr" else stem(path)
    return (relative.parent / name).as_posix()


def _with_distinct_names(cases: list[Case]) -> list[Case]:
    """The same cases; those that would share a name get their suffix into it, then a number."""
    counts = Counter(case.name for case in cases)
    taken: Counter[str] = Counter()
    result = []
    for case in cases:
        name = case.name
        if counts[name] > 1:
            name = f"{name}_{case.path.name[len(stem(case.path)) :].strip('.').replace('.', '_') or 'dicom'}"
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name}-{taken[name]}"
        result.append(Case(case.path, name, case.files, case.series))
    return result
