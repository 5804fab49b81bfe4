"""The program itself: help, version, and how it ends when it is at fault."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer.main

import napari_medtransformer as nmt
from napari_medtransformer.cli import messages
from napari_medtransformer.cli.app import app, run
from napari_medtransformer.models import find_card
from napari_medtransformer.models.own import remember
from napari_medtransformer.progress import Progress, Result


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]):
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(command in text for command in ("click", "inspect", "models", "demo"))


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"medtransformer {nmt.__version__}\n"


def test_a_fault_of_the_program_is_one_line_and_exit_code_1(capsys, monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise ZeroDivisionError("first line\nsecond line")

    monkeypatch.setattr("napari_medtransformer.models.list_models", fail)
    assert run(["models"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ZeroDivisionError: first line second line")
    assert "--debug" in error
    assert error.count("\n") == 1


def test_debug_shows_where_it_failed(monkeypatch: pytest.MonkeyPatch):
    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr("napari_medtransformer.models.list_models", fail)
    with pytest.raises(ZeroDivisionError):
        run(["--debug", "models"])


@pytest.mark.parametrize("words", [["models", "--json"], ["models", "list", "--json"]])
def test_the_models_are_listed_as_json(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(words) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [card["name"] for card in listed] == [card.name for card in nmt.list_models()]
    assert all(card["licence"] and card["citation"] for card in listed)


def test_every_models_name_is_readable_in_a_narrow_terminal(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["models"]) == 0
    text = capsys.readouterr().out
    assert all(card.name in text for card in nmt.list_models())


def test_a_models_card_tells_licence_and_citation(capsys: pytest.CaptureFixture[str]):
    assert run(["models", "info", "medsam"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Apache-2.0" in text
    assert "Nature Communications" in text


def test_a_models_card_tells_address_file_and_folder_of_weights_that_are_fetched(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "300")
    for name in ("medsam", "unetr-btcv", "medt-click-tiny"):
        assert run(["models", "info", name]) == 0
        lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        told = {words[0]: words[1].strip() for words in lines if len(words) == 2}
        source = find_card(name).weights
        if name == "medsam":
            assert (told["address"], told["file"], told["folder"]) == (source.url, source.filename, str(tmp_path))
        else:
            assert not {"address", "file", "folder"} & set(told)


def test_a_model_of_ones_own_is_removed_and_told_as_json(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MEDT_SETTINGS", str(tmp_path / "settings.json"))
    remember(dataclasses.replace(find_card("medt-hippocampus"), name="mine", weights=tmp_path / "mine.safetensors"))
    assert run(["models", "remove", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "mine", "removed": True}
    assert run(["models", "remove", "mine", "--json"]) == 2


def test_every_command_tells_its_result_as_json_on_request():
    for words in commands():
        command = typer.main.get_command(app)
        for word in words:
            command = command.commands[word]
        assert any("--json" in parameter.opts for parameter in command.params), words


def test_a_warning_of_this_package_is_one_line_on_stderr(tmp_path, capsys: pytest.CaptureFixture[str]):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "x.png")
    assert run(["click", str(tmp_path / "x.png"), "-o", str(tmp_path / "out.nii"), "--point", "99,0,0"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: x.png")
    assert error.startswith("error: ")


def test_a_pipe_gets_every_model_on_one_line_with_all_there_is_to_tell(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["models"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    for card in nmt.list_models():
        assert all(text in lines[card.name] for text in (card.task, card.licence, *card.modalities)), card.name
    assert "\x1b" not in out


@pytest.mark.parametrize("columns", ["40", "80", "120"])
def test_no_line_is_wider_than_the_terminal(columns: str, capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", columns)
    for words in (["models"], ["models", "info", "medt-click-tiny"]):
        assert run(words) == 0
        assert max(len(line) for line in capsys.readouterr().out.splitlines()) <= int(columns)


def commands() -> list[list[str]]:
    """The words of every command there is."""
    program = typer.main.get_command(app)
    found: list[list[str]] = []
    for name, command in program.commands.items():
        found += [[name, below] for below in getattr(command, "commands", {})] or [[name]]
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_help_in_a_narrow_terminal_names_every_option_in_full_with_a_sentence(
    words: list[str], capsys, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("COLUMNS", "40")
    command = typer.main.get_command(app)
    for word in words:
        command = command.commands[word]
    assert run([*words, "--help"]) == 0
    told = capsys.readouterr().out
    assert "…" not in told
    assert "..." not in told
    for parameter in command.params:
        assert all(option in told for option in parameter.opts if option.startswith("-"))
        assert parameter.name == "help" or (parameter.help or "").rstrip(" .") != "", parameter.name


@pytest.mark.parametrize("words", [[], ["train"]])
def test_a_program_without_a_command_shows_its_help(words: list[str], capsys: pytest.CaptureFixture[str]):
    assert run(words) == 0
    told = capsys.readouterr()
    assert "Commands:" in told.out
    assert told.err == ""


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_ctrl_c_is_one_line_and_exit_code_130(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("napari_medtransformer.models.list_models", interrupt)
    assert run(["models"]) == 130
    assert capsys.readouterr().err == "error: interrupted; what was not finished was not written\n"


def test_ctrl_c_while_fetching_or_training_says_that_it_can_go_on(tmp_path, capsys, monkeypatch: pytest.MonkeyPatch):
    # what is first imported while a name is patched would keep the patch
    importlib.import_module("napari_medtransformer.training.click_report")
    importlib.import_module("napari_medtransformer.models.registry")
    monkeypatch.setattr("napari_medtransformer.models.weights.find_weights", interrupt)
    assert run(["models", "fetch", "sam-vit-b"]) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    monkeypatch.setattr("napari_medtransformer.training.click_report.train_click_model", interrupting_steps)
    assert run(["train", "click", str(tmp_path), "-o", str(tmp_path / "model")]) == 130
    assert f"goes on from what is kept in {tmp_path / 'model'}" in capsys.readouterr().err


def interrupting_steps(_: object) -> Iterator[Progress]:
    yield Progress(1, 2, "a step")
    raise KeyboardInterrupt


@pytest.mark.parametrize("module", ["typer", "napari_medtransformer.cli.models"])
def test_ctrl_c_while_the_program_is_still_being_imported_is_one_line_too(module: str):
    code = (
        "import sys\n"
        "from napari_medtransformer.cli import main\n"
        "class Stop:\n"
        "    def find_spec(self, name, *_):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Stop())\n"
        "main(['models'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130
    assert done.stderr == "error: interrupted\n"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(messages.time, "monotonic", lambda: next(clock))

    def steps() -> Iterator[Progress | Result[str]]:
        yield from (Progress(done, None, "reading") for done in (1, 2))  # at 20 and 40 s
        yield from (Progress(done, 10, f"loss {1 / done:.1f}") for done in (1, 2, 3, 4, 5))
        yield Result("done")

    assert messages.run_with_progress(steps(), "training liver") == "done"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "training liver: 1 of 10 · loss 1.0",  # at 60 s; how long a step takes is not known yet
        "training liver: 4 of 10 · 0:02:00 left · loss 0.2",
    ]
