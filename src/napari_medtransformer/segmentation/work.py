"""One case of a batch, wherever it is done: read, segmented, written, recorded."""

from __future__ import annotations

import hashlib
import json
import threading
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from napari_medtransformer.errors import CannotWrite, UnreadableFile
from napari_medtransformer.models import ModelCard
from napari_medtransformer.models.base import AutomaticModel
from napari_medtransformer.progress import Progress, Result
from napari_medtransformer.segmentation.cases import Case, content_hash
from napari_medtransformer.segmentation.evaluation import Agreement, agreement

_RECORD_VERSION = 1
# Between labels and the record that is written after them, and what clocks of shared disks are off.
_SAME_MOMENT_S = 2.0


@dataclass(frozen=True)
class Job:
    """What a batch does with every case; it travels to workers.

    weights: as for load_model. weights_hash: of the file, so that other weights mean other labels. options: of
    SegmentOptions. threads: of torch, None for its default. recorded: whether finished cases are remembered.
    """

    card: ModelCard
    weights: str | None
    weights_hash: str
    device: str
    options: dict[str, Any] = field(default_factory=dict)
    threads: int | None = None
    recorded: bool = True


@dataclass(frozen=True)
class Errand:
    """A case and where its labels go.

    uncertainty: where its entropy goes, None for nowhere. reference: labels on its grid to compare with.
    """

    case: Case
    output: Path
    uncertainty: Path | None = None
    reference: Path | None = None

    @property
    def record(self) -> Path:
        """The file beside the labels that says what they were made of."""
        name = self.output.name.removesuffix(".gz")
        return self.output.with_name(f"{name.rpartition('.')[0] or name}.json")


@dataclass(frozen=True)
class Done:
    """A segmented case. volumes_ml: by the labels' names, those that the model knows, 0 where not found.

    scores: against the errand's reference, of the labels that the model knows, of all if it knows none of them.
    """

    name: str
    input: str
    output: str
    volumes_ml: dict[str, float]
    messages: tuple[str, ...] = ()
    skipped: bool = False
    scores: tuple[Agreement, ...] = ()


