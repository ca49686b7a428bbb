"""Whole-volume results in bounded memory: a volume that is never in memory as a whole, read slab by slab along z.

A network written for tensors is called on a `Field` instead. A field knows how its rows follow from those of its
source; nothing is computed before rows are read. Convolutions, resampling and sums read exactly the neighbouring rows
that they need and keep the rows that their reader will want again, so no row is computed twice in one pass. A group
norm needs the statistics of its whole input: it makes a pass over its source, and stores what the pass computes if
that fits in the budget. What does not fit is computed again in the next pass. The result is that of the whole volume:
no windows, no blending, no seams.

A *row* is one z position of all channels and of the whole plane. The memory model is the same walk with nothing
computed (`Budget.dry`), so what is predicted is what is done.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn import functional

from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.model.allocator import give_back
from ctinterp_dagster.model.autoencoder.streamed_moments import PART, group_moments, in_parts

GIB = 1 << 30
RESERVE = 96 << 20
LARGEST_SLAB = 8 << 30  # of numbers in float32: GPU kernels count them in 31 bits, and thicker slabs gain nothing
TensorShape = tuple[int, int, int, int, int]


class LocalLayer(Protocol):
    """A layer whose output row depends on a few neighbouring rows of its input.

    Attributes:
        kernel_numbers: numbers that the layer keeps between calls, beside its weights.
    """

    kernel_numbers: int

    def output_shape(self, shape: TensorShape) -> TensorShape:
        """The shape of the output for an input of `shape`."""

    def source_rows(self, start: int, stop: int) -> tuple[int, int]:
        """The source rows that output rows [start, stop) depend on; may reach over the ends of the volume."""

    def rows(self, x: Tensor, start: int, stop: int, depth: int) -> Tensor:
        """Output rows [start, stop), (b, out, rows, y, x), of a source of `depth` rows; x are those that they need."""

    def scratch_numbers(self, shape: TensorShape, rows: int) -> int:
        """Numbers held beside input, (batch, channel, z, y, x), and output while `rows` rows of it are computed."""


class Recipe(Protocol):
    """How the rows of a field follow from those of its sources."""

    shape: TensorShape
    rolling: bool  # whether rows are dear enough to be kept for the next read

    def compute(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop) as a fresh tensor (batch, channel, rows, y, x)."""

    def scratch_bytes(self, rows: int, plan: "SlabPlan") -> int:
        """The largest passing memory while `rows` are computed, they included; records in `plan` what is kept."""


