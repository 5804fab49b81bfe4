"""The picker of models in a real viewer: finding, fetching, adding, choosing, and a model of another package."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from model_pickers import PATIENCE_MS, select

from napari_medtransformer.models import registry
from napari_medtransformer.models.card import BUNDLED
from napari_medtransformer.models.card_files import card_as_dict
from napari_medtransformer.models.download import is_on_disk
from napari_medtransformer.models.registry import find_card, list_models
from napari_medtransformer.models.settings import Settings, read_settings, write_settings
from napari_medtransformer.plugin.models.slot import answers_prompts

WEIGHTS = (BUNDLED / "medt-click-tiny.safetensors").read_bytes()

# --- finding ---------------------------------------------------------------------------------------------------------


def test_models_are_found_by_words_task_modality_dimensions_and_disk(open_picker) -> None:
    _, picker = open_picker()
    everything = {card.name for card in registry.list_models()}
    assert set(picker.list.names) == everything
    picker.list.search.setText("segment anything VIT-L")
    assert set(picker.list.names) == {name for name in everything if "vit-l" in name}
    select(picker, "sam-vit-l")
    assert picker.card.name == "sam-vit-l"
    picker.list.search.setText("")
    picker.list.task.setCurrentIndex(picker.list.task.findData("automatic"))
    picker.list.refresh()
    assert set(picker.list.names) == {name for name in everything if find_card(name).task == "automatic"}
    picker.list.task.setCurrentIndex(0)
    picker.list.modality.setCurrentIndex(picker.list.modality.findData("ultrasound"))
    picker.list.refresh()
    assert "medsam" in picker.list.names
    assert "sam-vit-b" not in picker.list.names
    picker.list.modality.setCurrentIndex(0)
    picker.list.dimensions.setCurrentIndex(picker.list.dimensions.findData(3))
    picker.list.refresh()
    assert set(picker.list.names) == {name for name in everything if find_card(name).dimensions == 3}
    picker.list.dimensions.setCurrentIndex(0)
    picker.list.on_disk.setChecked(True)
    assert set(picker.list.names) == {name for name in everything if is_on_disk(find_card(name))}
    picker.list.search.setText("no such model at all")
    assert picker.list.names == []
    assert picker.list.none.isVisible()
    assert picker.card is None
    assert not picker.use.isEnabled()


def test_nothing_moves_when_no_model_is_found(open_picker) -> None:
    desk, picker = open_picker()
    place = picker.list.on_disk.geometry()
    picker.list.search.setText("no such model at all")
    desk.qtbot.waitUntil(picker.list.none.isVisible)
    desk.qtbot.wait(50)
    assert abs(picker.list.on_disk.geometry().top() - place.top()) <= 1


def test_what_was_said_about_a_model_goes_when_another_is_selected(open_picker, notifications) -> None:
    write_settings(Settings(offline=True))
    desk, picker = open_picker()
    select(picker, "sam-vit-h")
    picker.fetch.click()
    desk.qtbot.waitUntil(lambda: "switched off" in picker.message.text(), timeout=PATIENCE_MS)
    picker.refresh()
    assert picker.message.isVisible()
    select(picker, "sam-vit-b")
    assert not picker.message.isVisible()


def test_a_card_says_what_a_model_is_and_what_it_costs(open_picker) -> None:
    _, picker = open_picker()
    select(picker, "sam-vit-h")
    text = picker.details.text.toPlainText()
    for part in ("1024 × 1024", "download, 2.6 GB", "Apache-2.0", "Kirillov", "photographs"):
        assert part in text
    line = picker.details.memory_line.text()
    assert "Needs about 4.6 GB" in line
    assert "are free on this computer" in line
    select(picker, "medt-click-tiny")
    assert "CC BY-SA" in picker.details.text.toPlainText()
    link = "What it was trained on"
    assert link in picker.details.text.toPlainText()


def test_a_model_for_another_dock_is_shown_and_says_where_it_belongs(open_picker) -> None:
    _, picker = open_picker()
    other = next(card for card in registry.list_models() if not answers_prompts(card))
    select(picker, other.name)
    assert not picker.use.isEnabled()
    assert "dock for that" in picker.use.toolTip()


# --- adding and choosing ---------------------------------------------------------------------------------------------


def test_a_file_of_the_user_s_becomes_a_model_that_stays(open_picker, tmp_path: Path) -> None:
    desk, picker = open_picker()
    path = tmp_path / "liver of ours.safetensors"
    path.write_bytes(WEIGHTS)
    picker.add_file(path)
    desk.qtbot.waitUntil(lambda: "liver-of-ours" in picker.list.names, timeout=PATIENCE_MS)
    assert picker.card.name == "liver-of-ours"
    assert [values["name"] for values in read_settings().added] == ["liver-of-ours"]
    picker.use.click()
    desk.qtbot.waitUntil(lambda: desk.controller.models.model is not None, timeout=PATIENCE_MS)
    assert desk.controller.models.model.card.weights == path
    assert picker.remove.isVisible()
    picker.remove.click()
    assert "liver-of-ours" not in picker.list.names
    assert path.is_file()


def test_a_name_that_is_taken_twice_in_the_settings_leaves_all_other_models_to_choose(
    open_picker, tmp_path: Path
) -> None:
    path = tmp_path / "ours.safetensors"
    path.write_bytes(WEIGHTS)
    names = [card.name for card in list_models()]
    mine = dataclasses.replace(find_card("medt-click-tiny"), name="mine", weights=path)
    twice = (mine, dataclasses.replace(mine, name="sam-vit-b"))
    write_settings(Settings(added=tuple(card_as_dict(card) for card in twice)))
    with pytest.warns(UserWarning, match="'sam-vit-b'.*settings.json"):
        _, picker = open_picker()
    assert sorted(picker.list.names) == sorted([*names, "mine"])
    select(picker, "sam-vit-b")
    assert not picker.remove.isVisible()
    select(picker, "mine")
    assert picker.remove.isVisible()


def test_a_file_that_is_no_model_is_told(open_picker, tmp_path: Path, notifications) -> None:
    desk, picker = open_picker()
    path = tmp_path / "page.pth"
    path.write_text("<!doctype html><title>Sign in</title>")
    picker.add_file(path)
    desk.qtbot.waitUntil(lambda: "web page" in picker.message.text(), timeout=PATIENCE_MS)
    assert any("web page" in heard.message for heard in notifications)


def test_device_and_number_format_are_chosen_and_models_used_before_come_back_at_once(open_picker) -> None:
    desk, picker = open_picker()
    slot = desk.controller.models
    slot.load("medt-click-tiny")
    desk.wait()
    first = slot.model
    picker.details.dtype.setCurrentIndex(picker.details.dtype.findData("bfloat16"))
    picker.details.dtype.activated.emit(picker.details.dtype.currentIndex())
    desk.wait()
    assert str(slot.model.dtype) == "torch.bfloat16"
    assert slot.model is not first
    slot.set_plan("auto", "auto")
    desk.wait()
    assert slot.model is first


def test_a_smaller_plan_is_told_as_a_notification(open_picker, notifications) -> None:
    import torch

    desk, _ = open_picker()
    slot = desk.controller.models
    slot.load("medt-click-tiny")
    desk.wait()
    model = slot.model

    class Vast(torch.nn.Module):
        """More than any machine has in float32, nothing in half precision."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: torch.Tensor) -> torch.Tensor:
            if not torch.is_autocast_enabled("cpu"):
                torch.empty(1 << 60, dtype=torch.uint8)
            return self.inner(*args)

    inner = model.network.encoder.stem2
    model.network.encoder.stem2 = Vast(inner)
    heard = "medt-click-tiny needs more memory than cpu in float32 has; going on with cpu in bfloat16"
    try:
        desk.controller.queue.submit(lambda: model.encode(np.zeros((64, 64), np.float32)), label="")
        desk.qtbot.waitUntil(
            lambda: any(heard.lower() in n.message.lower() for n in notifications), timeout=PATIENCE_MS
        )
    finally:
        model.network.encoder.stem2 = inner
    assert str(model.dtype) == "torch.bfloat16"