def finished(job: Job, errand: Errand) -> Done | None:
    """What was done before, if its record says that the same input, model and options made it; None to do it."""
    if not job.recorded or not errand.output.is_file():
        return None
    if errand.uncertainty is not None and not errand.uncertainty.is_file():
        return None
    record = _read_record(errand.record)
    try:
        if record is None or record["key"] != _key(job, errand.case):
            return None
        volumes = {str(name): float(ml) for name, ml in record["volumes_ml"].items()}
        return Done(
            errand.case.name, str(errand.case.path), str(errand.output), volumes, tuple(record["messages"]), True
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged: the case is done again
    except UnreadableFile:
        return None  # the input went away since: doing the case says so, and the others go on


def is_ours(errand: Errand) -> bool:
    """Whether the record of a batch lies beside the labels, of whatever input, model and options."""
    return _read_record(errand.record) is not None


def check_ours(errand: Errand) -> None:
    """Raises CannotWrite where a file that no batch made, or labels corrected since, have the name of one of these."""
    record = _read_record(errand.record)
    if record is not None:
        if errand.output.exists() and _is_changed(errand, record):
            raise CannotWrite(
                f"{errand.output} was changed after it was written, by hand perhaps, and was left alone; move it away, "
                "or choose another folder."
            )
        return
    for path in (errand.output, errand.uncertainty, errand.record):
        if path is not None and path.exists():
            raise CannotWrite(f"{path} is not from this program's batch and was left alone; choose another folder.")


def elsewhere(job: Job, errand: Errand) -> tuple[Job, Errand]:
    """The same work with absolute paths: for whoever stands in another folder, and alike in every report."""
    case = replace(errand.case, path=errand.case.path.absolute(), files=tuple(f.absolute() for f in errand.case.files))
    uncertainty, reference = (
        None if path is None else path.absolute() for path in (errand.uncertainty, errand.reference)
    )
    weights = job.weights if job.weights in (None, "random") else str(Path(job.weights).absolute())
    return replace(job, weights=weights), Errand(case, errand.output.absolute(), uncertainty, reference)


def run_errand(job: Job, errand: Errand) -> Done:
    """Do one case from beginning to end. Raises what reading, segmenting and writing raise."""
    done = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what matters is in the messages
        for step in errand_steps(job, errand):
            if isinstance(step, Result):
                done = step.value
    if done is None:
        raise RuntimeError("the steps ended without a Result")
    return done


def errand_steps(job: Job, errand: Errand) -> Iterator[Progress | Result[Done]]:
    """As run_errand, with the windows' progress on the way."""
    from napari_medtransformer.segmentation.engine import Segmentation, segment_steps
    from napari_medtransformer.volumes import label_statistics, read_labels, read_volume, write_heatmap, write_labels

    case = errand.case
    key = _key(job, case) if job.recorded else ""
    volume = read_volume(case.path, series=case.series, frame=case.frame)
    model, alone = _loaded(job.card, job.weights, job.weights_hash, job.device, job.threads)
    found: Segmentation | None = None
    with alone:  # one model, one volume at a time
        for step in segment_steps(model, volume, **job.options):
            if isinstance(step, Progress):
                yield step
            elif isinstance(step, Result):
                found = step.value
    if found is None:
        raise RuntimeError("the steps ended without a Result")
    names = {label.value: label.name for label in job.card.labels}
    if errand.output.suffix.lower() == ".dcm" and not found.labels.any():
        raise CannotWrite(
            f"{errand.output} was not written: nothing was found, and a DICOM-SEG holds at least one structure. "
            "Save as .nii.gz."
        )
    _make_folder(errand.output.parent)
    done = Done(case.name, str(case.path), str(errand.output), {})
    if job.recorded or is_ours(errand):
        # Ended between labels and record, they count as ours and as unfinished; so do one volume's among a batch's.
        _write_record(errand, "", done)
    write_labels(found.labels, volume, errand.output, names=names)
    if errand.uncertainty is not None and found.entropy is not None:
        _make_folder(errand.uncertainty.parent)
        write_heatmap(found.entropy, volume, errand.uncertainty)
    measured = {one.label.number: one.volume_ml for one in label_statistics(found.labels, volume)}
    volumes = dict.fromkeys(names.values(), 0.0)
    for value, name in names.items():
        volumes[name] = round(volumes[name] + measured.get(value, 0.0), 6)
    scores: tuple[Agreement, ...] = ()
    if errand.reference is not None:
        truth = read_labels(errand.reference).data
        known = agreement(found.labels, truth, volume.spacing, names=names)
        scores = tuple([one for one in known if one.label.number in names] or known)
    done = replace(done, volumes_ml=volumes, messages=found.messages, scores=scores)
    if job.recorded:
        _write_record(errand, key, done)
    yield Result(done)


def job_for(card: ModelCard, weights: str | None, device: str, options: dict[str, Any], **more: Any) -> Job:
    """A Job; its weights are found, or fetched, and hashed here.

    Raises InvalidOption, UnreadableWeights, CannotWrite.
    """
    from napari_medtransformer.models.weights import find_weights
    from napari_medtransformer.segmentation.options import SegmentOptions

    SegmentOptions(**options)  # better now than in every case

    known = "random, seed 0" if weights == "random" else content_hash([find_weights(card, weights)])
    return Job(card, weights, known, device, options, **more)


_loading = threading.Lock()
"""A worker of several threads loads its model once, not once per thread."""


def _loaded(
    card: ModelCard, weights: str | None, weights_hash: str, device: str, threads: int | None
) -> tuple[AutomaticModel, threading.Lock]:
    """The model of this process, loaded once, and the lock of who uses it."""
    with _loading:
        return _load(card, weights, weights_hash, device, threads)


@lru_cache(maxsize=1)
def _load(
    card: ModelCard, weights: str | None, weights_hash: str, device: str, threads: int | None
) -> tuple[AutomaticModel, threading.Lock]:
    import torch

    from napari_medtransformer.models import load_model

    if threads is not None:
        torch.set_num_threads(threads)
    model: Any = load_model(card, weights, device, dtype="float32")
    return model, threading.Lock()


def _known_of(card: ModelCard) -> dict[str, Any]:
    """What labels depend on in a card: all but words for a person, and weights, whose content counts."""
    values = asdict(card)
    for words in ("title", "licence", "citation", "description", "training", "anatomy", "memory_bytes", "weights"):
        values.pop(words)
    values["input"].pop("intensities")
    return values


def _key(job: Job, case: Case) -> str:
    """What the labels depend on: the input's content, the model and the options; not where it runs."""
    asked = [_known_of(job.card), job.weights_hash, job.options, case.series, case.frame]
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(asked, sort_keys=True, default=list).encode())
    digest.update(content_hash(case.files).encode())
    return digest.hexdigest()


def _read_record(path: Path) -> dict[str, Any] | None:
    """What a batch wrote beside labels; None for no file, or for one that is none of ours."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    ours = isinstance(record, dict) and {"version", "key", "volumes_ml"} <= record.keys()
    return record if ours else None


def _is_changed(errand: Errand, record: dict[str, Any]) -> bool:
    """Whether labels are other than when their record was written."""
    if not record["key"]:  # ended between the two
        return False
    if "labels" in record:
        return bool(record["labels"] != content_hash([errand.output]))
    # of a version that noted no content: a record is written right after its labels
    return errand.output.stat().st_mtime > errand.record.stat().st_mtime + _SAME_MOMENT_S


def _write_record(errand: Errand, key: str, done: Done) -> None:
    """With its key it is written after the labels: without, they count as unfinished."""
    from napari_medtransformer.files import replacing

    values = asdict(done) | {"version": _RECORD_VERSION, "key": key}
    for what in ("skipped", "scores"):
        values.pop(what)
    # names alone: a folder that is moved, or restarted elsewhere, keeps its records
    values["input"], values["output"] = Path(done.input).name, errand.output.name
    if key:
        values["labels"] = content_hash([errand.output])
    with replacing(errand.record) as stream:
        stream.write((json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(f"there is no folder {folder} and none could be made: {error.strerror}.") from error
