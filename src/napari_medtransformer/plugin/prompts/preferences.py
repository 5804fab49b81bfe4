"""What a user decides once about prompting: live or on demand, preview, memory, disk, and where the model runs."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import platformdirs

from napari_medtransformer.files import write_text

PREFERENCES_VARIABLE = "MEDT_PREFERENCES"
"""Names another file for them."""


@dataclass(frozen=True)
class Preferences:
    """auto: predict after every prompt. hover: preview under the cursor. memory_mb: for encoded slices of a volume.

    disk_gb: for encoded slices on disk, 0 for none. reach: slices encoded ahead on each side. autosave: keep unsaved
    work for the next start. cluster: address of a dask scheduler, empty to work here.
    """

    auto: bool = True
    hover: bool = False
    memory_mb: int = 1000
    disk_gb: float = 2.0
    reach: int = 8
    autosave: bool = True
    cluster: str = ""


def preferences_path() -> Path:
    """Their file: $MEDT_PREFERENCES, or prompting.json in the platform's folder for settings."""
    given = os.environ.get(PREFERENCES_VARIABLE)
    if given:
        return Path(given).expanduser()
    return platformdirs.user_config_path("napari-medtransformer") / "prompting.json"


def read_preferences() -> Preferences:
    """The user's preferences, or the defaults; a damaged or closed file is left alone, with a warning."""
    path = preferences_path()
    try:
        if not path.is_file():
            return Preferences()
        read = json.loads(path.read_text(encoding="utf-8"))
        kinds = {field.name: type(getattr(Preferences(), field.name)) for field in fields(Preferences)}
        return Preferences(**{name: kinds[name](value) for name, value in read.items() if name in kinds})
    except (OSError, ValueError, OverflowError, TypeError, AttributeError) as error:
        warnings.warn(f"the preferences in {path} cannot be read and are left out: {error}", stacklevel=2)
        return Preferences()


def write_preferences(preferences: Preferences) -> None:
    """Keep them for later sessions; the file is replaced whole. Raises CannotWrite."""
    write_text(preferences_path(), json.dumps(asdict(preferences), indent=1))