def test_settings_are_kept_and_nonsense_is_refused(open_picker, tmp_path: Path, notifications) -> None:
    _, picker = open_picker()
    picker.gear.click()
    settings = picker.settings
    assert settings.isVisible()
    settings.mirror.setText("https://mirror.example/weights")
    settings.mirror.editingFinished.emit()
    settings.offline.setChecked(True)
    settings.kept.setValue(2.5)
    assert read_settings() == Settings(mirror="https://mirror.example/weights", offline=True, kept_gb=2.5)
    settings.mirror.setText("not an address")
    settings.mirror.editingFinished.emit()
    assert read_settings().mirror == "https://mirror.example/weights"
    assert settings.mirror.text() == "https://mirror.example/weights"
    assert any("not an address" in heard.message for heard in notifications)


# --- a model of another package --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def example_package(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Path:
    """The example package, installed by pip into a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"),
            *("--target", str(folder), str(repository / "examples" / "medt-example-model")),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    return folder


def test_a_model_of_an_installed_package_appears_segments_and_is_inspected(
    open_picker, torso, liver, example_package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_medtransformer.plugin.attention.dock import AttentionDock

    monkeypatch.syspath_prepend(str(example_package))
    desk, picker = open_picker(torso())
    attention = AttentionDock(desk.viewer)
    desk.viewer.window.add_dock_widget(attention, name="Attention", area="right")
    assert "example-grey" in picker.list.names
    select(picker, "example-grey")
    assert "as grey as the clicked place" in picker.details.text.toPlainText()
    picker.use.click()
    desk.qtbot.waitUntil(lambda: desk.controller.models.model is not None, timeout=PATIENCE_MS)
    assert type(desk.controller.models.model).__module__ == "medt_example.model"
    desk.show(liver)
    desk.click(desk.controller.layer, liver)
    desk.wait()
    labels = desk.controller.session.labels
    assert labels[liver] == 1
    # the liver is one grey, air another
    assert 500 < (labels[liver[0]] == 1).sum() < 0.6 * labels[liver[0]].size
    assert labels[liver[0], 0, 0] == 0
    state = desk.controller.attention
    desk.qtbot.waitUntil(lambda: state.answer is not None, timeout=PATIENCE_MS)
    assert next(iter(state.sites)).name == "encoder.0"
    heatmap = state.inspection.heatmap("encoder.0", liver)
    assert heatmap.heads == 2
    drawn = heatmap.on_slice(smooth=False).mean(axis=0)
    alike = np.abs(desk.controller.workspace.volume.data[liver[0]] - desk.controller.workspace.volume.data[liver]) < 30
    assert drawn[alike].mean() > 3 * drawn[~alike].mean()
