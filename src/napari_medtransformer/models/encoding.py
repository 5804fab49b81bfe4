"""How far an encoder is while it runs, a way to stop it between two of its blocks, and to let any network pause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from napari_medtransformer.models.base import LoadedModel, PromptableModel
    from napari_medtransformer.models.volume_model import VolumePromptableModel


T = TypeVar("T")


class EncodingStopped(Exception):
    """Whoever watched an encoder wanted no more of it."""


@contextmanager
def watched_encoder(
    model: PromptableModel | VolumePromptableModel, on_block: Callable[[int, int], None]
) -> Iterator[None]:
    """Call `on_block(done, blocks)` before each block of the model's encoder that runs inside.

    What it raises, such as EncodingStopped, ends the encoding there and is raised to the caller; the model can be used
    as before. done: begins anew at 0 with every image. Blocks are those of the card's attention sites "encoder.…"; a
    model without any is not watched.
    """
    blocks = [
        model.network.get_submodule(site.module) for site in model.attention_sites() if site.name.startswith("encoder.")
    ]
    done = 0

    def before(*_: object) -> None:
        nonlocal done
        on_block(done, len(blocks))
        done = (done + 1) % len(blocks)

    handles = [block.register_forward_pre_hook(before) for block in blocks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def between_layers(model: LoadedModel, call: Callable[[], None]) -> Iterator[None]:
    """Call something before each layer of the model's network that runs inside, in the thread that runs it."""
    layers = [module for module in model.network.modules() if not any(True for _ in module.children())]
    handles = [layer.register_forward_pre_hook(lambda *_: call()) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def watched_steps(
    model: PromptableModel | VolumePromptableModel, steps: Iterator[T], on_block: Callable[[int, int], None]
) -> Iterator[T]:
    """The same steps, with the model's encoder watched while they run, and not between them, when others may use it."""
    try:
        while True:
            try:
                with watched_encoder(model, on_block):
                    step = next(steps)
            except StopIteration:
                return
            yield step
    finally:
        close = getattr(steps, "close", None)
        if close is not None:
            close()
