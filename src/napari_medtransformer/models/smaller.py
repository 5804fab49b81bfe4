"""When memory runs out: one smaller plan after another, told to the user, and one clear error at the end."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from napari_medtransformer.errors import OutOfMemory
from napari_medtransformer.models.memory import Plan, device_memory, is_out_of_memory

T = TypeVar("T")


class SmallerPlan(UserWarning):
    """Memory ran out and a smaller plan was taken; the text says which."""


class Movable(Protocol):
    """A model that can be moved to a smaller plan: every promptable model."""

    network: nn.Module
    device: torch.device
    dtype: torch.dtype


def in_smaller_plans(what: str, plan: Plan, run: Callable[[Plan], T], tell: Callable[[str], None] | None = None) -> T:
    """`run(plan)`, and again with a smaller plan each time memory runs out.

    what: what is done, for the message. tell: told each smaller plan, None for a SmallerPlan warning.
    Raises OutOfMemory when no smaller plan is left.
    """
    while True:
        try:
            return run(plan)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = plan.smaller()
            if smaller is None:
                raise OutOfMemory(f"{what} needs more memory than there is; {_left(plan)}. {_ADVICE}") from error
            # the frames of a failed attempt hold its tensors
            error.__traceback__ = None
        message = f"{what} needs more memory than {plan} has; going on with {smaller}."
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
        if tell is None:
            warnings.warn(message, SmallerPlan, stacklevel=3)
        else:
            tell(message)
        plan = smaller


_ADVICE = "Close other programs, take a smaller model, or crop the image."


def _left(plan: Plan) -> str:
    memory = device_memory(plan.device)
    return f"{memory.free / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free on {plan.device}"


def move(model: Movable, plan: Plan) -> None:
    """Let a model run on another device or in another number format from now on."""
    if model.device != plan.device:
        model.network.to(plan.device)
        model.device = plan.device
    model.dtype = plan.dtype


def fits_in_memory(method: Callable[..., Any]) -> Callable[..., Any]:
    """A model's method that, when memory runs out, moves its model to a smaller plan and runs again.

    The model stays there: what did not fit once will not fit the next time. Its `on_smaller` is told.
    """

    @functools.wraps(method)
    def guarded(self: Any, *args: Any, **kwargs: Any) -> Any:
        def run(plan: Plan) -> Any:
            move(self, plan)
            return method(self, *args, **kwargs)

        return in_smaller_plans(self.card.name, Plan(self.device, self.dtype), run, self.on_smaller)

    return guarded
