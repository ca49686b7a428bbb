"""Lossless packing of int16 volumes: linear prediction from decoded neighbours, then interleaved rANS coding.

The decoder computes with integers only, so that every machine restores the same voxels. Voxels of one hyperplane
4 z + 2 y + x do not depend on each other: numpy decodes them together, each in a lane of its own.

Sources: Lamport 1974, Communications of the ACM 17(2) (hyperplanes); Wu and Memon 1997, IEEE Transactions on
    Communications 45(4) (CALIC: prediction and contexts from neighbours); Duda 2013, arXiv:1311.2540 (rANS); Giesen
    2014, arXiv:1402.3392 (interleaved lanes that share one stream).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

RADIUS = 3  # voxels, of the neighbourhood and of the padding
NEIGHBOURS = sorted(
    (
        zyx
        for zyx in product(range(-RADIUS, RADIUS + 1), repeat=3)
        if np.dot(zyx, (4, 2, 1)) < 0 and np.dot(zyx, zyx) + zyx[0] ** 2 <= 10
    ),
    key=lambda zyx: (np.dot(zyx, zyx), zyx),
)
"""Offsets (z, y, x) of voxels on hyperplanes before the voxel's: an ellipsoid, the nearest first."""
NEAREST = 13  # of them touch the voxel
UNIT = 1 << 16  # of the weights
CLASSES = 24  # of voxels by the range of their neighbours; each has its own weights
CONTEXTS = 24  # of voxels by the neighbours' distances from the prediction; each has its own frequencies
ESCAPE = 511  # the symbol of larger residuals, whose excess is stored beside the stream
TOTAL = 1 << 15  # sum of the frequencies of a context
LOW = 1 << 16  # the smallest state of a lane; a smaller one takes in a word of 16 bits
LANES = 4096
SAMPLES = 400_000  # voxels that weights and thresholds are fitted to
ROBUST_HU = 5.0  # squares are weighted by 1 / (|residual| + this), which makes the fit nearly one of least magnitude


@dataclass(frozen=True)
class Grid:
    """A padded volume as a flat array, and the order of its voxels.

    Attributes:
        flat: padded voxels.
        order: the place of each voxel in it, hyperplane after hyperplane.
        offsets: (neighbour, 1), from a voxel's place to its neighbours'.
        ends: where each hyperplane ends in the order.
    """

    flat: Array
    order: Array
    offsets: Array
    ends: Array

    @classmethod
    def of(cls, shape: tuple[int, ...], fill: int) -> "Grid":
        """The grid of a (z, y, x) volume in which every voxel is `fill`."""
        padded = [n + 2 * RADIUS for n in shape]
        steps = np.array([padded[1] * padded[2], padded[2], 1])
        zyx = np.ogrid[tuple(slice(n) for n in shape)]
        plane = (4 * zyx[0] + 2 * zyx[1] + zyx[2]).ravel()
        place = sum((axis + RADIUS) * step for axis, step in zip(zyx, steps, strict=True)).ravel()
        return cls(
            np.full(np.prod(padded), fill, np.int32),
            place[np.argsort(plane.astype(np.min_scalar_type(plane[-1])), kind="stable")],
            (np.array(NEIGHBOURS) @ steps)[:, None],
            np.cumsum(np.bincount(plane)),
        )

    def pieces(self) -> Iterator[slice]:
        """The parts of the order that are decoded at once."""
        for start, end in pairwise((0, *self.ends.tolist())):
            for first in range(start, end, LANES):
                yield slice(first, min(first + LANES, end))

    def volume(self, shape: tuple[int, ...]) -> Array:
        """A view of the (z, y, x) voxels without the padding."""
        padded = self.flat.reshape([n + 2 * RADIUS for n in shape])
        return padded[tuple(slice(RADIUS, -RADIUS) for _ in shape)]


