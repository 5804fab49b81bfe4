"""The tests leave alone what belongs to whoever runs them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDERS = """
from napari_medtransformer.models.download import cache_folder
from napari_medtransformer.models.settings import settings_path
from napari_medtransformer.plugin.prompts.preferences import preferences_path, read_preferences
from napari_medtransformer.prompting.autosave import default_folder
print(cache_folder(), settings_path(), preferences_path(), default_folder(), sep="\\n")
assert read_preferences().disk_gb == 0, "encoded slices would be kept in the user's cache"
"""


def test_a_program_that_a_test_starts_keeps_nothing_in_the_users_own_folders() -> None:
    told = subprocess.run([sys.executable, "-c", FOLDERS], capture_output=True, text=True, check=True, env=os.environ)
    folders = told.stdout.split()
    assert len(folders) == 4
    for folder in folders:
        assert Path(folder).is_relative_to(tempfile.gettempdir()), folder
