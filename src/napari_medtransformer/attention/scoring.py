"""Scores of a site's queries and keys in blocks that stay in a processor core's cache, a buffer per thread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

from napari_medtransformer.attention.bias import Bias, DecomposedBias, DenseBias, outer_sum_into
from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.openmp import keep_to

# scores held at a time by a thread of a processor, 2 MB in float32: fewer rows use the keys too seldom
PROCESSOR_ELEMENTS = 1 << 19
# and on other devices
DEVICE_ELEMENTS = 1 << 22
# threads of a processor that take blocks of their own; where torch may use more, each of them asks a team of torch's
MOST_THREADS = 8

Answer = TypeVar("Answer")
Blocks: TypeAlias = "Iterator[tuple[slice, Tensor, Tensor]]"


@dataclass(frozen=True, eq=False)
class Part:
    """Some queries of one window, or of the whole image where there are no windows.

    entry: of the call's batch axis. places: (n,) where the queries lie in it. queries: (n,) their tokens. keys:
    (K,) the key tokens of that window, -1 where the kernel saw padding.
    """

    entry: int
    places: Tensor
    queries: Tensor
    keys: Tensor

    def rows(self) -> Tensor | slice:
        """`places` to take rows by: where each follows the one before a slice, which copies nothing."""
        if bool((self.places.diff() == 1).all()):
            return slice(int(self.places[0]), int(self.places[-1]) + 1)
        return self.places


class Scores:
    """Scores before the softmax of chosen query tokens (None: all of them) of a captured site, block by block.

    device: where they are made. may_be_infinite: whether masks may leave some at -inf.
    """

    def __init__(self, captured: CapturedSite, tokens: Tensor | None = None) -> None:
        call, grid = captured.call, captured.site.query_grid
        self._site, self._bias, self._scale, self._causal = captured.site, call.bias, call.scale, call.causal
        self._tokens = torch.arange(grid.n_tokens) if tokens is None else grid.check_tokens(tokens)
        # this image's alone, once: queries and keys of a call may lie in a file and in another number format
        self._first = captured.image * grid.window_tokens.shape[0]
        q, k = (t[self._first : self._first + grid.window_tokens.shape[0]].float() for t in (call.q, call.k))
        self._heads, self._q = call.heads, q
        k = k.transpose(2, 3)  # (windows, heads, width, keys)
        self.device = q.device
        self.may_be_infinite = call.causal or isinstance(call.bias, DenseBias)
        most = PROCESSOR_ELEMENTS if self.device.type == "cpu" else DEVICE_ELEMENTS
        keys = k.shape[3]
        self._rows = max(1, min(most // keys, q.shape[2]))
        self._at_once = max(1, min(most // (self._rows * keys), call.heads))
        if self._rows < q.shape[2]:
            k = k.contiguous()  # as products of matrices read them, once instead of for every block
        self._k = k if k.shape[1] == call.heads else k.repeat_interleave(call.heads // k.shape[1], dim=1)
        # of most queries the terms of decomposed positions are made at once, without a table per query
        self._terms: list[Tensor] | None = None
        if isinstance(call.bias, DecomposedBias) and 2 * len(self._tokens) > grid.n_tokens:
            with exact(self.device):
                self._terms = call.bias.terms(q)

    def shared(self, work: Callable[[Iterator[tuple[Part, Blocks]]], Answer]) -> list[Answer]:
        """What `work` makes of all parts, each with its blocks: the answers of as many threads as shared them.

        A block is some heads, their scores (heads, n, K) float32, and room for as many numbers. Both tensors are
        work's until it asks for the next block, which overwrites them. Threads of a processor that go through blocks
        of their own never wait for one another, as those of one team do after every operation.
        """
        parts = list(self._parts())
        team = torch.get_num_threads()
        threads = min(team, MOST_THREADS, len(parts)) if self.device.type == "cpu" else 1
        if threads <= 1:
            return [work(self._walk(parts))]
        inference = torch.is_inference_mode_enabled()

        def alone(mine: Sequence[Part]) -> Answer:
            keep_to(team // threads)
            with torch.inference_mode(inference), exact(self.device):
                return work(self._walk(mine))

        with ThreadPoolExecutor(threads, thread_name_prefix="scores") as pool:
            return list(pool.map(alone, (parts[i::threads] for i in range(threads))))

    def _parts(self) -> Iterator[Part]:
        """The queries, cut into the rows of a block."""
        windows, places = self._site.query_grid.window_of_token[self._tokens].unbind(1)
        for window in windows.unique().tolist():
            here = (windows == window).nonzero().flatten()
            for rows in here.split(self._rows):
                keys = self._site.key_grid.window_tokens[window]
                yield Part(self._first + window, places[rows], self._tokens[rows], keys)

    def _walk(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Blocks]]:
        held = [self._q.new_empty(self._at_once * self._rows * self._k.shape[3]) for _ in range(2)]
        for part in parts:
            yield part, self._blocks(part, held)

    def _blocks(self, part: Part, held: Sequence[Tensor]) -> Blocks:
        entry, places = part.entry - self._first, part.places.to(self.device)
        rows, keys = part.rows(), self._k[entry]
        q = self._q[entry][:, rows]
        terms = None if self._terms is None else [term[entry][:, rows] for term in self._terms]
        with exact(self.device):
            bias = _BiasRows(self._bias, q, part, terms)
        for start in range(0, self._heads, self._at_once):
            heads = slice(start, min(start + self._at_once, self._heads))
            shape = (heads.stop - start, len(places), keys.shape[2])
            block, room = (numbers[: math.prod(shape)].view(shape) for numbers in held)
            with exact(self.device):
                biased = bias.write(block, heads)
                block.baddbmm_(q[heads], keys[heads], beta=1.0 if biased else 0.0, alpha=self._scale)
                if self._causal:
                    later = torch.arange(shape[2], device=self.device) > places[:, None]
                    block.masked_fill_(later, float("-inf"))
            yield heads, block, room


@contextmanager
def exact(device: torch.device) -> Iterator[None]:
    """No gradients, and no autocast, which would round scores to half precision."""
    with torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


class _BiasRows:
    """The bias of one part's queries, written into blocks of scores."""

    def __init__(self, bias: Bias | None, q: Tensor, part: Part, terms: list[Tensor] | None) -> None:
        self._bias, self._q, self._part = bias, q, part
        self._terms = terms or (bias.row_terms(q, part.places) if isinstance(bias, DecomposedBias) else [])

    def write(self, block: Tensor, heads: slice) -> bool:
        """Fill a block (heads, n, K) with the bias of those heads; False, and nothing is written, without one."""
        if self._bias is None:
            return False
        if isinstance(self._bias, DecomposedBias):
            outer_sum_into(block.unflatten(2, self._bias.key_shape), [term[heads] for term in self._terms])
        else:
            block.copy_(self._bias.rows(self._q[heads], self._part.entry, self._part.places, heads))
        return True