@dataclass(frozen=True)
class Predictor:
    """What a voxel is expected to be.

    Attributes:
        weights: (class, neighbour), in units of 1 / UNIT.
        classes: ranges of the neighbours that part the classes.
        contexts: sums of their distances from the prediction that part the contexts.
    """

    weights: Array
    classes: Array
    contexts: Array

    @classmethod
    def fit(cls, grid: Grid) -> "Predictor":
        """Robust least squares, a class at a time, on a sample of the voxels."""
        places = grid.order[:: max(1, len(grid.order) // SAMPLES)]
        near, truth = grid.flat[places + grid.offsets], grid.flat[places]
        classes = _quantiles(spread(near), CLASSES)
        chosen = np.searchsorted(classes, spread(near))
        weights = np.stack([_weights(near[:, chosen == n], truth[chosen == n]) for n in range(CLASSES)])
        distances = cls(weights, classes, classes).expect(near)[1]
        return cls(weights, classes, _quantiles(distances, CONTEXTS))

    def expect(self, near: Array) -> tuple[Array, Array]:
        """The prediction, and the sum of the neighbours' distances from it; near is (neighbour, voxel)."""
        weights = self.weights.T[:, np.searchsorted(self.classes, spread(near))]
        expected = (np.einsum("nv,nv->v", weights, near) + UNIT // 2) // UNIT
        expected = expected.clip(-(1 << 15), (1 << 15) - 1)
        return expected, np.abs(near[:NEAREST] - expected).sum(0)

    def context(self, distance: Array) -> Array:
        """The context of voxels by that sum."""
        return np.searchsorted(self.contexts, distance)


def spread(near: Array) -> Array:
    """The range of the nearest neighbours; near is (neighbour, voxel)."""
    nearest = near[:NEAREST]
    return nearest.max(0) - nearest.min(0)


def _quantiles(values: Array, parts: int) -> Array:
    return np.quantile(values, np.arange(1, parts) / parts, method="lower")


def _weights(near: Array, truth: Array) -> Array:
    rows = near.T.astype(np.float64)
    weights: Array = np.zeros(len(near))
    for _ in range(4):
        importance = 1 / (np.abs(truth - rows @ weights) + ROBUST_HU)
        normal = rows.T @ (importance[:, None] * rows)
        weights = np.linalg.lstsq(normal, rows.T @ (importance * truth), rcond=None)[0]
    return np.rint(weights.clip(-64, 64) * UNIT).astype(np.int64)


def _frequencies(symbols: Array, contexts: Array) -> Array:
    """(context, symbol): frequencies that sum to TOTAL, none of a symbol that occurs being 0."""
    cells = contexts.astype(np.int64) * (ESCAPE + 1) + symbols
    counts = np.bincount(cells, minlength=CONTEXTS * (ESCAPE + 1)).reshape(CONTEXTS, -1)
    seen = counts > 0
    room = TOTAL - seen.sum(1, keepdims=True)
    table = seen + counts * room // np.maximum(counts.sum(1, keepdims=True), 1)
    table[np.arange(CONTEXTS), table.argmax(1)] += TOTAL - table.sum(1)
    return table


def pack(volume: npt.NDArray[np.int16]) -> dict[str, Array]:
    """What `unpack` restores the (z, y, x) volume from."""
    fill = round(float(volume.mean()))
    grid = Grid.of(volume.shape, fill)
    grid.volume(volume.shape)[:] = volume
    predictor = Predictor.fit(grid)
    codes, contexts = np.empty(volume.size, np.uint16), np.empty(volume.size, np.uint8)
    for piece in grid.pieces():
        places = grid.order[piece]
        expected, distance = predictor.expect(grid.flat[places + grid.offsets])
        residual = (grid.flat[places] - expected).astype(np.int16)  # modulo 2^16
        codes[piece] = (residual << 1) ^ (residual >> 15)  # 0, -1, 1, -2, ... are 0, 1, 2, 3, ...
        contexts[piece] = predictor.context(distance)
    symbols = np.minimum(codes, ESCAPE)
    table = _frequencies(symbols, contexts)
    starts = table.cumsum(1) - table
    states, words = np.full(LANES, LOW), []
    for piece in reversed(list(grid.pieces())):
        state = states[: piece.stop - piece.start]
        frequency, start = table[contexts[piece], symbols[piece]], starts[contexts[piece], symbols[piece]]
        full = state >= frequency * (LOW // TOTAL << 16)
        words.append(state[full].astype(np.uint16))
        state[full] >>= 16
        state[:] = state // frequency * TOTAL + state % frequency + start
    return {
        "shape": np.array(volume.shape),
        "fill": np.array(fill),
        "weights": predictor.weights.astype(np.int32),
        "classes": predictor.classes,
        "contexts": predictor.contexts,
        "frequencies": table.astype(np.uint16),
        "escapes": codes[codes >= ESCAPE] - np.uint16(ESCAPE),
        "states": states.astype(np.uint32),
        "words": np.concatenate(words[::-1]),
    }


def unpack(packed: dict[str, Array]) -> npt.NDArray[np.int16]:
    """The (z, y, x) volume."""
    shape = tuple(packed["shape"].tolist())
    grid = Grid.of(shape, int(packed["fill"]))
    predictor = Predictor(packed["weights"].astype(np.int64), packed["classes"], packed["contexts"])
    table = packed["frequencies"].astype(np.int64)
    starts = table.cumsum(1) - table
    symbols = np.stack([np.repeat(np.arange(ESCAPE + 1), row) for row in table])
    states, words, word = packed["states"].astype(np.int64), packed["words"], 0
    escapes, escape = packed["escapes"], 0
    for piece in grid.pieces():
        places = grid.order[piece]
        expected, distance = predictor.expect(grid.flat[places + grid.offsets])
        context, state = predictor.context(distance), states[: len(places)]
        slot = state % TOTAL
        code = symbols[context, slot]
        state[:] = table[context, code] * (state // TOTAL) + slot - starts[context, code]
        short = np.flatnonzero(state < LOW)
        state[short] = state[short] << 16 | words[word : word + len(short)]
        word += len(short)
        large = np.flatnonzero(code == ESCAPE)
        code[large] += escapes[escape : escape + len(large)]
        escape += len(large)
        residual = (code >> 1) ^ -(code & 1)
        grid.flat[places] = (expected + residual).astype(np.int16)
    return grid.volume(shape).astype(np.int16)
