"""Memory: which number format a device gets, smaller plans when it runs out, models that are kept."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_medtransformer.attention import policy
from napari_medtransformer.errors import OutOfMemory, UnsupportedModel
from napari_medtransformer.models import find_card, load_model
from napari_medtransformer.models.base import Prompts
from napari_medtransformer.models.devices import choose_dtype
from napari_medtransformer.models.keeper import ModelKeeper, network_bytes
from napari_medtransformer.models.memory import Plan, device_memory, is_out_of_memory
from napari_medtransformer.models.smaller import SmallerPlan, in_smaller_plans

CPU = torch.device("cpu")


def test_large_models_get_half_precision_only_where_units_for_it_are(monkeypatch: pytest.MonkeyPatch) -> None:
    large, small = find_card("sam-vit-b"), find_card("medt-click-tiny")
    monkeypatch.setattr(policy, "cpu_has", lambda *names: "amx_bf16" in names)
    assert choose_dtype(CPU, "auto", large) == torch.bfloat16
    assert choose_dtype(CPU, "auto", small) == torch.float32
    monkeypatch.setattr(policy, "cpu_has", lambda *names: "avx512_bf16" in names)
    assert choose_dtype(CPU, "auto", large) == torch.float32
    assert choose_dtype(torch.device("mps"), "auto", large) == torch.float32


def test_a_number_format_can_be_chosen_and_nonsense_is_refused() -> None:
    assert choose_dtype(CPU, "bfloat16") == torch.bfloat16
    assert choose_dtype(torch.device("cuda"), "float16") == torch.float16
    with pytest.raises(UnsupportedModel, match=r"a number format is one of auto, float32, .*, not 'int8'"):
        choose_dtype(CPU, "int8")
    with pytest.raises(UnsupportedModel, match=r"float16 is for GPUs"):
        load_model("medt-click-tiny", device="cpu", dtype="float16")


def test_bfloat16_gives_nearly_the_same_mask() -> None:
    image = np.zeros((90, 120), np.float32)
    image[30:60, 40:80] = 1
    masks = []
    for dtype in ("float32", "bfloat16"):
        model = load_model("medt-click-tiny", device="cpu", dtype=dtype)
        assert model.dtype == getattr(torch, dtype)
        embedding = model.encode(image)
        assert all(feature.dtype == torch.float32 for feature in embedding.features)
        found = model.decode(embedding, Prompts(np.array([[45.0, 60.0]], np.float32), np.array([1])))
        masks.append(found.logits[found.scores.argmax()] > 0)
    overlap = 2 * (masks[0] & masks[1]).sum() / (masks[0].sum() + masks[1].sum())
    assert overlap > 0.95
    assert masks[0].sum() > 100


def test_plans_become_smaller_until_none_is_left() -> None:
    plan, steps = Plan(torch.device("cuda", 0), torch.float32), []
    while plan is not None:
        steps.append(str(plan))
        plan = plan.smaller()
    assert steps == ["cuda:0 in float32", "cuda:0 in bfloat16", "cpu in float32", "cpu in bfloat16"]
    assert Plan(torch.device("mps"), torch.float32).smaller() == Plan(CPU, torch.float32)


def test_what_torch_says_when_memory_runs_out_is_known() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(MemoryError())
    with pytest.raises(RuntimeError) as other:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not is_out_of_memory(other.value)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    tried = []

    def run(plan: Plan) -> None:
        tried.append(plan)
        raise ValueError("something else")

    with pytest.raises(ValueError, match="something else"):
        in_smaller_plans("this", Plan(CPU, torch.float32), run)
    assert len(tried) == 1


def test_an_allocation_that_never_fits_is_told_in_one_line() -> None:
    def run(plan: Plan) -> torch.Tensor:
        return torch.empty(1 << 60, dtype=torch.uint8)

    with (
        pytest.warns(SmallerPlan, match=r"this needs more memory than cpu in float32 has; going on with cpu in bf"),
        pytest.raises(
            OutOfMemory, match=r"this needs more memory than there is; .* GB are free on cpu.*smaller model"
        ) as caught,
    ):
        in_smaller_plans("this", Plan(CPU, torch.float32), run)
    assert "\n" not in str(caught.value)


def test_memory_of_a_device_is_known() -> None:
    memory = device_memory("cpu")
    assert 0 < memory.free <= memory.total


LIMITED = """
    import resource, sys, warnings
    import numpy as np, torch
    from napari_medtransformer.errors import OutOfMemory
    from napari_medtransformer.models import load_model
    from napari_medtransformer.models.base import Prompts

    torch.set_num_threads(1)
    model = load_model("medt-click-tiny", device="cpu")
    image = np.random.default_rng(0).random((200, 200), dtype=np.float32)
    model.encode(image)  # threads, caches and code are there now
    told = []
    model.on_smaller = told.append

    class Greedy(torch.nn.Module):
        # what a large encoder holds beside its input, half of it in half precision
        def __init__(self, inner):
            super().__init__()
            self.inner = inner
        def forward(self, x):
            dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
            held = torch.ones({elements}, dtype=dtype)
            return self.inner(x) + 0 * held[0].float()

    block = model.network.encoder.{place}
    model.network.encoder.{place} = Greedy(block)
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + {spare}, used + {spare}))
    try:
        embedding = model.encode(image)
        print("encoded", model.dtype, told)
    except OutOfMemory as error:
        print("refused", error, told)
