import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ctinterp_dagster.decision import Decision, Finding
from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.evidence_tables import CommandRun, Measured, Table
from ctinterp_dagster.evaluation.figures import Curve, Look, Voxel, views
from ctinterp_dagster.evaluation.page import METRIC_COLUMNS, ReportData, View, render
from ctinterp_dagster.evaluation.statistics import Calibration
from ctinterp_dagster.scan.window import SOFT_TISSUE


def rows(model_db: float = 30.0, cases: int = 3, profiles: tuple[str, ...] = ("box",)) -> pd.DataFrame:
    lines = []
    for profile in profiles:
        for case in range(cases):
            for method, psnr in (("cubic", 28.0), ("tv_projected", 29.0), ("model", model_db)):
                value = psnr + 0.1 * case
                lines.append(
                    {column.metric: value for column in METRIC_COLUMNS}
                    | {"case": f"c{case}", "method": method, "factor": 5, "profile": profile, "noise_floor_db": 43.5}
                )
    return pd.DataFrame(lines)


def report(**changes: Any) -> ReportData:
    data = ReportData(
        rows=rows(),
        positions={"box-x5": {"cubic": [3, 2, 1, 2, 3], "model": [2, 1, 1, 1, 2]}},
        views=[View("case 0, soft tissue", "Three planes of a case.", b"\x89PNG")],
        losses={"train": Curve([1, 2, 3], [1.0, 0.5, 0.2])},
        calibration={"box-x5": Calibration(0.873, 0.61)},
        decision=Decision(
            promoted=False, findings=(Finding("residual", "fail", "box-x5: residual 0.7 HU"),), challenger="1"
        ),
        coverage_90=(0.8, 0.97),
        evidence=[Table("Width of an edge", ("Method", "50 HU"), (("ctinterp model", "2.6"),))],
        measured={},
        model="a" * 64,
        phantoms=False,
        provenance={"packages": {"torch": "2.13.0"}},
        seed=0,
    )
    return replace(data, **changes)


class Tags(HTMLParser):
    """Every start tag with its attributes, and the tags that were left open."""

    void = frozenset({"meta", "img", "br", "link"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def page() -> str:
    return render(report(rows=rows(profiles=("box", "gaussian"))))


def test_the_page_is_the_same_each_time(page: str) -> None:
    assert render(report(rows=rows(profiles=("box", "gaussian")))) == page


def test_the_page_is_well_formed_and_loads_nothing(page: str) -> None:
    parsed = Tags(page)
    assert parsed.open == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in parsed.tags}
    loaded = [attrs[name] for _, attrs in parsed.tags for name in ("src", "href", "xlink:href") if name in attrs]
    beside = "provenance.json"
    assert all(url == beside or url.startswith(("#", "data:image/png;base64,")) for url in loaded)
    assert "@import" not in page
    assert not re.findall(r"url\((?!#)", page)


def test_ids_are_unique_and_links_lead_somewhere(page: str) -> None:
    parsed = Tags(page)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    links = {attrs["href"] for tag, attrs in parsed.tags if tag == "a"}
    assert links <= {"provenance.json", *(f"#{anchor}" for anchor in ids)}


def test_every_picture_has_a_text_and_every_table_its_own_scroll_box(page: str) -> None:
    parsed = Tags(page)
    assert all(attrs.get("alt") for tag, attrs in parsed.tags if tag == "img")
    assert sum(tag == "table" for tag, _ in parsed.tags) == 4 + 1
    boxes = sum(attrs.get("class") == "scroll" for _, attrs in parsed.tags)
    assert boxes == 4 + 1 + 1


def test_the_page_says_what_it_is_not(page: str) -> None:
    assert page.count("Research use only, not a medical device") == 2


def test_what_is_shown_for_reference_is_no_baseline() -> None:
    ceiling = rows().query("method == 'tv_projected'").assign(method="autoencoder_ceiling")
    with_ceiling = pd.concat([rows().query("method != 'tv_projected'"), ceiling])
    page = render(report(rows=with_ceiling))
    assert "against Cubic B-spline, the best baseline" in page
    assert page.count("Truth, encoded and decoded") == 1 + 3  # the table of means, and each case


def test_the_best_of_a_column_is_bold_with_its_interval(page: str) -> None:
    assert "<strong>30.10</strong><small>30.00\N{EN DASH}30.20</small>" in page
    assert "<strong>28.1</strong>" in page  # MAE: the least is best


def test_a_clear_gain_and_a_clear_loss_are_named(page: str) -> None:
    assert "Better than the best baseline" in page
    assert "Worse than the best baseline" in render(report(rows=rows(model_db=27.0)))


def test_one_case_has_no_interval() -> None:
    page = render(report(rows=rows(cases=1)))
    assert "one case has no interval" in page
    assert "No clear difference" in page


def test_what_is_absent_leaves_no_section() -> None:
    page = render(report(positions={}, views=[], losses={}, calibration={}, decision=None))
    assert not any(f'id="{name}"' in page for name in ("views", "training", "decision"))
    assert "Does the model know" not in page


def test_evidence_that_was_not_measured_names_its_command_and_what_was_its_model() -> None:
    page = render(report())
    assert page.count("Not measured: run python -m benchmarks.") == 5
    tables = (Table("Blobs", ("Method", "Lost"), (("model", "2 of 9"),)),)
    runs = (CommandRun("python -m benchmarks.dose dose.json a.nii", "2026-11-28", "b" * 64),)
    page = render(report(measured={"dose": Measured(runs, tables)}))
    assert page.count("Not measured: run python -m benchmarks.") == 4
    assert "2026-11-28: python -m benchmarks.dose dose.json a.nii" in page
    assert "Of another model than this run&#39;s: bbbbbbbbbbbb." in page
    assert "<td>2 of 9</td>" in page


def test_an_interval_of_the_evidence_breaks_before_its_bracket_only() -> None:
    page = render(report(evidence=[Table("Width", ("Method", "50 HU"), (("Cubic", "4.4 (4.1\N{EN DASH}4.5)"),))]))
    assert '<td>4.4 <span class="interval">(4.1\N{EN DASH}4.5)</span></td>' in page


def test_a_noise_floor_that_cannot_be_measured_is_said(page: str) -> None:
    assert "\N{MINUS SIGN}13.4" in page
    assert "not measurable" in render(report(rows=rows().assign(noise_floor_db=np.nan)))


def test_text_from_outside_is_escaped() -> None:
    page = render(report(provenance={"packages": {"<script>": "a & b"}}, rows=rows().replace("c0", "<b>c0")))
    assert "<script>" not in page
    assert "<b>c0" not in page


def test_a_full_report_stays_under_four_mebibytes() -> None:
    truth = np.random.default_rng(0).normal(0, 100, (200, 200, 200)).astype(np.float32)
    look = Look(SOFT_TISSUE, 200, Voxel(100, 100, 100))
    png = views({"thick": truth, "cubic": truth, "model": truth + 9}, truth, spacing_mm=(1, 1, 1), look=look)
    assert len(render(report(views=[View("case", "alt", png)] * 4)).encode()) < 4 * 2**20


def test_a_report_without_rows_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no rows"):
        render(report(rows=rows().iloc[:0]))
