"""The garbage collector: what stays is not visited again and again, and what goes is freed."""

from __future__ import annotations

import subprocess
import sys

# The tests set everything aside for themselves (conftest.py), so these run in processes of their own.
CYCLE = """
import gc, weakref
from napari_medtransformer.plugin.collecting import Aside

class Large:
    def __init__(self):
        self.itself = self

def gone():
    gc.collect()
    return known() is None
"""


def told(code: str, timeout: float = 120) -> list[str]:
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=timeout)
    return run.stdout.split()


def test_what_was_set_aside_is_freed_once_it_is_given_back() -> None:
    code = """
aside, large = Aside(), Large()
known = weakref.ref(large)
aside.begin()
aside.set()
del large
print(gone(), aside.is_set)
aside.give_back()
print(aside.is_set, gone(), aside.is_set)
aside.end()
print(aside.is_set, gc.get_freeze_count())
"""
    assert told(CYCLE + code) == ["False", "True", "False", "True", "True", "False", "0"]


def test_what_somebody_else_set_aside_is_left_alone() -> None:
    code = """
others = [[] for _ in range(20_000)]
large = Large()
known = weakref.ref(large)
gc.freeze()
count = gc.get_freeze_count()
aside = Aside()
aside.begin()
aside.set()
aside.give_back()
aside.end()
del large
print(aside.is_set, gone(), gc.get_freeze_count() == count)
"""
    assert told(CYCLE + code) == ["False", "False", "True"]


def test_a_removed_volume_is_freed_though_it_was_there_when_the_model_was_loaded() -> None:
    code = """
import napari, numpy as np
from qtpy.QtWidgets import QApplication
from napari_medtransformer.plugin.collecting import aside
from napari_medtransformer.plugin.controller import controller_of
from napari_medtransformer.plugin.prompts.dock import PromptDock

viewer = napari.Viewer(show=False)
controller = controller_of(viewer)
viewer.window.add_dock_widget(PromptDock(viewer))
layer = viewer.add_image(np.zeros((4, 32, 32), np.float32))
known = weakref.ref(layer)
while controller.session is None or controller.queue.pending:
    QApplication.processEvents()
print(aside.is_set)
viewer.layers.remove(layer)
del layer
print(aside.is_set)
for _ in range(20):
    QApplication.processEvents()
print(gone(), aside.is_set)
viewer.close()
QApplication.processEvents()
print(gc.get_freeze_count())
"""
    assert told(CYCLE + code)[-5:] == ["True", "False", "True", "True", "0"]
