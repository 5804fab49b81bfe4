"""The documents: what they link to is there, what they tell people to type is understood, and every room is named."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import napari_medtransformer as nmt
from napari_medtransformer.cli.app import app

FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^ {4}(medtransformer .*)$", re.MULTILINE)


def documents(repository: Path) -> list[Path]:
    return [repository / "README.md", *sorted((repository / "docs").glob("*.md"))]


def commands(text: str) -> Iterator[str]:
    """Lines that people are told to type, continued ones joined, without remarks."""
    for _, block in FENCED.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("medtransformer "):
                yield line.split("  #")[0].split("   (")[0].strip()
    yield from INDENTED.findall(text)


def test_links_and_pictures_are_there(repository: Path) -> None:
    missing = []
    for document in documents(repository):
        for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            if target.startswith(("http://", "https://")):
                continue
            linked = document if not path else document.parent / path
            if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors(linked)):
                missing.append(f"{document.name}: {target}")
    assert missing == []


def anchors(document: Path) -> set[str]:
    """What GitHub makes of the headings."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_picture_is_shown_somewhere_and_small(repository: Path) -> None:
    text = "".join(document.read_text(encoding="utf-8") for document in documents(repository))
    for picture in sorted((repository / "docs" / "images").iterdir()):
        assert picture.name in text, f"{picture.name} is shown nowhere"
        assert picture.stat().st_size < 400_000, f"{picture.name} is too large to load quickly"


def test_commands_and_their_options_are_those_of_the_program(repository: Path) -> None:
    program = typer.main.get_command(app)
    seen = 0
    for document in documents(repository):
        for line in commands(document.read_text(encoding="utf-8")):
            words = shlex.split(re.sub(r"[\[\]|…]", " ", line))[1:]
            command = program
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
            used = {word for word in words if re.match(r"--?[a-z]", word)}
            assert used <= known, f"{document.name}: {line} has no {sorted(used - known)}"
            seen += 1
    assert seen > 25


def python_blocks(document: Path) -> list[str]:
    return [block for language, block in FENCED.findall(document.read_text(encoding="utf-8")) if language == "python"]


def test_every_python_example_is_python_and_what_it_imports_is_there(repository: Path) -> None:
    seen = 0
    for document in documents(repository):
        for block in python_blocks(document):
            tree = ast.parse(block, document.name)
            ours = {
                alias.asname or alias.name
                for node in ast.walk(tree)
                if isinstance(node, ast.Import)
                for alias in node.names
                if alias.name == "napari_medtransformer"
            } | {"nmt"}
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("napari_medtransformer"):
                    module = importlib.import_module(str(node.module))
                    for alias in node.names:
                        below = f"{node.module}.{alias.name}"
                        assert hasattr(module, alias.name) or importlib.util.find_spec(below), (
                            f"{document.name}: {below}"
                        )
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ours:
                    assert hasattr(nmt, node.attr), f"{document.name}: nmt.{node.attr}"
            seen += 1
    assert seen > 10


# What a document's examples are about, where the document says it in words.
GIVEN = {
    "attention.md": """
import napari_medtransformer as nmt
image = nmt.read_volume("ct.nii.gz").data[106].repeat(2, 0).repeat(2, 1)
from napari_medtransformer.volumes import read_labels
organs = read_labels("organs.nii.gz").data
mask = (organs[106] == 5).repeat(2, 0).repeat(2, 1)
""",
    "whole-volumes.md": "",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GIVEN)
def test_the_python_examples_of_a_document_run_one_after_the_other(repository: Path, tmp_path: Path, name: str) -> None:
    for sample, called in (
        ("example_ct", "ct"),
        ("example_seg_fast_force_split", "organs"),
        ("hippocampus_003", "brain"),
        ("hippocampus_003", "brain_crop"),
    ):
        shutil.copy(repository / "sample_data" / f"{sample}.nii.gz", tmp_path / f"{called}.nii.gz")
    code = GIVEN[name] + "\n".join(python_blocks(repository / "docs" / name))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_room_is_named_in_the_guide_to_the_code(repository: Path) -> None:
    guide = (repository / "docs" / "development.md").read_text(encoding="utf-8")
    source = repository / "src" / "napari_medtransformer"
    rooms = [path for path in source.iterdir() if path.is_dir() and (path / "__init__.py").exists()]
    assert len(rooms) > 7
    for room in rooms:
        assert f"{room.name}/" in guide, room.name
    rooms_by_name = {room.name: room for room in rooms}
    for line in guide.splitlines():
        folder = re.search(r"\| `(\w+)/`:", line)
        if folder is None:
            continue
        for name in re.findall(r"`(\w+\.py)`", line):
            assert any(rooms_by_name[folder[1]].rglob(name)), f"{folder[1]}/{name}"


def test_every_file_begins_with_what_it_is_for(repository: Path) -> None:
    for file in sorted((repository / "src").rglob("*.py")):
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file
