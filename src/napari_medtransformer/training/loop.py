"""The loop that every click training shares: optimiser, schedule, moving average, checkpoints and log lines."""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from napari_medtransformer.errors import UnreadableWeights
from napari_medtransformer.progress import Progress, Result, Steps

logger = logging.getLogger(__name__)
# Share of the newest step in the figures of a log line.
_NEWEST = 0.02


@dataclass(frozen=True)
class Schedule:
    """How a network is optimised. final_learning_rate and ema_decay are fractions; checkpoint_every counts steps."""

    steps: int
    learning_rate: float = 1e-3
    weight_decay: float = 0.03
    warmup_steps: int = 150
    final_learning_rate: float = 0.02
    ema_decay: float = 0.998
    gradient_norm: float = 1.0
    checkpoint_every: int = 100


def learning_rate(schedule: Schedule, step: int) -> float:
    """Linear warm-up, then a cosine down to final_learning_rate of the peak."""
    if step < schedule.warmup_steps:
        return schedule.learning_rate * (step + 1) / schedule.warmup_steps
    done = (step - schedule.warmup_steps) / max(1, schedule.steps - schedule.warmup_steps)
    floor = schedule.final_learning_rate
    return schedule.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))


def slice_batches(stream: Dataset[tuple[Tensor, ...]], images: int, workers: int) -> Iterator[tuple[Tensor, ...]]:
    """The items of a stream, `images` at a time, made ahead by so many processes."""
    yield from DataLoader(stream, images, num_workers=workers, prefetch_factor=4 if workers else None)


def optimise(
    network: nn.Module,
    batches: Callable[[int], Iterable[tuple[Tensor, ...]]],
    loss_of: Callable[[tuple[Tensor, ...], int], tuple[Tensor, dict[str, float]]],
    schedule: Schedule,
    folder: Path,
    validate: Callable[[int], dict[str, float]] | None = None,
) -> Steps[Path]:
    """Train `network`, resuming from folder/checkpoint.pt if it is there; ends with the averaged weights' path.

    batches: makes the batches from a step on. loss_of: the loss of a batch at a step, and figures for the log. With
    both deterministic by step, stopping and resuming gives the weights of an uninterrupted run. validate: figures for
    the log at a step, asked at every checkpoint while the network holds the averaged weights.
    Raises UnreadableWeights if the checkpoint is another network's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network.train()
    average = {name: value.detach().clone() for name, value in network.state_dict().items()}
    trained = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": schedule.weight_decay},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=schedule.learning_rate,
        betas=(0.9, 0.99),
    )
    step = 0
    checkpoint, weights = folder / "checkpoint.pt", folder / "weights.safetensors"
    running: dict[str, float] = {}
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        try:
            network.load_state_dict(saved["network"])
            optimizer.load_state_dict(saved["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise UnreadableWeights(
                f"{checkpoint} belongs to another training; give another folder, or remove it to start anew."
            ) from error
        average = {name: value.to(average[name].device) for name, value in saved["average"].items()}
        step, running = int(saved["step"]), dict(saved["running"])
    started, first = time.monotonic(), step
    for batch in batches(step) if step < schedule.steps else ():
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(schedule, step)
        loss, facts = loss_of(batch, step)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(trained, schedule.gradient_norm)
        optimizer.step()
        decay = min(schedule.ema_decay, (step + 1) / (step + 10))
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, 1 - decay)
        step += 1
        for name, fact in facts.items():
            if not math.isnan(fact):
                running[name] = fact if name not in running else (1 - _NEWEST) * running[name] + _NEWEST * fact
        if step % schedule.checkpoint_every == 0 or step == schedule.steps:
            own = {name: value.clone() for name, value in network.state_dict().items()}
            state = {"network": own, "optimizer": optimizer.state_dict()}
            partial = checkpoint.with_suffix(".part")
            torch.save({**state, "average": average, "step": step, "running": running}, partial)
            partial.replace(checkpoint)
            line = {"step": step, "steps_per_second": (step - first) / (time.monotonic() - started), **running}
            if validate is not None:
                network.load_state_dict(average)
                line |= validate(step)
                network.load_state_dict(state["network"])
            with (folder / "log.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            logger.info("%s", line)
        told = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in running.items())
        yield Progress(step, schedule.steps, told)
        if step >= schedule.steps:
            break
    save_file({name: value.contiguous().cpu() for name, value in average.items()}, weights)
    yield Result(weights)
