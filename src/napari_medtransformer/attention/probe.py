"""The probe: what a model's attention looks at, while the fused kernels run."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from napari_medtransformer.attention.asking import (
    Query,
    as_given,
    captures_holding,
    name_of,
    passes_holding,
    token_numbers,
    token_of_query,
)
from napari_medtransformer.attention.automatic import guess_spec
from napari_medtransformer.attention.calls import AttentionCall
from napari_medtransformer.attention.captured import CapturedSite
from napari_medtransformer.attention.heatmap import Heatmap, stitch_heatmaps
from napari_medtransformer.attention.interception import AttentionMode, ModulePath, eager_if_compiled
from napari_medtransformer.attention.kept_calls import MEMORY_BYTES, CallStore, KeptCall
from napari_medtransformer.attention.layout import TokenLayout
from napari_medtransformer.attention.placement import InputPlacement
from napari_medtransformer.attention.quantities import max_entropy, mean_row, received, to_keys
from napari_medtransformer.attention.rollout import input_grid, rollout_vector
from napari_medtransformer.attention.sites import AttentionSite, SiteSpec
from napari_medtransformer.attention.summaries import entropy_and_distance
from napari_medtransformer.attention.token_grid import TokenGrid
from napari_medtransformer.errors import NothingCaptured, QueryOutOfGrid, UnknownSite, UnsupportedModel, in_words
from napari_medtransformer.given import one_of, whole


class ProbedModel(Protocol):
    """What the probe asks of a model of this package; models.base.PromptableModel is one."""

    network: nn.Module
    on_encode: list[Callable[[InputPlacement], None]]

    def attention_sites(self) -> list[SiteSpec]:
        """Every attention site of the network, encoder first, in the order in which they run."""
        ...


@dataclass(frozen=True, eq=False)
class SiteSummary:
    """How a site's heads look around, over all queries of one image.

    entropy: (heads,) mean entropy of their rows in nats. entropy_fraction: (heads,) the same as a fraction of the
    largest possible. distance: (heads,) mean distance between query and what it attends to, weighted by attention, in
    `distance_unit`; nan where a side has no place.
    """

    site: AttentionSite
    entropy: np.ndarray
    entropy_fraction: np.ndarray
    distance: np.ndarray
    distance_unit: Literal["mm", "pixels"]


class AttentionProbe:
    """Records queries and keys of a model's attention sites during a `with` block, and answers from them.

    model: a model of this package, or any torch module, whose sites are found where it calls attention, unless they
    are declared. sites: the sites to keep, None for all: names or, of a torch module, their SiteSpecs.
    keep_on: "device" leaves queries and keys where they are, "cpu" moves them off. Each call of a site keeps its
    queries, keys and the bias in its cheapest form, nothing of tokens × tokens. keep: "all" calls of a site (prompt
    after prompt, window after window), or the "last" one. memory_bytes: what queries and keys may take of the
    processor's memory; those beyond, the least recently used, wait in a file (see CallStore), None for no limit.
    The model must run in the thread that entered the block.

    Answers are about the last call unless `call` counts another, from 0; `image` counts inside its batch. Of windows
    that slid over a volume, answers about a voxel or a region come from all the windows that hold it, stitched.

    Leaving the block restores everything it touched. Raises UnknownSite for a name the model does not have and, when
    the block ends, NothingCaptured if none of the sites ran, UnsupportedModel for what has no network, InvalidOption.
    """

    def __init__(
        self,
        model: ProbedModel | nn.Module,
        sites: Sequence[str | SiteSpec] | None = None,
        *,
        keep_on: Literal["device", "cpu"] = "device",
        keep: Literal["all", "last"] = "all",
        memory_bytes: int | None = MEMORY_BYTES,
    ) -> None:
        self._model = None if isinstance(model, nn.Module) else model
        network = model if isinstance(model, nn.Module) else getattr(model, "network", None)
        if not isinstance(network, nn.Module):
            raise UnsupportedModel(f"{in_words(model)} has no network to look into; load a model.")
        self._network = network
        self._keep_on = one_of(keep_on, ("device", "cpu"), "where queries and keys are kept")
        self._keep = one_of(keep, ("all", "last"), "which calls are kept")
        if memory_bytes is not None:
            memory_bytes = whole(memory_bytes, "the memory of a probe in bytes", least=0)
        self._memory_bytes, self._store = memory_bytes, CallStore(memory_bytes)
        if sites is not None and not isinstance(sites, Sequence | Set):
            raise UnknownSite(f"sites are a list of names, not {in_words(sites)}.")
        given = [site for site in sites or () if isinstance(site, SiteSpec)]
        declared = given if self._model is None else self._model.attention_sites()
        self._specs = {spec.name: spec for spec in declared}
        self._wanted = None if sites is None else frozenset(map(name_of, sites))
        if self._specs:
            for name in self._wanted or ():
                self._check_known(name, self._specs)
        self._calls: dict[str, list[_Recorded]] = {}
        self._placements: tuple[InputPlacement, ...] = ()
        self._placements_used = True
        self._path = ModulePath()
        self._stack: ExitStack | None = None

    # --- recording ------------------------------------------------------------------------------------------------

    def __enter__(self) -> AttentionProbe:
        if self._stack is not None:
            raise RuntimeError("this probe is already recording")
        self._calls, self._store = {}, CallStore(self._memory_bytes)
        self._placements, self._placements_used = (), True
        with ExitStack() as stack:
            stack.enter_context(eager_if_compiled(self._network))
            stack.enter_context(self._path.follow(self._followed()))
            if self._model is not None:
                self._model.on_encode.append(self._on_encode)
                stack.callback(self._model.on_encode.remove, self._on_encode)
            else:
                hook = self._network.register_forward_pre_hook(self._on_forward, with_kwargs=True)
                stack.callback(hook.remove)
            stack.enter_context(AttentionMode(self._on_call))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()
        if kind is None:
            self._require_calls()

    def _followed(self) -> dict[str, nn.Module]:
        if not self._specs:
            return {path or "network": module for path, module in self._network.named_modules()}
        wanted = [s for s in self._specs.values() if self._wanted is None or s.name in self._wanted]
        return {spec.name: self._network.get_submodule(spec.module) for spec in wanted}

    def _on_encode(self, placement: InputPlacement) -> None:
        # another thread may encode an image of its own meanwhile
        if self._path.is_own_thread:
            # the windows of a batch are announced one after another before it runs
            self._placements = (placement,) if self._placements_used else (*self._placements, placement)
            self._placements_used = False

    def _on_forward(self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        if not self._path.is_own_thread:
            return
        image = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor) and a.ndim in (4, 5)), None)
        if image is not None:
            shape = tuple(image.shape[2:])
            self._placements = (InputPlacement(shape, shape, shape),)

    def _on_call(self, call: AttentionCall) -> None:
        name = self._path.current
        if name is None or (self._wanted is not None and name not in self._wanted):
            return
        if self._keep_on == "cpu":
            call = replace(call, q=call.q.cpu(), k=call.k.cpu())
        self._placements_used = True
        # a site that runs again goes to the end: sites stay in the order in which they last ran
        before = self._calls.pop(name, [])
        if self._keep == "last":
            before.clear()
        self._calls[name] = [*before, _Recorded(self._store.keep(call), self._placements)]

    # --- what was recorded ----------------------------------------------------------------------------------------

    @property
    def sites(self) -> list[AttentionSite]:
        """The sites that ran, in the order in which they are declared or, of an unknown network, ran."""
        names = [n for n in self._specs if n in self._calls] if self._specs else list(self._calls)
        return [self.captured(name).site for name in names]

    def site(self, name: str) -> AttentionSite:
        """The site of that name. Raises UnknownSite, or NothingCaptured if it did not run."""
        return self.captured(name).site

    def calls(self, site: str | AttentionSite) -> int:
        """How many calls of a site were kept. Raises UnknownSite, or NothingCaptured if it did not run."""
        return len(self._recorded(site))

    def captured(self, site: str | AttentionSite, image: int = 0, call: int = -1) -> CapturedSite:
        """A site with the queries and keys it had. image: which one of a batch. call: which one, -1 the last.

        Raises UnknownSite, NothingCaptured for a site, a call or an image that was not recorded.
        """
        name = name_of(site)
        recorded = self._recorded(site)
        call, image = whole(call, "a call", NothingCaptured), whole(image, "an image", NothingCaptured)
        if not -len(recorded) <= call < len(recorded):
            raise NothingCaptured(f"site {name!r} was called {len(recorded)} times; there is no call {call}.")
        attended, placements = recorded[call].call, recorded[call].placements
        placement = placements[min(max(image, 0), len(placements) - 1)] if placements else None
        spec = self._specs[name] if self._specs else guess_spec(name, attended, placement)
        grids = [
            _grid(name, layout, sides[2], placement)
            for layout, sides in ((spec.queries, attended.q_shape), (spec.keys, attended.k_shape))
        ]
        captured = CapturedSite(AttentionSite(spec.name, spec.kind, attended.heads, *grids), attended, image)
        if not 0 <= image < captured.images:
            raise NothingCaptured(f"site {name!r} ran on a batch of {captured.images}; there is no image {image}.")
        return captured

    def _recorded(self, site: str | AttentionSite) -> list[_Recorded]:
        name = name_of(site)
        self._require_calls()
        if name not in self._calls:
            if name in self._specs:
                raise NothingCaptured(
                    f"site {name!r} was not recorded; recorded are {', '.join(self._calls)}. Let it run in the block."
                )
            self._check_known(name, self._calls)
        return self._calls[name]

    def _passes(self, site: str | AttentionSite, call: int | None, image: int) -> list[CapturedSite]:
        """The one call that was asked for; without `call`, all windows that slid over an image, or the last call."""
        if call is None:
            recorded = self._recorded(site)
            windows = [
                self.captured(site, at, number)
                for number, one in enumerate(recorded)
                for at, placement in enumerate(one.placements)
                if placement.origin is not None
            ]
            placed = [w for w in windows if w.site.query_grid.has_place or w.site.key_grid.has_place]
            if placed:
                return placed
        return [self.captured(site, image, -1 if call is None else call)]

    def kernel(self, site: str | AttentionSite) -> str:
        """Which attention kernel ran at a site and in which number format, such as "cpu flash, float32"."""
        call = self.captured(site).call
        return f"{call.kernel}, {str(call.dtype).removeprefix('torch.')}"

    def rows(self, site: str | AttentionSite, queries: Sequence[int] | Tensor) -> Tensor:
        """Attention of query tokens: (heads, n, keys) float32 on the CPU; each row sums to 1.

        queries: token indices of the site's query grid. In a window site the keys are those of the query's window as
        the kernel saw them, padding included; `keys` tells which tokens they are. Raises QueryOutOfGrid.
        """
        return self.captured(site).rows(token_numbers(queries)).cpu()

    def keys(self, site: str | AttentionSite, queries: Sequence[int] | Tensor) -> Tensor:
        """The key tokens that `rows` is about: (n, keys) token indices of the key grid, -1 for padding."""
        return self.captured(site).keys(token_numbers(queries))

    # --- answers --------------------------------------------------------------------------------------------------

    def heatmap(self, site: str | AttentionSite, query: Query, *, call: int | None = None, image: int = 0) -> Heatmap:
        """What every head attends to from one query, over the site's whole key grid.

        query: native coordinates (y, x) or (z, y, x) of the encoded image – of a 2D image, a slice coordinate before
        them is left out –, or a token index, as for prompt tokens. Raises QueryOutOfGrid.
        """
        maps = []
        for captured in captures_holding(self._passes(site, call, image), query):
            tokens = torch.tensor([token_of_query(captured.site.query_grid, query)])
            grid = captured.site.key_grid
            values, padding = to_keys(captured.rows(tokens)[:, 0], captured.keys(tokens)[0], grid.n_tokens)
            maps.append(Heatmap.over(grid, values, padding, site=captured.site.name, query=as_given(query)))
        return stitch_heatmaps(maps)

    def mean_row(
        self, site: str | AttentionSite, mask: np.ndarray, *, call: int | None = None, image: int = 0
    ) -> Heatmap:
        """What a region attends to: the mean of its pixels' rows. mask: bool, the encoded image's native shape."""
        maps, sizes = [], []
        for captured in self._passes(site, call, image):
            weights = captured.site.query_grid.pixels_per_token(np.asarray(mask, dtype=bool))
            if bool(weights.any()):
                values, padding = mean_row(captured, weights)
                maps.append(Heatmap.over(captured.site.key_grid, values, padding, site=captured.site.name, query=None))
                sizes.append(float(weights.sum()))
        if not maps:
            raise QueryOutOfGrid("the mask is empty; mark at least one pixel of what was encoded.")
        return stitch_heatmaps(maps, sizes)

    def received(self, site: str | AttentionSite, *, call: int | None = None, image: int = 0) -> Heatmap:
        """What every token receives from all queries together, per head: the column sums of the attention matrix."""
        maps = []
        for captured in self._passes(site, call, image):
            values, padding = received(captured)
            maps.append(Heatmap.over(captured.site.key_grid, values, padding, site=captured.site.name, query=None))
        return stitch_heatmaps(maps, overlap="mean")

    def rollout(self, query: Query) -> Heatmap:
        """Where the encoder's output at a query comes from, through all its recorded layers (one head).

        Attention is averaged over heads and half of each layer is its residual; a vector is pushed back through the
        layers instead of multiplying matrices. What windows spend on padding is left out and told as padding_mass.
        Abnar and Zuidema 2020.
        """
        names = [s.name for s in self.sites if s.kind in ("global", "window") and s.query_grid.has_place]
        if not names:
            raise NothingCaptured("no self-attention over the image was recorded; encode an image in the block.")
        passes = zip(*[self._passes(name, None, 0) for name in names], strict=False)
        maps = []
        for layers in passes_holding(passes, query):
            values = rollout_vector(layers, token_of_query(layers[-1].site.query_grid, query))[None].cpu()
            grid, padding = input_grid(layers[0]), 1 - values.sum(dim=1)
            maps.append(Heatmap.over(grid, values, padding, site="rollout", query=as_given(query)))
        return stitch_heatmaps(maps)

    def entropy_and_distance(
        self, site: str | AttentionSite, spacing: Sequence[float] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Per head and query token: entropy in nats and mean attention distance, both (heads, query tokens)."""
        return entropy_and_distance(self.captured(site), spacing)

    def summary(self, spacing: Sequence[float] | None = None) -> list[SiteSummary]:
        """Entropy and mean attention distance of every recorded site and head.

        spacing: mm per native pixel and axis of the encoded image; without it distances are in pixels.
        """
        summaries = []
        for site in self.sites:
            captured = self.captured(site)
            entropy, distance = entropy_and_distance(captured, spacing)
            mean = entropy.mean(dim=1)
            fraction = mean / max_entropy(captured) if captured.call.k_shape[2] > 1 else torch.ones_like(mean)
            summaries.append(
                SiteSummary(
                    site=site,
                    entropy=mean.numpy(),
                    entropy_fraction=fraction.numpy(),
                    # prefix tokens have no place to measure from
                    distance=distance.nanmean(dim=1).numpy(),
                    distance_unit="pixels" if spacing is None else "mm",
                )
            )
        return summaries

    # --- inside ---------------------------------------------------------------------------------------------------

    def _require_calls(self) -> None:
        if not self._calls:
            raise NothingCaptured(
                "the probe saw no attention call; run the model inside the block, in the thread that entered it, and "
                "check that the sites asked for take part."
            )

    @staticmethod
    def _check_known(name: str, known: Collection[str]) -> None:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.4) or list(known)
            raise UnknownSite(f"no attention site {name!r}; there are {', '.join(near)}.")


@dataclass(frozen=True, eq=False)
class _Recorded:
    """One call of a site, and where the images of its batch lie."""

    call: AttentionCall | KeptCall
    placements: tuple[InputPlacement, ...]


def _grid(name: str, layout: TokenLayout, tokens: int, placement: InputPlacement | None) -> TokenGrid:
    if layout.patch is None:
        return TokenGrid(layout, None, tokens)
    if placement is None:
        raise NothingCaptured(
            "no image was encoded in the block, so its tokens cannot be placed; encode it inside the block."
        )
    grid = TokenGrid(layout, placement)
    if grid.window_tokens.shape[1] != tokens:
        raise UnsupportedModel(
            f"site {name!r} ran on {tokens} tokens; {placement.input_shape} input pixels in {layout} make "
            f"{grid.window_tokens.shape[1]}. Its layout is declared wrongly, or the input's size does not fit."
        )
    return grid
