"""What a probe keeps stays within a budget of memory, and what waits in a file answers as if it never had left."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.kept_calls import CallStore, KeptCall
from napari_medtransformer.attention.probe import AttentionProbe

IMAGE = np.random.default_rng(0).random((50, 77), dtype=np.float32)


def a_call(seed: int, dtype: torch.dtype = torch.float32, tokens: int = 10) -> AttentionCall:
    draw = torch.Generator().manual_seed(seed)
    q, k = (torch.randn(2, 3, tokens, 4, generator=draw).to(dtype) for _ in range(2))
    return AttentionCall(q, k, None, 0.5, "cpu flash")


SIZE = 2 * 2 * 3 * 10 * 4 * 4  # bytes of a call's queries and keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_waited_in_the_file_comes_back_bit_for_bit(tmp_path, dtype) -> None:
    store = CallStore(0, tmp_path)
    calls = [a_call(seed, dtype) for seed in range(5)]
    kept = [store.keep(call) for call in calls]
    for number in (3, 0, 4, 1, 2, 0):
        assert torch.equal(kept[number].q, calls[number].q)
        assert torch.equal(kept[number].k, calls[number].k)
        assert kept[number].q.dtype == dtype
        assert (kept[number].q_shape, kept[number].k_shape) == ((2, 3, 10, 4), (2, 3, 10, 4))


def test_memory_never_exceeds_the_budget_and_the_last_one_used_is_there(tmp_path) -> None:
    store = CallStore(2 * SIZE, tmp_path)
    kept = [store.keep(a_call(seed)) for seed in range(6)]
    assert store.bytes_in_memory == 2 * SIZE
    for one in (*kept, *reversed(kept)):
        first = one.q
        assert store.bytes_in_memory <= 2 * SIZE
        assert one.q is first  # in memory: not read again


def test_a_call_larger_than_the_budget_is_held_while_it_is_used(tmp_path) -> None:
    store = CallStore(SIZE // 2, tmp_path)
    large, small = store.keep(a_call(0)), store.keep(a_call(1, tokens=2))
    assert torch.equal(large.q, a_call(0).q)
    assert store.bytes_in_memory == SIZE
    assert torch.equal(small.k, a_call(1, tokens=2).k)


def test_the_place_of_a_call_that_is_gone_is_written_again(tmp_path) -> None:
    store = CallStore(0, tmp_path)
    for seed in range(20):
        kept = store.keep(a_call(seed))
        other = store.keep(a_call(seed + 100))  # sends the first one to the file
        assert torch.equal(kept.q, a_call(seed).q)
        del kept, other
        gc.collect()
    assert store.bytes_on_disk <= 3 * SIZE
    assert store.bytes_in_memory == 0


def test_no_file_is_left_behind_nor_seen_meanwhile(tmp_path) -> None:
    store = CallStore(0, tmp_path)
    kept = [store.keep(a_call(seed)) for seed in range(3)]
    assert store.bytes_on_disk >= 2 * SIZE
    del store, kept
    gc.collect()
    assert list(tmp_path.iterdir()) == []


def test_without_a_place_to_write_calls_stay_in_memory_and_that_is_said(tmp_path) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("where a folder should be")
    store = CallStore(SIZE, blocked)
    first = store.keep(a_call(0))
    with pytest.warns(UserWarning, match="queries and keys stay in memory"):
        second = store.keep(a_call(1))
    assert torch.equal(first.q, a_call(0).q)
    assert torch.equal(second.q, a_call(1).q)
    assert store.bytes_in_memory == 2 * SIZE


def test_a_probe_without_memory_answers_as_one_with_all_of_it(small_sam, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("napari_medtransformer.attention.kept_calls._cache_folder", lambda: tmp_path)
    probes = []
    for memory in (0, None):
        with AttentionProbe(small_sam, memory_bytes=memory) as probe:
            small_sam.encode(IMAGE)
        probes.append(probe)
    thrifty, lavish = probes
    assert isinstance(thrifty.captured("encoder.0").call, KeptCall)
    assert isinstance(lavish.captured("encoder.0").call, AttentionCall)
    for site in lavish.sites:
        tokens = range(site.query_grid.n_tokens)
        assert torch.equal(thrifty.rows(site.name, tokens), lavish.rows(site.name, tokens))
        np.testing.assert_array_equal(thrifty.received(site.name).values, lavish.received(site.name).values)
        assert thrifty.kernel(site.name) == lavish.kernel(site.name)
    np.testing.assert_array_equal(thrifty.rollout((20, 30)).values, lavish.rollout((20, 30)).values)
