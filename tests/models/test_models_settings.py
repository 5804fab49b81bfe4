"""What a user decided once: settings, a mirror, working offline, models of their own."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from common_user import common_user
from safetensors.torch import save_file

from napari_medtransformer.errors import CannotWrite, DuplicateModel, UnknownModel, UnreadableFile, UnreadableWeights
from napari_medtransformer.models import find_card, list_models, load_model, register
from napari_medtransformer.models.card import BUNDLED, ModelCard, WeightsSource
from napari_medtransformer.models.card_files import card_as_dict, card_from_dict, read_card, write_card
from napari_medtransformer.models.download import (
    begun_bytes,
    cache_folder,
    fetch_weights,
    is_offline,
    is_on_disk,
    mirrored,
)
from napari_medtransformer.models.own import card_of_file, cards_for_weights, forget, is_own, own_card, remember
from napari_medtransformer.models.settings import Settings, read_settings, settings_path, write_settings
from napari_medtransformer.progress import run_to_end


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings in an empty folder, and none of the variables that come before them."""
    monkeypatch.setenv("MEDT_SETTINGS", str(tmp_path / "config" / "settings.json"))
    for name in ("MEDT_CACHE", "MEDT_MIRROR", "MEDT_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The bundled model's weights as a file of the user's."""
    path = tmp_path / "My hospital's Click.safetensors"
    path.write_bytes((BUNDLED / "medt-click-tiny.safetensors").read_bytes())
    return path


@pytest.mark.parametrize(
    "write", [lambda path: write_settings(Settings()), lambda path: write_card(find_card("medsam"), path)]
)
def test_what_cannot_be_written_is_said_and_leaves_nothing(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("MEDT_SETTINGS", str(tmp_path / "a file" / "settings.json"))
    with pytest.raises(CannotWrite, match="is no folder"):
        write(tmp_path / "a file" / "card.json")
    taken = tmp_path / "taken"
    taken.mkdir()
    monkeypatch.setenv("MEDT_SETTINGS", str(taken))
    with pytest.raises(CannotWrite, match="was not written"):
        write(taken)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a file", "taken"]


def test_settings_are_kept_and_read_again() -> None:
    assert read_settings() == Settings()
    mine = Settings(cache="/data/weights", mirror="https://mirror.example", offline=True, kept_gb=1.5)
    write_settings(mine)
    assert read_settings() == mine
    assert [path.name for path in settings_path().parent.iterdir()] == ["settings.json"]


def test_damaged_settings_are_left_alone_with_a_warning() -> None:
    settings_path().parent.mkdir()
    for text in ("{", "[]", '{"mirror": "ftp://a"}', '{"kept_gb": "many"}'):
        settings_path().write_text(text)
        with pytest.warns(UserWarning, match="cannot be read"):
            assert read_settings() == Settings()
        assert settings_path().read_text() == text


def test_settings_in_a_closed_folder_are_left_out_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    with common_user() as folder:
        monkeypatch.setenv("MEDT_SETTINGS", str(folder / "closed" / "settings.json"))
        write_settings(Settings(offline=True))
        (folder / "closed").chmod(0)
        with pytest.warns(UserWarning, match="cannot be read"):
            assert read_settings() == Settings()
        (folder / "closed").chmod(0o700)


def test_variables_come_before_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_settings(Settings(cache=str(tmp_path / "a"), mirror="https://mine.example/x", offline=True))
    assert cache_folder() == tmp_path / "a"
    assert mirrored("https://publisher.example/f.pth") == "https://mine.example/x/f.pth"
    assert is_offline()
    monkeypatch.setenv("MEDT_CACHE", str(tmp_path / "b"))
    monkeypatch.setenv("MEDT_MIRROR", "https://other.example")
    monkeypatch.setenv("MEDT_OFFLINE", "0")
    assert cache_folder() == tmp_path / "b"
    assert mirrored("https://publisher.example/f.pth") == "https://other.example/f.pth"
    assert not is_offline()


def test_offline_nothing_is_asked_and_it_says_where_the_file_belongs(tmp_path: Path) -> None:
    write_settings(Settings(cache=str(tmp_path / "weights"), offline=True))
    card = find_card("sam-vit-b")
    assert not is_on_disk(card)
    with pytest.raises(UnreadableWeights, match=r"sam_vit_b_01ec64\.pth is not in .*weights.*put the file there"):
        run_to_end(fetch_weights(card))


def test_what_is_on_disk_and_what_has_begun_is_known(tmp_path: Path) -> None:
    write_settings(Settings(cache=str(tmp_path)))
    card = find_card("sam-vit-b")
    assert isinstance(card.weights, WeightsSource)
    (tmp_path / f"{card.weights.filename}.part").write_bytes(b"12345")
    assert (is_on_disk(card), begun_bytes(card)) == (False, 5)
    (tmp_path / card.weights.filename).write_bytes(b"x")
    assert is_on_disk(card)
    assert is_on_disk(find_card("medt-click-tiny"))
    assert not is_on_disk(dataclasses.replace(card, weights=None))


@pytest.mark.parametrize("name", [card.name for card in list_models()])
def test_every_card_survives_json(name: str) -> None:
    card = find_card(name)
    assert card_from_dict(json.loads(json.dumps(card_as_dict(card)))) == card


def test_a_card_beside_its_weights_moves_with_them(tmp_path: Path, checkpoint: Path) -> None:
    card = dataclasses.replace(find_card("medt-click-tiny"), name="mine", weights=checkpoint)
    write_card(card, checkpoint.with_suffix(".json"))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for path in (checkpoint, checkpoint.with_suffix(".json")):
        path.rename(elsewhere / path.name)
    moved = read_card(elsewhere / checkpoint.with_suffix(".json").name)
    assert moved == dataclasses.replace(card, weights=elsewhere / checkpoint.name)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("{", "it is no JSON"), ("[1]", "no named values"), ('{"name": "a"}', "no model card"), ("", "it is no JSON")],
)
def test_what_is_no_card_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(UnreadableFile, match=reason):
        read_card(tmp_path / "a.json")


