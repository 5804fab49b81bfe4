"""What a user decided once for all sessions: where weights lie, a mirror, working offline, models of their own."""

from __future__ import annotations

import json
import math
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from napari_medtransformer.errors import InvalidOption
from napari_medtransformer.files import write_text

SETTINGS_VARIABLE = "MEDT_SETTINGS"
KEPT_GB = 4.0
"""Memory that models in waiting may take unless the user says otherwise: a SAM ViT-H and two of ViT-B."""


@dataclass(frozen=True)
class Settings:
    """The user's settings, empty where the default is meant.

    cache: folder of downloaded weights. mirror: address asked instead of the publishers'. offline: nothing is fetched.
    kept_gb: memory that models which are not in use may go on taking, so that choosing them again is quick.
    added: cards of models that the user added from files, as `card_files` writes them.
    """

    cache: str = ""
    mirror: str = ""
    offline: bool = False
    kept_gb: float = KEPT_GB
    added: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if self.mirror and not self.mirror.startswith(("https://", "http://")):
            raise InvalidOption(f"the mirror is {self.mirror!r}; expected an address such as https://mirror.example.")
        if not (math.isfinite(self.kept_gb) and self.kept_gb >= 0):
            raise InvalidOption(f"models may be kept in 0 GB or more, not {self.kept_gb}.")


def settings_path() -> Path:
    """The file of settings: $MEDT_SETTINGS, or settings.json in the platform's folder for them."""
    given = os.environ.get(SETTINGS_VARIABLE)
    return (
        Path(given).expanduser() if given else platformdirs.user_config_path("napari-medtransformer") / "settings.json"
    )


def read_settings() -> Settings:
    """The user's settings, or the defaults. A damaged or closed file is left alone, with a warning."""
    path = settings_path()
    try:
        if not path.is_file():
            return Settings()
        read = json.loads(path.read_text(encoding="utf-8"))
        known = {field.name for field in fields(Settings)}
        values = {name: value for name, value in read.items() if name in known}
        return Settings(**{**values, "added": tuple(values.get("added", ()))})
    except (OSError, ValueError, TypeError, AttributeError, InvalidOption) as error:
        warnings.warn(f"the settings in {path} cannot be read and are left out: {error}", stacklevel=2)
        return Settings()


def write_settings(settings: Settings) -> None:
    """Keep the settings for later sessions; the file is replaced whole. Raises CannotWrite."""
    write_text(settings_path(), json.dumps(asdict(settings), indent=1, ensure_ascii=False))
