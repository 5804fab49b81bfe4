"""A virtual screen for this process alone, on which no other process takes the focus."""

from __future__ import annotations

import os
import shutil
import subprocess

# Large enough for the viewer with both docks; 24 bits, as OpenGL wants them. The server picks a free number itself and
# says it on its output. Its keeper waits for the end of its own input, which comes when this process ends, however.
_KEEPER = """
Xvfb -displayfd 1 -screen 0 1600x1000x24 -nolisten tcp -noreset 2>/dev/null &
exec >/dev/null
read -r _
kill $!
"""


def start_screen() -> None:
    """Start a screen and point $DISPLAY to it; it ends with this process. Does nothing where there is no Xvfb."""
    if shutil.which("Xvfb") is None:
        return
    read, write = os.pipe()  # not inherited by programs; `write` stays open until this process is gone
    keeper = subprocess.Popen(
        ["sh", "-c", _KEEPER], stdin=read, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    os.close(read)
    assert keeper.stdout is not None
    number = keeper.stdout.readline().strip()
    if not number:
        os.close(write)
        raise RuntimeError("Xvfb did not start; run `Xvfb -displayfd 1` to see why")
    os.environ["DISPLAY"] = f":{number}"
    os.environ.pop("WAYLAND_DISPLAY", None)
    os.environ.pop("XAUTHORITY", None)
