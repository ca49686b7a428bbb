"""A scan before and after as one picture, for whoever wants to see what a run did."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.scan.window import BODY_ABOVE_HU, SOFT_TISSUE, Window, second_window

WIDTH, MARGIN, TITLE = 320, 6, 22  # pixels
MOST_HEIGHT = 4 * WIDTH  # of a plane; a scan that is longer still is shown shorter
Grey = npt.NDArray[np.uint8]


def before_after(thick: Volume, thin: Volume, steps_mm: Sequence[float] = ()) -> bytes:
    """Coronal and sagittal planes of a scan as it was measured and as it was restored, side by side, in two windows.

    Planes go through the middle of the body; lengths are physical, up to four times the width. The head is up, the
    patient's left on the right.

    Args:
        thick: what was measured.
        thin: what was made of it, over the same extent.
        steps_mm: slice distances of an uneven scan, which `thick` shows on an even grid; else its own.

    Returns:
        A PNG of grey values.
    """
    windows = SOFT_TISSUE, second_window(thick.hu)
    columns = [(window, volume) for window in windows for volume in (thick, thin)]
    middle, extent_mm = _middle(thick), [n * step for n, step in zip(thick.hu.shape, thick.spacing_mm, strict=True)]
    height = min(max(1, round(WIDTH * extent_mm[0] / max(extent_mm[1:]))), MOST_HEIGHT)
    picture = Image.new("L", (4 * (WIDTH + MARGIN) - MARGIN, 2 * (height + MARGIN) + TITLE))
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(14)
    for column, (window, volume) in enumerate(columns):
        left = column * (WIDTH + MARGIN)
        steps = (volume is thick and steps_mm) or volume.spacing_mm[:1]
        every = " and ".join(dict.fromkeys(f"{step:.3g}" for step in steps))
        title = f"{window.name.replace('_', ' ')}, slices every {every} mm"
        draw.text((left + WIDTH / 2, TITLE / 2), title, fill=255, font=font, anchor="mm")
        for row in range(2):
            width = max(1, round(WIDTH * extent_mm[2 - row] / max(extent_mm[1:])))
            plane = Image.fromarray(_plane(volume, row, middle[row], window)).resize(
                (width, height), Image.Resampling.NEAREST
            )
            picture.paste(plane, (left + (WIDTH - width) // 2, TITLE + row * (height + MARGIN)))
    out = io.BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return out.getvalue()


def _middle(volume: Volume) -> tuple[float, float]:
    """Where the body's middle lies along y and x, as parts of the plane."""
    body = np.argwhere((volume.hu > BODY_ABOVE_HU).any(axis=0))
    y, x = body.mean(axis=0) if len(body) else (n / 2 for n in volume.hu.shape[1:])
    return float(y) / volume.hu.shape[1], float(x) / volume.hu.shape[2]


def _plane(volume: Volume, row: int, part: float, window: Window) -> Grey:
    """A coronal (0) or sagittal (1) plane, grey, the head in its first line."""
    plane = np.take(volume.hu, int(part * volume.hu.shape[1 + row]), axis=1 + row)
    up, right = (1 if volume.direction[axis, axis] >= 0 else -1 for axis in (2, row))
    unit = window.to_unit(window.clip(plane[::-up, ::right]))
    return np.asarray(unit * 255, dtype=np.uint8)
