"""What is chosen for a processor, whatever version of torch tells about it."""

from __future__ import annotations

import torch

from napari_medtransformer.attention.policy import cpu_has


def test_a_torch_without_a_list_of_instruction_sets_is_asked_for_each(monkeypatch):
    names = ("amx_bf16", "avx512_bf16")
    known = {name: cpu_has(name) for name in names}
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: known["amx_bf16"])
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: known["avx512_bf16"])
    assert {name: cpu_has(name) for name in names} == known
    assert cpu_has(*names) == all(known.values())


def test_an_instruction_set_that_nobody_tells_of_is_not_there(monkeypatch):
    assert not cpu_has("amx_complex_of_tomorrow")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not cpu_has("amx_complex_of_tomorrow")