def test_a_checkpoint_s_architecture_is_found_and_the_model_stays(checkpoint: Path) -> None:
    before = list_models()
    card = card_of_file(checkpoint, before)
    assert (card.name, card.family, card.weights) == ("my-hospital-s-click", "click", checkpoint)
    assert "publisher" in card.licence
    remember(card)
    assert find_card(card.name) == card
    assert is_own(card)
    theirs = load_model("medt-click-tiny", device="cpu").network.state_dict()
    mine = load_model(card.name, device="cpu").network.state_dict()
    assert all(torch.equal(theirs[key], mine[key]) for key in theirs)
    forget(card.name)
    with pytest.raises(UnknownModel):
        find_card(card.name)
    with pytest.raises(UnknownModel, match="not added from a file"):
        forget("sam-vit-b")
    assert checkpoint.is_file()


def test_a_name_that_is_taken_gets_a_number(checkpoint: Path) -> None:
    base = find_card("medt-click-tiny")
    assert own_card(checkpoint, base, ["my-hospital-s-click"]).name == "my-hospital-s-click-2"
    assert own_card(checkpoint, base, [], "Liver 2").name == "liver-2"


def test_the_likeliest_of_a_family_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "some.safetensors"
    save_file({"image_encoder.patch_embed.proj.weight": torch.zeros(768, 3, 16, 16)}, path)
    cards = [find_card(name) for name in ("medt-click-tiny", "sam-vit-h", "sam-vit-b", "sam-vit-l")]
    assert [card.name for card in cards_for_weights(path, cards)] == ["sam-vit-b", "sam-vit-l", "sam-vit-h"]


def test_files_of_no_family_or_of_other_shapes_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    stranger = tmp_path / "stranger.safetensors"
    save_file({"some.layer": torch.zeros(3)}, stranger)
    with pytest.raises(UnreadableWeights, match="no family known"):
        card_of_file(stranger, list_models())
    torn = tmp_path / "torn.safetensors"
    state = load_model("medt-click-tiny", device="cpu").network.state_dict()
    save_file({key: value.contiguous() for key, value in list(state.items())[:-2]}, torn)
    with pytest.raises(UnreadableWeights, match="2 missing"):
        card_of_file(torn, list_models())


def test_a_model_whose_settings_are_damaged_is_left_out_with_a_warning() -> None:
    write_settings(Settings(added=({"name": "broken"},)))
    with pytest.warns(UserWarning, match="'broken' is left out"):
        names = [card.name for card in list_models()]
    assert "sam-vit-b" in names
    assert "broken" not in names


def test_a_name_that_is_taken_twice_in_the_settings_costs_only_the_second_of_them(checkpoint: Path) -> None:
    mine = dataclasses.replace(find_card("medt-click-tiny"), name="mine", title="Mine", weights=checkpoint)
    before = {card.name: card for card in list_models()}
    taken = [dataclasses.replace(mine, name="sam-vit-b", title="My SAM"), dataclasses.replace(mine, title="Mine again")]
    write_settings(Settings(added=tuple(card_as_dict(card) for card in (mine, *taken))))
    with pytest.warns(UserWarning, match="left out") as told:
        cards = {card.name: card for card in list_models()}
    assert list(cards) == [*before, "mine"]
    assert (cards["mine"], cards["sam-vit-b"]) == (mine, before["sam-vit-b"])
    assert len(told) == 2
    for warning, name, title in zip(told, ("sam-vit-b", "mine"), ("My SAM", "Mine again"), strict=True):
        text = str(warning.message)
        assert all(part in text for part in (str(settings_path()), repr(name), title)), text
        assert "\n" not in text
    assert is_own(cards["mine"])
    assert not is_own(cards["sam-vit-b"])
    # taken out of the file, it is told no more
    forget("sam-vit-b")
    write_settings(Settings(added=read_settings().added[:1]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_card("mine") == mine


def test_a_model_is_not_added_under_a_name_that_another_has(checkpoint: Path) -> None:
    mine = dataclasses.replace(find_card("medt-click-tiny"), name="mine", weights=checkpoint)
    with pytest.raises(DuplicateModel, match="'sam-vit-b'"):
        remember(dataclasses.replace(mine, name="sam-vit-b"))
    assert read_settings() == Settings()
    remember(mine)
    remember(dataclasses.replace(mine, title="Mine, newer"))
    assert find_card("mine").title == "Mine, newer"
    with pytest.raises(DuplicateModel, match="'mine'"):
        register(mine)


def test_a_file_that_went_away_is_told(tmp_path: Path, checkpoint: Path) -> None:
    card: ModelCard = own_card(checkpoint, find_card("medt-click-tiny"), [])
    checkpoint.unlink()
    assert not is_on_disk(card)
    with pytest.raises(UnreadableWeights, match="does not exist"):
        load_model(card, device="cpu")
