"""Pictures of estimates as PNG and charts as SVG, the same bytes each time.

Charts take their ink from CSS (`currentColor` and `--series-1`, ...), so that one SVG inside a page suits light and
dark; on its own it falls back to colours for white paper.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.statistics import Difference
from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import Window


class Curve(NamedTuple):
    """A loss by the step of the training."""

    steps: Sequence[float]
    values: Sequence[float]


Points = tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]

# Placeholders that no chart uses otherwise, and what the page makes of them. There is a series colour for every method:
# the first are Okabe and Ito's, darkened for white paper; the page has brighter ones for the dark.
INK, FAINT = "#010203", "#010204"
SERIES = (
    "#a83a00", "#0064a6", "#00775a", "#9c4a7d", "#7a6a00", "#00909e", "#5c5c5c", "#5b2fa0", "#d0003c", "#1f1f1f",
)  # fmt: skip
MARKERS = "osD^vPX*hp"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "ctinterp",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.35,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
PANEL_INCHES, DPI = 2.2, 100
ERROR_SHARE = 0.25  # |error| is drawn up to this share of the window's width


class Voxel(NamedTuple):
    """Indices of a voxel."""

    z: int
    y: int
    x: int


@dataclass(frozen=True)
class Look:
    """How a scan is looked at.

    Attributes:
        window: black and white.
        region_mm: edge of the cube that is shown, around the point; the whole scan where that is smaller.
        point: the voxel in which the three planes meet.
    """

    window: Window
    region_mm: float
    point: Voxel


def views(
    estimates: Mapping[str, FloatArray], truth_hu: FloatArray, *, spacing_mm: tuple[float, float, float], look: Look
) -> bytes:
    """Axial, coronal and sagittal planes (rows) of the estimates, the truth and the last estimate's |error| (columns).

    Lengths are physical: a millimetre is as long along z as in the plane. z runs up, as with slices that are stored
    from the feet to the head.

    Args:
        estimates: by title, (z, y, x) HU on the grid of the truth; the last one is the model's.
        truth_hu: (z, y, x) HU.
        spacing_mm: (z, y, x).
        look: window, region and point.

    Returns:
        A PNG with 256 colours: 128 grey levels and 128 of the error scale.

    Raises:
        EvaluationError: no estimate, another shape, or a point outside the scan.
    """
    if not estimates or any(volume.shape != truth_hu.shape for volume in estimates.values()):
        shapes = {title: volume.shape for title, volume in estimates.items()}
        raise EvaluationError(
            f"views need estimates of the truth's shape {truth_hu.shape} (z, y, x), got {shapes}: make them again"
        )
    if not all(0 <= index < size for index, size in zip(look.point, truth_hu.shape, strict=True)):
        raise EvaluationError(
            f"point {tuple(look.point)} (z, y, x) is outside a scan of shape {truth_hu.shape}: give one inside"
        )
    region = _region(truth_hu.shape, spacing_mm, look)
    extent = [(part.stop - part.start) * step for part, step in zip(region, spacing_mm, strict=True)]
    panels = {**estimates, "truth": truth_hu}
    heights = [extent[1], extent[0], extent[0]]
    figure, axes = _canvas(len(panels) + 1, [height / extent[2] for height in heights])
    for row, name in enumerate(("axial", "coronal", "sagittal")):
        planes = {title: _plane(volume, row, region, look.point) for title, volume in panels.items()}
        error = np.abs(planes[list(estimates)[-1]] - planes["truth"])
        aspect = _aspect(row, spacing_mm)
        origin = "upper" if row == 0 else "lower"
        for axis, plane in zip(axes[row], planes.values(), strict=False):
            axis.imshow(
                plane, cmap="gray", vmin=look.window.low_hu, vmax=look.window.high_hu, aspect=aspect, origin=origin
            )
        top = ERROR_SHARE * look.window.width_hu
        axes[row][-1].imshow(error, cmap="inferno", vmin=0, vmax=top, aspect=aspect, origin=origin)
        axes[row][0].set_ylabel(name, color="white", fontsize=10)
    for axis, title in zip(axes[0], [*panels, f"|error| 0-{top:g} HU"], strict=True):
        axis.set_title(title, color="white", fontsize=10)
    return _palette_png(figure)


def _region(shape: tuple[int, ...], spacing_mm: tuple[float, float, float], look: Look) -> tuple[slice, ...]:
    sides = [min(size, max(2, round(look.region_mm / step))) for size, step in zip(shape, spacing_mm, strict=True)]
    starts = [min(max(at - side // 2, 0), size - side) for at, side, size in zip(look.point, sides, shape, strict=True)]
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def _plane(volume: FloatArray, axis: int, region: tuple[slice, ...], point: tuple[int, int, int]) -> FloatArray:
    index = tuple(point[a] if a == axis else region[a] for a in range(3))
    return np.asarray(volume[index])


def _aspect(axis: int, spacing_mm: tuple[float, float, float]) -> float:
    down, across = (step for a, step in enumerate(spacing_mm) if a != axis)
    return down / across


def _canvas(across: int, heights: Sequence[float]) -> tuple[Figure, npt.NDArray[np.object_]]:
    figure = Figure(
        figsize=(across * PANEL_INCHES, sum(heights) * PANEL_INCHES + 0.3),
        dpi=DPI,
        facecolor="black",
        layout=ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.04, wspace=0, hspace=0),
    )
    axes = figure.subplots(len(heights), across, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        axis.spines[:].set_visible(False)
    return figure, axes


def _palette_png(figure: Figure) -> bytes:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    steps = np.linspace(0, 1, 128)
    colours = np.concatenate([np.repeat(steps[:, None], 3, axis=1), mpl.colormaps["inferno"](steps)[:, :3]])
    palette = Image.new("P", (1, 1))
    palette.putpalette((colours * 255).round().astype(np.uint8).tobytes())
    out = io.BytesIO()
    picture.quantize(palette=palette, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def position_chart(mae_hu: Mapping[str, Sequence[float]], *, highlight: str) -> str:
    """Error by position in the thick slice, one line a method, as SVG: a flat line has no artefact that repeats.

    Args:
        mae_hu: by method, MAE in HU in each equal part of the thick slices, from their lower face to their upper one.
        highlight: the method that is drawn boldly.

    Returns:
        An `svg` element; the same data give the same bytes.
    """
    points = {
        name: (np.arange(len(errors), dtype=np.float64), np.asarray(errors, dtype=np.float64))
        for name, errors in mae_hu.items()
    }
    figure, axis = _chart(3.0)
    _lines(axis, points, highlight=highlight, marked=True)
    axis.set_xticks(range(max(len(errors) for errors in mae_hu.values())))
    axis.set(xlabel="part of the thick slice", ylabel="MAE, HU")
    return _svg(figure, "positions")


def training_chart(losses: Mapping[str, Curve]) -> str:
    """Training curves on a logarithmic axis, as SVG.

    Args:
        losses: curves by name, positive.

    Returns:
        An `svg` element; the same data give the same bytes.
    """
    points = {
        name: (np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64))
        for name, (steps, values) in losses.items()
    }
    figure, axis = _chart(3.0)
    _lines(axis, points, highlight=next(iter(points)), marked=False)
    axis.set(xlabel="step", ylabel="loss", yscale="log")
    return _svg(figure, "training")


def gain_chart(differences: Sequence[Difference], *, unit: str) -> str:
    """Paired differences per baseline, as SVG: a dot a case, the mean and its interval; right of zero is better."""
    figure, axis = _chart(0.9 + 0.33 * len(differences))
    for row, difference in enumerate(reversed(differences)):
        interval = difference.interval
        gains = [gain for _, gain in difference.by_case]
        axis.plot(gains, [row] * len(gains), "o", color=FAINT, markersize=3, alpha=0.7)
        if interval.low is not None and interval.high is not None:
            axis.plot([interval.low, interval.high], [row, row], color=SERIES[0], linewidth=2.5)
        axis.plot([interval.mean], [row], "D", color=SERIES[0], markersize=6)
    axis.axvline(0, color=INK, linewidth=1)
    axis.set_yticks(range(len(differences)), [difference.baseline for difference in reversed(differences)])
    axis.set_ylim(-0.6, len(differences) - 0.4)
    axis.set_xlabel(f"gain, {unit}")
    return _svg(figure, "gains")


def _chart(height_inches: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4, height_inches), layout="constrained")
        figure.patch.set_visible(False)
        axis = figure.subplots()
        axis.patch.set_visible(False)
        axis.grid(visible=True, linewidth=0.6)
        axis.set_axisbelow(b=True)
    return figure, axis


def _lines(
    axis: Axes,
    points: Mapping[str, Points],
    *,
    highlight: str,
    marked: bool,
) -> None:
    names = sorted(points, key=lambda name: name != highlight)  # the highlighted one has the first colour
    for rank, name in enumerate(names):
        axis.plot(
            *points[name],
            label=name,
            color=SERIES[rank % len(SERIES)],
            linestyle=DASHES[rank % len(DASHES)],
            marker=MARKERS[rank % len(MARKERS)] if marked else None,
            markersize=4,
            linewidth=2.4 if name == highlight else 1.2,
            zorder=3 if name == highlight else 2,
        )
    with mpl.rc_context(STYLE):
        axis.figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8, handlelength=2.6)


def _svg(figure: Figure, name: str) -> str:
    out = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]  # a page has no room for an XML declaration
    text = re.sub(r'(\bid="|url\(#|xlink:href="#)', rf"\1{name}-", text)  # ids stay unique beside other charts
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = text.replace(INK, "currentColor").replace(FAINT, "var(--faint, #767676)")
    for rank, colour in enumerate(SERIES, start=1):
        text = text.replace(colour, f"var(--series-{rank}, {colour})")
    return text