@dataclass
class SlabPlan:
    """How thick the slabs of one pass are.

    Attributes:
        rows: rows of the field that the pass reads, at a time.
        depth: rows of that field.
        held: the rows that each field keeps meanwhile.
        kernels: bytes that each layer keeps.
    """

    rows: int
    depth: int
    held: "dict[Field, int]" = field(default_factory=dict)
    kernels: dict[LocalLayer, int] = field(default_factory=dict)

    def piece(self, depth: int) -> int:
        """Rows of a field of another depth that make the same share of the volume; at least one."""
        return -(-self.rows * depth // self.depth)


@dataclass
class Budget:
    """The memory that activations may take: half of it for stored activations, what is left of it for slabs.

    Attributes:
        memory_gib: the bound on stored activations, slabs and scratch together, without the weights and the runtime.
        dry: walk through all passes and record the peak, but compute nothing.
        peak_bytes: the largest use so far, as the memory model has it.
        stored: the fields that are held as a whole.
        plan: the slabs of the current pass.
    """

    memory_gib: float
    dry: bool = False
    peak_bytes: float = 0
    stored: "WeakSet[Field]" = field(default_factory=WeakSet)
    plan: SlabPlan = field(default_factory=lambda: SlabPlan(1, 1))

    @property
    def reserve_bytes(self) -> float:
        """For buffers of the matrix libraries and gaps in the heap: up to 80 MiB measured, an eighth where less."""
        return 0 if math.isinf(self.memory_gib) else min(RESERVE, self.memory_gib * GIB / 8)

    def stored_bytes(self) -> int:
        """Bytes of the activations that are held as a whole now."""
        return sum(f.row_bytes * f.depth for f in self.stored)

    def may_store(self, candidate: "Field") -> bool:
        """Whether a whole field fits beside what is stored already."""
        return self.stored_bytes() + candidate.row_bytes * candidate.depth <= self.memory_gib * GIB / 2

    def start_pass(self, target: "Field") -> None:
        """Plan the thickest slabs in which `target` can be computed within the budget; clear up after the last pass.

        Args:
            target: the field whose rows are wanted.

        Raises:
            ParamsError: not even one row fits.
        """
        room = self.memory_gib * GIB - self.stored_bytes() - self.reserve_bytes
        room = min(room, max(LARGEST_SLAB, target.slab_bytes(SlabPlan(1, target.depth))))
        thin, thick = 0, target.depth
        while thin < thick:
            middle = (thin + thick + 1) // 2
            fits = target.slab_bytes(SlabPlan(middle, target.depth)) <= room
            thin, thick = (middle, thick) if fits else (thin, middle - 1)
        self.plan = SlabPlan(max(thin, 1), target.depth)
        needed = self.stored_bytes() + target.slab_bytes(self.plan) + self.reserve_bytes
        if thin == 0:
            plane = f"{target.shape[3]}x{target.shape[4]} with {target.shape[1]} channels"
            raise ParamsError(
                f"memory_gib={self.memory_gib:g} is too small: one row of a layer of {plane} needs "
                f"{needed / GIB:.3g} GiB; give at least twice that, or crop the scan in plane"
            )
        self.peak_bytes = max(self.peak_bytes, needed)
        if not self.dry and math.isfinite(self.memory_gib):
            give_back()


class Field:
    """A volume (batch, channel, z, y, x) of `element_bytes` a number, read by rows: stored, or computed by a recipe."""

    def __init__(self, origin: "Tensor | Recipe", budget: Budget, element_bytes: int) -> None:
        self.shape: TensorShape = tuple(origin.shape)  # type: ignore[assignment] # a tensor's shape has no fixed length
        self._origin = origin
        self._budget = budget
        self.element_bytes = element_bytes
        self._recent: tuple[int, Tensor] | None = None
        if isinstance(origin, Tensor):
            budget.stored.add(self)

    @property
    def depth(self) -> int:
        """Number of rows."""
        return self.shape[2]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        batch, channels, _, height, width = self.shape
        return batch * channels * height * width * self.element_bytes

    def read(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop): (batch, channel, stop - start, y, x). Not to be written to."""
        if isinstance(self._origin, Tensor):
            return self._origin[:, :, start:stop]
        if not self._origin.rolling:
            return self._origin.compute(start, stop)
        first, recent = self._recent or (start, None)
        last = first + recent.shape[2] if recent is not None else start
        if recent is None or not first <= start < last or stop > last:
            kept = [recent[:, :, start - first :]] if recent is not None and first <= start < last else []
            rows = [*kept, *self._pieces(last if kept else start, stop)]
            recent, first = rows[0] if len(rows) == 1 else torch.cat(rows, dim=2), start
            self._recent = first, recent
        return recent[:, :, start - first : stop - first]

    def _pieces(self, start: int, stop: int) -> Iterator[Tensor]:
        assert not isinstance(self._origin, Tensor)
        piece = self._budget.plan.piece(self.depth)
        for first in range(start, stop, piece):
            yield self._origin.compute(first, min(first + piece, stop))

    def fresh(self, start: int, stop: int) -> Tensor:
        """Rows [start, stop), (batch, channel, rows, y, x), for a reader that reads each once: nothing is kept."""
        assert not isinstance(self._origin, Tensor)
        return self._origin.compute(start, stop)

    @property
    def lends(self) -> bool:
        """Whether `read` gives a view of rows that are held anyway."""
        return isinstance(self._origin, Tensor) or self._origin.rolling

    @property
    def is_stored(self) -> bool:
        """Whether all rows are in memory."""
        return isinstance(self._origin, Tensor)

    def passing_bytes(self, rows: int) -> int:
        """Memory of `rows` that were read, beside what the field holds anyway."""
        return 0 if self.lends else min(rows, self.depth) * self.row_bytes

    def scratch_bytes(self, rows: int, plan: SlabPlan, *, keep: bool = True) -> int:
        """The largest passing memory, in bytes, while `rows` are read; `plan` is told the rows kept, if `keep`."""
        if isinstance(self._origin, Tensor):
            return 0
        rows = min(rows, self.depth)
        if not self._origin.rolling:
            return self._origin.scratch_bytes(rows, plan)
        piece = min(rows, plan.piece(self.depth))
        scratch = self._origin.scratch_bytes(piece, plan)
        if not keep:
            return scratch
        plan.held[self] = max(rows, plan.held.get(self, 0))
        return max(scratch, (rows + piece) * self.row_bytes)

    def slab_bytes(self, plan: SlabPlan) -> int:
        """Memory of a pass over this field: the rows kept by it and its sources, and the largest scratch."""
        scratch = self.scratch_bytes(plan.rows, plan, keep=False) + 2 * min(self.row_bytes * plan.rows, 4 * PART)
        return scratch + sum(f.row_bytes * rows for f, rows in plan.held.items()) + sum(plan.kernels.values())

    def forget(self) -> None:
        """Drop the rows that were kept for the next read."""
        self._recent = None

    def sweep(self) -> Iterator[Tensor]:
        """One pass over all rows, in slabs (batch, channel, rows, y, x) that the budget allows; stored if that fits."""
        store = not isinstance(self._origin, Tensor) and self._budget.may_store(self)
        yield from self._pass(store=store)

    def whole(self) -> Tensor:
        """All rows (batch, channel, z, y, x), stored whatever the budget had planned; empty on meta in a dry run."""
        for slab in self._pass(store=not isinstance(self._origin, Tensor)):
            del slab
        assert isinstance(self._origin, Tensor)
        return self._origin

    def _pass(self, *, store: bool) -> Iterator[Tensor]:
        if store:
            self._budget.stored.add(self)
        self._budget.start_pass(self)
        whole = torch.empty(self.shape if self._budget.dry else 0, device="meta")
        rows = self._budget.plan.rows
        for start in range(0, 0 if self._budget.dry else self.depth, rows):
            slab = self._rows_once(start, min(start + rows, self.depth))
            if store and start == 0:
                whole = _empty_like(slab, self.shape)
            if store:
                whole[:, :, start : start + rows] = slab
            yield slab
            del slab  # or it would stay while the next one is computed
        for kept in self._budget.plan.held:
            kept.forget()
        if store:
            self._origin = whole

    def _rows_once(self, start: int, stop: int) -> Tensor:
        return self.read(start, stop) if self.is_stored else self.fresh(start, stop)

    def through(self, layer: LocalLayer) -> "Field":
        """The field that a local layer makes of this one."""
        return self._derived(_Local(self, layer))

    def normalised(self, norm: nn.GroupNorm, *, silu: bool) -> "Field":
        """The field after a group norm with the statistics of the whole volume and, if asked, a SiLU."""
        mean, variance = group_moments(self.sweep(), norm, self.shape[0])
        return self._derived(_Normalised(self, norm, mean, variance, silu=silu))

    def __add__(self, other: "Field") -> "Field":
        return self._derived(_Sum(self, other))

    def _derived(self, recipe: Recipe) -> "Field":
        return Field(recipe, self._budget, self.element_bytes)


class _Local:
    def __init__(self, source: Field, layer: LocalLayer) -> None:
        self.source, self.layer = source, layer
        self.shape = layer.output_shape(source.shape)
        self.rolling = layer.source_rows(0, 1) != (0, 1)

    def compute(self, start: int, stop: int) -> Tensor:
        first, last = self.layer.source_rows(start, stop)
        x = self.source.read(max(first, 0), min(last, self.source.depth))
        return self.layer.rows(x, start, stop, self.source.depth)

    def scratch_bytes(self, rows: int, plan: SlabPlan) -> int:
        first, last = self.layer.source_rows(0, rows)
        needed = min(last - first, self.source.depth)
        element = self.source.element_bytes
        plan.kernels[self.layer] = self.layer.kernel_numbers * element
        _, channels, _, height, width = self.shape
        result = self.shape[0] * channels * rows * height * width * element
        own = self.source.passing_bytes(needed) + result
        own += self.layer.scratch_numbers(self.source.shape, rows) * element
        return max(self.source.scratch_bytes(needed, plan), own)


class _Sum:
    rolling = True

    def __init__(self, main: Field, skip: Field) -> None:
        self.main, self.skip = main, skip
        self.shape = main.shape

    def compute(self, start: int, stop: int) -> Tensor:
        if self.skip.is_stored:
            return self.main.fresh(start, stop).add_(self.skip.read(start, stop))
        # The skip first: the main branch reads further ahead, and its source then forgets these rows.
        skipped = self.skip.read(start, stop)
        total = skipped.clone() if self.skip.lends else skipped
        return total.add_(self.main.fresh(start, stop))

    def scratch_bytes(self, rows: int, plan: SlabPlan) -> int:
        main = self.main.scratch_bytes(rows, plan, keep=False)
        if self.skip.is_stored:
            return main
        return max(rows * self.main.row_bytes + main, self.skip.scratch_bytes(rows, plan))


class _Normalised:
    rolling = False

    def __init__(self, source: Field, norm: nn.GroupNorm, mean: Tensor, variance: Tensor, *, silu: bool) -> None:
        self.source, self.silu = source, silu
        self.shape = source.shape
        inverse_std = (variance + norm.eps).rsqrt()
        terms = mean, inverse_std * norm.weight, norm.bias.expand_as(mean)
        dtype = torch.promote_types(norm.weight.dtype, torch.float32)
        self.mean, self.slope, self.offset = (term.to(dtype)[:, :, None, None, None] for term in terms)

    def compute(self, start: int, stop: int) -> Tensor:
        x = self.source.read(start, stop)
        result = torch.empty_like(x, dtype=torch.promote_types(x.dtype, self.mean.dtype))
        for part, target in zip(in_parts(x), in_parts(result), strict=True):
            # The mean first: folded into the offset it would cancel badly in constant regions such as air.
            torch.sub(part, self.mean, out=target).mul_(self.slope).add_(self.offset)
            if self.silu:
                functional.silu(target, inplace=True)
        return result

    def scratch_bytes(self, rows: int, plan: SlabPlan) -> int:
        own = self.source.passing_bytes(rows) + rows * self.source.row_bytes
        return max(self.source.scratch_bytes(rows, plan), own)


def _empty_like(rows: Tensor, shape: TensorShape) -> Tensor:
    """A tensor of another shape with the memory format of these rows."""
    last = rows.is_contiguous(memory_format=torch.channels_last_3d) and not rows.is_contiguous()
    kind = torch.channels_last_3d if last else torch.contiguous_format
    return torch.empty(shape, dtype=rows.dtype, device=rows.device, memory_format=kind)


def in_slabs(network: Callable[[Field], Field], x: Tensor, budget: Budget) -> Tensor:
    """`network(x)` for a network of local layers and group norms, slab by slab and without gradients.

    Args:
        network: makes a `Field` of a `Field`.
        x: (batch, channel, z, y, x).
        budget: bounds the memory.

    Returns:
        What `network` makes of the whole tensor, within rounding, on the device of `x`.

    Raises:
        ParamsError: the budget is too small; found before anything is computed.
    """
    predicted_peak_gib(network, x, budget)
    with torch.no_grad():
        return network(Field(x, budget, x.element_size())).whole()


def predicted_peak_gib(network: Callable[[Field], Field], x: Tensor, budget: Budget) -> float:
    """The memory that `in_slabs` takes at its peak, input and output included, weights and runtime not.

    Args:
        network: makes a `Field` of a `Field`.
        x: the input, or a tensor of its shape on the meta device; nothing is computed.
        budget: bounds the memory; it is not changed.

    Returns:
        GiB.

    Raises:
        ParamsError: the budget is too small.
    """
    plan = Budget(budget.memory_gib, dry=True)
    with torch.no_grad():
        network(Field(x, plan, x.element_size())).whole()
    return plan.peak_bytes / GIB
