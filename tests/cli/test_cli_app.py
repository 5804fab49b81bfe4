"""The program itself: help, version, and how it ends when it is at fault."""

from __future__ import annotations

import json

import pytest

import napari_medtransformer as nmt
from napari_medtransformer.cli.app import run


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


def test_a_warning_of_this_package_is_one_line_on_stderr(tmp_path, capsys: pytest.CaptureFixture[str]):
    import numpy as np
    from PIL import Image

    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "x.png")
    assert run(["click", str(tmp_path / "x.png"), "-o", str(tmp_path / "out.nii"), "--point", "99,0,0"]) == 2
    warning, error = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: x.png")
    assert error.startswith("error: ")
