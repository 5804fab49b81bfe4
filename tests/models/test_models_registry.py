"""Cards and the registry: names, near matches, entry points, and no torch before a model is loaded."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from napari_medtransformer.errors import DuplicateModel, UnknownModel, UnreadableWeights, UnsupportedModel
from napari_medtransformer.models import InputContract, LabelInfo, ModelCard, WeightsSource, registry

CARD = ModelCard(
    name="example-net",
    title="Example",
    family="click",
    builder="napari_medtransformer.models.click:build",
    task="promptable",
    dimensions=2,
    input=InputContract(size=(256, 256)),
    licence="MIT",
    citation="nobody",
    description="A model of another package.",
)


def test_every_public_model_is_listed_once() -> None:
    names = [card.name for card in registry.list_models()]
    assert {"medt-click-tiny", "sam-vit-b", "sam-vit-l", "sam-vit-h", "medsam"} <= set(names)
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("wrong", "near"), [("sam-vit-x", "sam-vit"), ("MedSAM", "medsam"), ("medt_click", "medt-")])
def test_an_unknown_model_names_near_matches(wrong: str, near: str) -> None:
    with pytest.raises(UnknownModel, match=f"{wrong}.*did you mean .*{near}"):
        registry.find_card(wrong)


def test_an_unknown_model_without_near_matches_names_all() -> None:
    with pytest.raises(UnknownModel, match=r"there are: .*medt-click-tiny.*sam-vit-h"):
        registry.find_card("qqqqqq")


def test_a_registered_model_is_found_and_a_taken_name_refused() -> None:
    registry.register(CARD)
    try:
        assert registry.find_card("example-net") is CARD
        with pytest.raises(DuplicateModel, match=r"example-net"):
            registry.register(dataclasses.replace(CARD, title="Another"))
    finally:
        registry.unregister("example-net")
    with pytest.raises(UnknownModel):
        registry.find_card("example-net")


def install_package(folder: Path, module: str, target: str) -> None:
    """A package with an entry point, as pip leaves it on the path."""
    (folder / "example_models.py").write_text(module)
    info = folder / "example_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[napari_medtransformer.models]\nexample = {target}\n")


MODULE = """
from napari_medtransformer.models import InputContract, ModelCard
def cards():
    return [ModelCard("their-net", "Theirs", "click", "napari_medtransformer.models.click:build", "promptable", 2,
                      InputContract((256, 256)), "MIT", "them", "Of another package.")]
broken = 3
"""


def test_a_model_of_another_package_is_listed_and_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_package(tmp_path, MODULE, "example_models:cards")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.find_card("their-net").title == "Theirs"
    assert registry.load_model("their-net", "random", "cpu").card.name == "their-net"


def test_a_broken_package_leaves_the_other_models_and_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_package(tmp_path, MODULE, "example_models:broken")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.warns(UserWarning, match=r"example_models:broken"):
        assert "sam-vit-b" in [card.name for card in registry.list_models()]


def test_listing_models_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, napari_medtransformer as nmt; nmt.list_models(); "
        "print([m for m in ('torch', 'transformers', 'monai', 'qtpy', 'requests') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_random_weights_are_the_same_for_one_seed_and_differ_for_another() -> None:
    def first(seed: int) -> np.ndarray:
        model = registry.load_model(CARD, "random", "cpu", seed=seed)
        return next(model.network.parameters()).detach().numpy()

    assert np.array_equal(first(3), first(3))
    assert not np.array_equal(first(3), first(4))


def test_a_card_without_weights_says_what_to_give() -> None:
    with pytest.raises(UnreadableWeights, match=r"example-net comes without weights.*random"):
        registry.load_model(CARD, device="cpu")


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"no device 'abacus'"):
        registry.load_model(CARD, "random", "abacus")
    with pytest.raises(UnsupportedModel, match=r"cuda:99"):
        registry.load_model(CARD, "random", "cuda:99")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Has Spaces"},
        {"builder": "no_function"},
        {"task": "magical"},
        {"dimensions": 3},
        {"licence": " "},
        {"weights": "folder/file.safetensors"},
        {"task": "automatic"},
        {"labels": (LabelInfo(1, "a", (1, 0, 0)), LabelInfo(1, "b", (0, 1, 0)))},
        {"memory_bytes": 0},
    ],
)
def test_a_malformed_card_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        dataclasses.replace(CARD, **change)


def test_a_malformed_source_is_refused() -> None:
    with pytest.raises(ValueError, match=r"http"):
        WeightsSource("ftp://a/b", "b")
    with pytest.raises(ValueError, match=r"folder"):
        WeightsSource("https://a/b", "../b")
    with pytest.raises(ValueError, match=r"64"):
        WeightsSource("https://a/b", "b", sha256="abc")
