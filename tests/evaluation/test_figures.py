import io
import re
from importlib.resources import files
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.figures import Look, Voxel, gain_chart, position_chart, training_chart, views
from ctinterp_dagster.evaluation.statistics import Difference, Interval
from ctinterp_dagster.methods import judged, rows
from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import SOFT_TISSUE

LOOK = Look(SOFT_TISSUE, 1000.0, Voxel(5, 10, 12))
SPACING_MM = (2.0, 1.0, 1.0)


def volumes() -> tuple[dict[str, FloatArray], FloatArray]:
    truth = np.random.default_rng(0).normal(40, 50, (12, 20, 24)).astype(np.float32)
    return {"thick": truth * 0, "model": truth + 5}, truth


def test_views_are_the_same_bytes_each_time_and_carry_no_metadata() -> None:
    estimates, truth = volumes()
    first = views(estimates, truth, spacing_mm=SPACING_MM, look=LOOK)
    assert first == views(estimates, truth, spacing_mm=SPACING_MM, look=LOOK)
    picture = Image.open(io.BytesIO(first))
    assert (picture.format, picture.mode) == ("PNG", "P")
    assert picture.info == {}


def test_a_coronal_panel_is_as_high_as_the_scan_is_long() -> None:
    estimates, truth = volumes()
    short = Image.open(io.BytesIO(views(estimates, truth, spacing_mm=SPACING_MM, look=LOOK)))
    tall = Image.open(io.BytesIO(views(estimates, truth, spacing_mm=(4.0, 1.0, 1.0), look=LOOK)))
    # coronal and sagittal grow by 24 mm each; a panel is 24 mm and 220 pixels wide
    assert tall.height - short.height == pytest.approx(2 * 220, abs=8)
    assert tall.width == short.width


def test_a_perfect_estimate_has_a_black_error_panel() -> None:
    _, truth = volumes()
    png = views({"model": truth}, truth, spacing_mm=SPACING_MM, look=LOOK)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    error = pixels[60:-20, -180:-40]
    assert error.max() < 10
    assert pixels[60:-20, 60:200].max() > 200


def test_z_runs_up_in_the_coronal_plane() -> None:
    truth = np.full((12, 20, 24), -160, np.float32)
    truth[6:] = 240
    png = views({"model": truth}, truth, spacing_mm=SPACING_MM, look=LOOK)
    column = np.asarray(Image.open(io.BytesIO(png)).convert("L"))[-180:-10, 100]
    assert column[10] > 245
    assert column[-10] < 10


def test_a_millimetre_is_as_long_along_z_as_in_the_plane() -> None:
    truth = np.full((12, 24, 24), 240, np.float32)
    png = views({"model": truth}, truth, spacing_mm=(4.0, 1.0, 1.0), look=LOOK)
    white = np.asarray(Image.open(io.BytesIO(png)).convert("L")) > 245
    left, right = np.flatnonzero(np.diff(white[150].astype(int)))[:2]  # the edges of the first panel
    height = (white[:, left + 40 : right - 40].mean(axis=1) > 0.9).sum()
    # a panel of 24 mm and two of 48 mm, each 24 mm wide
    assert height / (right - left) == pytest.approx(5, rel=0.01)


def test_views_refuse_other_shapes_and_points_outside() -> None:
    estimates, truth = volumes()
    with pytest.raises(EvaluationError, match="estimates of the truth's shape"):
        views({"model": truth[1:]}, truth, spacing_mm=SPACING_MM, look=LOOK)
    with pytest.raises(EvaluationError, match="estimates of the truth's shape"):
        views({}, truth, spacing_mm=SPACING_MM, look=LOOK)
    with pytest.raises(EvaluationError, match=r"point \(12, 0, 0\)"):
        views(estimates, truth, spacing_mm=SPACING_MM, look=Look(SOFT_TISSUE, 100, Voxel(12, 0, 0)))


def draw() -> list[str]:
    difference = Difference("a < b & c", Interval(1.0, 0.5, 1.5, 2), 2, (("c0", 0.7), ("c1", 1.3)))
    return [
        position_chart({"cubic": [3, 2, 3], "model": [2, 1, 2]}, highlight="model"),
        training_chart({"train": ([1, 2, 3], [1.0, 0.5, 0.2])}),
        gain_chart([difference], unit="dB"),
    ]


@pytest.fixture(scope="module")
def charts() -> list[str]:
    return draw()


def test_charts_are_well_formed_repeat_themselves_and_take_the_page_ink(charts: list[str]) -> None:
    assert draw() == charts
    for svg in charts:
        assert ET.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"
        assert "currentColor" in svg
        assert "--series-1" in svg
        assert "#0102" not in svg


def test_ids_are_unique_and_every_reference_has_its_id(charts: list[str]) -> None:
    for svg in charts:
        ids = re.findall(r'\bid="([^"]+)"', svg)
        assert len(ids) == len(set(ids))
        assert set(re.findall(r'(?:url\(#|xlink:href="#)([^")]+)', svg)) <= set(ids)


def test_every_method_of_the_table_has_a_colour_of_its_own_in_light_and_dark() -> None:
    svg = position_chart({row.title: [3, 2, 3] for row in rows()}, highlight=judged().title)
    legend = svg[svg.index('id="positions-legend') :]
    colours = re.findall(r"var\(--series-\d+, #\w+\)", legend)
    assert len(set(colours)) == len(rows())
    css = (files("ctinterp_dagster.evaluation") / "page.css").read_text()
    schemes = css.split("prefers-color-scheme: dark")
    assert len(schemes) == 2
    for scheme in schemes:
        told = dict(re.findall(r"(--series-\d+): (#\w+);", scheme))
        assert len(told) == len(set(told.values())) == len(rows())


def test_a_chart_names_every_method(charts: list[str]) -> None:
    assert all(f">{name}<" in charts[0] for name in ("cubic", "model", "part of the thick slice"))
