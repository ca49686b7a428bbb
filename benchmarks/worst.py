"""The picture of the worst cases: coronal cuts of the truth, the thick slices, methods and the standard deviation."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import BONE, LUNG, SOFT_TISSUE, Window

COLUMNS = {
    "truth": "truth", "nearest": "thick slices", "registration_projected": "registration", "model": "model",
    "sample": "one sample", "std": "deviation",
}  # fmt: skip
WINDOWS = {"lung": LUNG, "soft tissue": SOFT_TISSUE, "bone": BONE}
DEVIATION = Window("deviation", 0.0, 200.0)
REGION_MM, PANEL, MARGIN, TITLE = 40.0, 160, 4, 20  # pixels but for the first


@dataclass(frozen=True)
class Case:
    """A place that is shown.

    Attributes:
        title: what happened.
        tissue: whose window is taken.
        centre: (z, y, x) index.
        volumes: (z, y, x) HU by name, the names of `COLUMNS`.
    """

    title: str
    tissue: str
    centre: tuple[int, int, int]
    volumes: Mapping[str, FloatArray]


def panel(hu: FloatArray, centre: Sequence[int], spacing_mm: Sequence[float], window: Window) -> Image.Image:
    """The coronal cut around a place, head up, black outside of the scan."""
    halves = [round(REGION_MM / 2 / step) for step in spacing_mm]
    padded = np.pad(hu[:, centre[1]], [(halves[0],) * 2, (halves[2],) * 2], constant_values=window.low_hu)
    z, x = centre[0], centre[2]
    cut = padded[z : z + 2 * halves[0] + 1, x : x + 2 * halves[2] + 1][::-1]
    grey: npt.NDArray[np.uint8] = np.uint8(255 * window.to_unit(window.clip(cut)))
    return Image.fromarray(grey).resize((PANEL, PANEL), Image.Resampling.NEAREST)


def picture(cases: Sequence[Case], spacing_mm: Sequence[float]) -> bytes:
    """A PNG with a row a case, each 40 mm wide and high."""
    step = PANEL + MARGIN
    image = Image.new("L", (len(COLUMNS) * step - MARGIN, len(cases) * (step + TITLE) + TITLE), 0)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(13)
    for column, title in enumerate(COLUMNS.values()):
        draw.text((column * step + PANEL / 2, TITLE / 2), title, fill=255, font=font, anchor="mm")
    for row, case in enumerate(cases):
        top = TITLE + row * (step + TITLE)
        draw.text((MARGIN, top + TITLE / 2), case.title, fill=200, font=font, anchor="lm")
        for column, name in enumerate(COLUMNS):
            if name in case.volumes:
                window = DEVIATION if name == "std" else WINDOWS[case.tissue]
                shown = panel(case.volumes[name], case.centre, spacing_mm, window)
                image.paste(shown, (column * step, top + TITLE))
    out = io.BytesIO()
    image.save(out, format="PNG", optimize=True)
    return out.getvalue()
