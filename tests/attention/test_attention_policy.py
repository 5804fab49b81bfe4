"""What is chosen for a processor, whatever version of torch tells about it."""

from __future__ import annotations

import pytest
import torch

from napari_medtransformer.attention.policy import cpu_has


@pytest.mark.parametrize(("amx", "avx512"), [(True, True), (False, True), (False, False)])
def test_a_torch_without_a_list_of_instruction_sets_is_asked_for_each(amx, avx512, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    assert cpu_has("amx_bf16") is amx
    assert cpu_has("avx512_bf16") is avx512
    assert cpu_has("amx_bf16", "avx512_bf16") is (amx and avx512)


def test_an_instruction_set_that_nobody_tells_of_is_not_there(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert not cpu_has("amx_complex_of_tomorrow")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not cpu_has("amx_complex_of_tomorrow")
