"""The documents: what they link to is there, what they tell people to type is understood, and every room is named."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import typer.main

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
