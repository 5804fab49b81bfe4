"""Loading weights: what is read, what is refused and why, and what a checkpoint that does not fit is told."""

from __future__ import annotations

import argparse
import os
import pickle
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.models import weights
from napari_medtransformer.models.registry import find_card, load_model

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2)}


class Malicious:
    """Runs a command when unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize(
    "wrapped",
    [
        STATE,
        {"model": STATE},
        {"state_dict": {"model": STATE}, "epoch": 3},
        {f"module.{k}": v for k, v in STATE.items()},
    ],
    ids=["plain", "model", "state_dict of model", "data parallel"],
)
def test_a_torch_checkpoint_is_read_whatever_it_is_wrapped_in(wrapped: dict[str, object], tmp_path: Path) -> None:
    torch.save(wrapped, tmp_path / "w.pth")
    read = weights.load_state(tmp_path / "w.pth")
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)


def test_safetensors_are_read_whatever_their_suffix(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.bin")
    assert torch.equal(weights.load_state(tmp_path / "w.bin")["a.weight"], STATE["a.weight"])


def test_a_legacy_torch_checkpoint_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(weights.load_state(tmp_path / "w.pth")["a.weight"], STATE["a.weight"])


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_malicious_pickle_is_refused_and_not_executed(how: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "w.pth"
    if how == "torch":
        torch.save({**STATE, "x": Malicious(marker)}, path)
    else:
        path.write_bytes(pickle.dumps({"x": Malicious(marker)}, 2))
    with pytest.raises(UnreadableWeights, match=r"would run code.*system.*state_dict"):
        weights.load_state(path)
    assert not marker.exists()


def test_a_truncated_checkpoint_says_so_at_every_length(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    save_file(STATE, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for length in range(16, len(whole) - 1, max(1, len(whole) // 23)):
            (tmp_path / "cut").write_bytes(whole[:length])
            with pytest.raises(UnreadableWeights, match=r"truncated or damaged.*fetch them again"):
                weights.load_state(tmp_path / "cut")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "no checkpoint"),
        (b"\x80\x02X\x00", "truncated or damaged"),
    ],
)
def test_what_is_no_checkpoint_says_what_it_is(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(UnreadableWeights, match=reason) as caught:
        weights.load_state(tmp_path / "w.pth")
    assert "\n" not in str(caught.value)


def test_missing_weights_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UnreadableWeights, match="does not exist"):
        weights.load_state(tmp_path / "nothing.pth")
    with pytest.raises(UnreadableWeights, match="is a folder"):
        weights.load_state(tmp_path)


def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pth")
    with pytest.raises(UnreadableWeights, match="no named tensors"):
        weights.load_state(tmp_path / "w.pth")


def test_a_checkpoint_that_does_not_fit_says_what_is_wrong_and_what_it_looks_like() -> None:
    state = {
        "weight": torch.zeros(5, 3),
        "image_encoder.patch_embed.proj.weight": torch.zeros(1),
        "image_encoder.pos_embed": torch.zeros(1),
    }
    with pytest.raises(UnreadableWeights) as caught:
        weights.check_fit(nn.Linear(3, 2), state, "sam-vit-b")
    message = str(caught.value)
    assert "do not fit sam-vit-b" in message
    assert "1 missing (bias)" in message
    assert "2 unexpected (image_encoder.patch_embed.proj.weight, image_encoder.pos_embed)" in message
    assert "weight (5, 3) instead of (2, 3)" in message
    assert "look like SAM (Meta's names" in message


def test_the_click_model_loads_its_own_state_and_refuses_another(tmp_path: Path) -> None:
    card = find_card("medt-click-tiny")
    network = load_model(card, "random", "cpu", seed=5).network
    # its kernels lie channels last, which safetensors does not keep
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, tmp_path / "w.safetensors")
    read = load_model(card, tmp_path / "w.safetensors", "cpu").network.state_dict()
    assert all(torch.equal(read[k], v) for k, v in network.state_dict().items())
    assert weights.guess_family(read) == "medt-click"
    save_file(STATE, tmp_path / "other.safetensors")
    with pytest.raises(UnreadableWeights, match=r"do not fit medt-click-tiny.*no family known"):
        load_model(card, tmp_path / "other.safetensors", "cpu")


def test_what_training_scripts_keep_beside_a_network_is_not_run(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimiser.step()  # its state is then a defaultdict with entries, as in published files
    extras = {"optimizer": optimiser, "args": argparse.Namespace(lr=1e-4), "counts": defaultdict(dict, a={"b": 1})}
    torch.save({"model_state_dict": STATE, **extras}, tmp_path / "w.pth")
    read = weights.load_state(tmp_path / "w.pth")
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)


def test_what_has_numbers_for_names_is_no_state_dict(tmp_path):
    torch.save({0: torch.zeros(1), 1: torch.ones(1)}, tmp_path / "numbers.pth")
    with pytest.raises(UnreadableWeights, match="hold no named tensors"):
        weights.load_state(tmp_path / "numbers.pth")