"""


def run_limited(elements: int, spare: int) -> str:
    """Encode in a process whose address space may grow by `spare` bytes, with so many more elements held."""
    code = textwrap.dedent(LIMITED).format(elements=elements, spare=spare, place="stem2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    return done.stdout or done.stderr


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits of address space")
def test_a_model_that_does_not_fit_goes_on_in_half_precision_and_says_so() -> None:
    # 1.2 GB in float32, 0.6 GB in bfloat16, 0.9 GB allowed
    out = run_limited(300_000_000, 900_000_000)
    assert out.startswith("encoded torch.bfloat16")
    assert "medt-click-tiny needs more memory than cpu in float32 has; going on with cpu in bfloat16." in out


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits of address space")
def test_a_model_that_fits_in_no_way_is_refused_in_one_line() -> None:
    out = run_limited(3_000_000_000, 900_000_000)
    assert out.startswith("refused medt-click-tiny needs more memory than there is;")
    assert "Traceback" not in out


@pytest.mark.gpu
def test_a_full_gpu_sends_the_model_to_the_processor() -> None:
    model = load_model("medt-click-tiny", device="cuda", dtype="float32")
    image = np.random.default_rng(0).random((200, 200), dtype=np.float32)
    embedding = model.encode(image)
    told: list[str] = []
    model.on_smaller = told.append
    held = torch.cuda.memory_reserved()
    torch.cuda.set_per_process_memory_fraction(held / torch.cuda.get_device_properties(0).total_memory)
    filler = []
    try:
        while True:
            filler.append(torch.empty(1 << 16, device="cuda"))
    except torch.OutOfMemoryError:
        pass
    try:
        model.encode(image)
        prediction = model.decode(embedding, Prompts(np.array([[45.0, 60.0]], np.float32), np.array([1])))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert model.device.type == "cpu"
    assert "going on with cpu" in told[-1]
    assert np.isfinite(prediction.logits).all()


class Holder:
    """A model of so many bytes."""

    def __init__(self, size: int) -> None:
        self.network = torch.nn.Linear(size // 4, 1, bias=False)


def test_models_are_kept_until_the_budget_is_full_and_the_longest_unused_goes() -> None:
    keeper: ModelKeeper[Holder] = ModelKeeper(2500)
    loads = []

    def get(name: str, size: int = 1000) -> Holder:
        return keeper.get(name, lambda: loads.append(name) or Holder(size))

    first = get("a")
    assert get("a") is first
    get("b")
    get("a")
    get("c")  # beyond the budget: b was used longest ago
    assert (keeper.holds("a"), keeper.holds("b"), keeper.holds("c")) == (True, False, True)
    assert keeper.used_bytes == 2000
    get("b")
    assert loads == ["a", "b", "c", "b"]
    get("large", 9000)  # the last one used stays though it is beyond the budget alone
    assert len(keeper) == 1
    assert keeper.holds("large")


def test_a_smaller_budget_drops_at_once() -> None:
    keeper: ModelKeeper[Holder] = ModelKeeper(10_000)
    for name in "abc":
        keeper.get(name, lambda: Holder(1000))
    keeper.set_budget(2000)
    assert len(keeper) == 2
    keeper.drop("c")
    keeper.drop("never there")
    assert [keeper.holds(name) for name in "abc"] == [False, True, False]


def test_one_parameter_under_two_names_counts_once() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(10, 10, bias=False), torch.nn.Linear(10, 10, bias=False))
    network[1].weight = network[0].weight
    assert network_bytes(network) == 400
