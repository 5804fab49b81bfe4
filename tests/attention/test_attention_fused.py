"""`attend` against the softmax written out."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import TorchFunctionMode

from napari_medtransformer.attention.bias import DecomposedBias, DenseBias, WindowBias
from napari_medtransformer.attention.fused import attend, kernel_name
from napari_medtransformer.attention.policy import AttentionPolicy, policy_for, use_policy

# rounding of a float32 softmax over a few hundred keys; bfloat16 keeps 8 bits
FLOAT32, BFLOAT16 = 1e-5, 2e-2
POLICIES = [AttentionPolicy(None, "low-rank"), AttentionPolicy(None, "blockwise")]
GRIDS = [((6, 5), (6, 5)), ((4, 4), (8, 6)), ((3, 4, 5), (3, 4, 5)), ((2, 3, 2), (4, 3, 5))]


def explicit(q, k, v, bias, scale):
    """softmax(scale · q kᵀ + bias) v in float64, the whole matrix at once."""
    scores = q.double() @ k.double().transpose(-1, -2) * scale + bias
    return torch.softmax(scores, -1) @ v.double()


def explicit_decomposed(q, tables):
    """The bias of every query and key of a grid, by a loop over both."""
    batch, heads, _, _ = q.shape
    query_shape, key_shape = [t.shape[0] for t in tables], [t.shape[1] for t in tables]
    queries = list(torch.cartesian_prod(*[torch.arange(n) for n in query_shape]))
    keys = list(torch.cartesian_prod(*[torch.arange(n) for n in key_shape]))
    bias = torch.zeros(batch, heads, len(queries), len(keys), dtype=torch.float64)
    for i, place in enumerate(queries):
        for j, other in enumerate(keys):
            vector = sum(t[a, b] for t, a, b in zip(tables, place, other))
            bias[:, :, i, j] = q[:, :, i].double() @ vector.double()
    return bias


def random_qkv(batch, heads, queries, keys, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, heads, n, width, generator=generator) for n in (queries, keys, keys))


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.bias_kernel)
@pytest.mark.parametrize("query_shape, key_shape", GRIDS)
def test_decomposed_positions_equal_the_explicit_softmax(policy, query_shape, key_shape):
    q, k, v = random_qkv(2, 3, torch.Size(query_shape).numel(), torch.Size(key_shape).numel(), 12)
    tables = tuple(0.3 * torch.randn(a, b, 12) for a, b in zip(query_shape, key_shape))
    with use_policy(policy), torch.no_grad():
        fused = attend(q, k, v, bias=DecomposedBias(tables))
    expected = explicit(q, k, v, explicit_decomposed(q, tables), 12**-0.5)
    assert torch.allclose(fused.double(), expected, atol=FLOAT32, rtol=0)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda p: p.bias_kernel)
def test_bfloat16_stays_within_its_precision(policy):
    q, k, v = (t.bfloat16() for t in random_qkv(1, 2, 64, 64, 32))
    tables = tuple((0.3 * torch.randn(8, 8, 32)).bfloat16() for _ in range(2))
    with use_policy(policy), torch.no_grad():
        fused = attend(q, k, v, bias=DecomposedBias(tables))
    expected = explicit(q, k, v, explicit_decomposed(q, tables), 32**-0.5)
    assert fused.dtype == torch.bfloat16
    assert (fused.double() - expected).norm() / expected.norm() < BFLOAT16


def test_double_precision_is_kept():
    q, k, v = (t.double() for t in random_qkv(2, 3, 30, 30, 12))
    tables = tuple(torch.randn(n, n, 12, dtype=torch.float64) for n in (6, 5))
    with use_policy(POLICIES[1]), torch.no_grad():
        fused = attend(q, k, v, bias=DecomposedBias(tables))
    expected = explicit(q, k, v, explicit_decomposed(q, tables), 12**-0.5)
    assert torch.allclose(fused, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("spread", [3.0, 6.0])
def test_bfloat16_stays_within_its_precision_where_scores_are_sharp(spread):
    # wide heads whose scale is no power of two; scores of this standard deviation, and a bias of a good half of it
    q, k, v = random_qkv(1, 2, 256, 256, 80)
    q, k, v = ((t * factor).bfloat16() for t, factor in ((q, spread**0.5), (k, spread**0.5), (v, 1.0)))
    tables = tuple((torch.randn(16, 16, 80, generator=torch.Generator().manual_seed(3)) / 20).bfloat16() for _ in "hw")
    with use_policy(POLICIES[1]), torch.no_grad():
        fused = attend(q, k, v, bias=DecomposedBias(tables))
        expected = explicit(q, k, v, DecomposedBias(tables).rows(q[0].double(), 0, torch.arange(256))[None], 80**-0.5)
    assert (fused.double() - expected).norm() / expected.norm() < BFLOAT16


# what processors with matrix units run in bfloat16, with plain units for it, and with neither
@pytest.mark.parametrize(
    ("has", "how"),
    [
        (("amx_bf16", "avx512_bf16"), "flash, bfloat16"),
        (("avx512_bf16",), "bfloat16 values"),
        ((), "flash, float32"),
    ],
)
def test_every_kind_of_processor_keeps_scores_and_bias_in_float32(monkeypatch, has, how):
    from napari_medtransformer.attention import fused as module

    monkeypatch.setattr(module, "cpu_has", lambda *names: set(names) <= set(has))
    # scores of deviation 3 and a bias up to 12, which bfloat16 would round by 0.03
    q, k, v = (t.bfloat16() for t in random_qkv(1, 2, 256, 256, 16))
    q = q * 3
    tables = tuple(torch.randn(16, 16, 16, generator=torch.Generator().manual_seed(3)) / 4 for _ in "hw")
    bias = DecomposedBias(tables)
    expected = explicit(q, k, v, bias.rows(q[0].double(), 0, torch.arange(256))[None], 16**-0.5)
    with use_policy(POLICIES[1]), torch.no_grad():
        assert how in kernel_name(q, k, v, bias)
        fused = attend(q, k, v, bias=bias)
    with use_policy(POLICIES[0]), torch.no_grad():
        rounded = attend(q, k, v, bias=bias)
    error, of_rounded = ((t.double() - expected).norm() / expected.norm() for t in (fused, rounded))
    assert error < BFLOAT16 / 2
    assert error < of_rounded / 2


def test_matrix_units_take_queries_that_carry_a_narrow_bias(monkeypatch):
    from napari_medtransformer.attention import fused as module

    monkeypatch.setattr(module, "cpu_has", lambda *names: True)
    q, k, v = (t.bfloat16() for t in random_qkv(1, 2, 64, 64, 32))
    bias = DecomposedBias(tuple(0.3 * torch.randn(8, 8, 32) for _ in "hw"))
    with use_policy(POLICIES[1]), torch.no_grad():
        assert "low-rank" in kernel_name(q, k, v, bias)
        assert "blockwise" in kernel_name(q.float(), k.float(), v.float(), bias)


def test_blocks_smaller_than_the_grid_change_nothing(monkeypatch):
    from napari_medtransformer.attention import fused as module

    q, k, v = random_qkv(3, 2, 30, 30, 8)
    bias = DecomposedBias((torch.randn(6, 6, 8), torch.randn(5, 5, 8)))
    with use_policy(POLICIES[1]), torch.no_grad():
        at_once = attend(q, k, v, bias=bias)
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", 2 * 30 * 7)  # seven queries at a time
        in_blocks = attend(q, k, v, bias=bias)
        monkeypatch.setattr(module, "BLOCK_ELEMENTS", 2 * 30 * 30)  # one batch entry at a time
        by_entry = attend(q, k, v, bias=bias)
    assert torch.allclose(in_blocks, at_once, atol=FLOAT32)
    assert torch.allclose(by_entry, at_once, atol=FLOAT32)


def test_gradients_reach_queries_and_positions_through_the_low_rank_form():
    q, k, v = (t.double().requires_grad_() for t in random_qkv(1, 2, 6, 6, 4))
    tables = tuple(torch.randn(n, n, 4, dtype=torch.float64, requires_grad=True) for n in (2, 3))
    attend(q, k, v, bias=DecomposedBias(tables)).sin().sum().backward()
    fused = [t.grad.clone() for t in (q, k, v, *tables)]
    for t in (q, k, v, *tables):
        t.grad = None
    grid = q.reshape(1, 2, 2, 3, 4)
    rows = torch.einsum("bnyxd,ykd->bnyxk", grid, tables[0]).reshape(1, 2, 6, 2, 1)
    columns = torch.einsum("bnyxd,xkd->bnyxk", grid, tables[1]).reshape(1, 2, 6, 1, 3)
    explicit(q, k, v, (rows + columns).flatten(-2), 0.5).sin().sum().backward()
    for given, t in zip(fused, (q, k, v, *tables)):
        assert torch.allclose(given, t.grad, atol=1e-10)


def test_window_bias_with_shifted_regions_equals_the_explicit_softmax():
    images, windows, heads, n = 2, 4, 3, 6
    q, k, v = random_qkv(images * windows, heads, n, n, 8)
    table = torch.randn(heads, n, n)
    regions = torch.tensor([[0] * 6, [0, 0, 1, 0, 0, 1], [0, 0, 0, 2, 2, 2], [0, 0, 1, 2, 2, 3]])
    fused = attend(q, k, v, bias=WindowBias(table, regions))
    mask = torch.where(regions[:, :, None] == regions[:, None, :], 0.0, -100.0).repeat(images, 1, 1)[:, None]
    assert torch.allclose(fused.double(), explicit(q, k, v, table + mask, 8**-0.5), atol=FLOAT32)


def test_a_dense_bias_and_a_scale_reach_the_kernel():
    q, k, v = random_qkv(2, 3, 5, 7, 8)
    mask = torch.randn(2, 1, 5, 7)
    fused = attend(q, k, v, bias=DenseBias(mask), scale=0.2)
    assert torch.allclose(fused.double(), explicit(q, k, v, mask, 0.2), atol=FLOAT32)


@pytest.mark.parametrize(
    "bias",
    [
        DecomposedBias((torch.randn(3, 3, 8), torch.randn(4, 4, 8))),
        WindowBias(torch.randn(2, 12, 12), torch.tensor([[0] * 12, [0, 1] * 6, [1] * 12, [2] * 12])),
        DenseBias(torch.randn(12, 12)),
        DenseBias(torch.rand(4, 1, 1, 12) > 0.5),
        DenseBias(torch.rand(1, 2, 12, 12) > 0.5),
    ],
    ids=["decomposed", "window", "dense", "keys kept", "pairs kept"],
)
def test_rows_of_a_bias_are_what_the_kernel_adds(bias):
    """With values that are the keys' one-hot codes, attention's output is its weights."""
    q, k, _ = random_qkv(4, 2, 12, 12, 8)
    one_hot = torch.eye(12).expand(4, 2, 12, 12)
    queries = torch.tensor([0, 5, 11])
    with use_policy(POLICIES[1]), torch.no_grad():
        # the kernel wants values as wide as queries
        narrow = [attend(q, k, one_hot[..., part].contiguous(), bias=bias) for part in (slice(0, 8), slice(4, 12))]
    weights = torch.cat([narrow[0], narrow[1][..., 4:]], dim=-1)
    for batch in range(4):
        scores = q[batch][:, queries] @ k[batch].transpose(-1, -2) * 8**-0.5
        rows = torch.softmax(scores + bias.rows(q[batch][:, queries], batch, queries), -1)
        assert torch.allclose(rows, weights[batch][:, queries], atol=FLOAT32)


def test_a_function_mode_sees_one_call_with_the_bias_as_given():
    seen = []

    class Listener(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func in (attend, torch.nn.functional.scaled_dot_product_attention):
                seen.append((func, kwargs))
            return func(*args, **(kwargs or {}))

    bias = DecomposedBias((torch.randn(3, 3, 8), torch.randn(4, 4, 8)))
    q, k, v = random_qkv(1, 2, 12, 12, 8)
    with Listener():
        attend(q, k, v, bias=bias)
    assert [(func, kwargs["bias"]) for func, kwargs in seen] == [(attend, bias)]


def test_a_policy_can_be_overridden_and_comes_back():
    before = policy_for("cpu")
    q, k, v = random_qkv(1, 2, 12, 12, 8)
    bias = DecomposedBias((torch.randn(3, 3, 8), torch.randn(4, 4, 8)))
    with use_policy(AttentionPolicy(torch.bfloat16, "low-rank")) as policy:
        assert policy_for("cpu") == policy
        assert "low-rank" in kernel_name(q, k, v, bias)
    with use_policy(AttentionPolicy(None, "blockwise")):
        assert "blockwise" in kernel_name(q, k, v, bias)
    assert policy_for("cpu") == before
