"""Where the sample files lie: beside the sources in a checkout, inside the package once installed from a wheel."""

from __future__ import annotations

import json
from pathlib import Path

from napari_medtransformer.errors import UnreadableFile

_PACKAGE = Path(__file__).resolve().parents[1]
# The wheel carries the folder inside the package; an editable install finds the checkout's own.
_FOLDERS = (_PACKAGE / "sample_data", _PACKAGE.parents[1] / "sample_data")


def sample_path(name: str) -> Path:
    """The path of one sample file, such as 'example_ct.nii.gz'. Raises UnreadableFile that says where it was sought."""
    for folder in _FOLDERS:
        if (folder / name).is_file():
            return folder / name
    raise UnreadableFile(
        f"there is no sample file {name} in {' or '.join(map(str, _FOLDERS))}. Install the package again."
    )


def sample_label_names(group: str = "total") -> dict[int, str]:
    """Names of the sample labels by number: group 'total' for the CT, 'total_mr' for the MR, 'hippocampus'."""
    if group == "hippocampus":
        return {1: "hippocampus anterior", 2: "hippocampus posterior"}
    groups = json.loads(sample_path("labels.json").read_text(encoding="utf-8"))
    return {int(number): name for number, name in groups[group].items()}
