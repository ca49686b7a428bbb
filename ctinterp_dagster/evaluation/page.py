"""The report as one HTML file that asks nothing of the network."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup

from ctinterp_dagster.decision import Decision
from ctinterp_dagster.errors import EvaluationError
from ctinterp_dagster.evaluation.evidence_tables import EVIDENCE_COMMANDS, Measured, Table, shown
from ctinterp_dagster.evaluation.figures import Curve, gain_chart, position_chart, training_chart
from ctinterp_dagster.evaluation.metrics import end_slices
from ctinterp_dagster.evaluation.statistics import (
    Calibration,
    Difference,
    Interval,
    best_baseline,
    by_task,
    compare,
    summarise,
    without_references,
)
from ctinterp_dagster.methods import judged, title


@dataclass(frozen=True)
class Column:
    """A metric as a column: its name in the rows, its heading, its window or unit, decimals, and which way is better.

    `better` is +1 where more is better, -1 where less is.
    """

    metric: str
    heading: str
    unit: str
    decimals: int
    better: int


METRIC_COLUMNS = (
    Column("psnr_db", "PSNR", "dB, [-1000, 1000]", 2, 1),
    Column("psnr_all_db", "PSNR", "with end slices", 2, 1),
    Column("psnr_rplhr_db", "PSNR", "dB, [-1024, 2048]", 2, 1),
    Column("psnr_soft_db", "PSNR", "dB, [-160, 240]", 2, 1),
    Column("ssim", "SSIM", "axial", 4, 1),
    Column("ssim_3d", "SSIM", "3D", 4, 1),
    Column("mae_hu", "MAE", "HU", 1, -1),
    Column("residual_hu", "Residual", "|Ax - y|, HU", 3, -1),
)


@dataclass(frozen=True)
class View:
    """A picture of one case.

    Attributes:
        title: the heading, such as `case 3, soft tissue`.
        alt: what a reader who cannot see it should know.
        png: the file's bytes.
    """

    title: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class ReportData:
    """All that the report shows.

    Attributes:
        rows: a line a case and method: case, method, factor, profile, the metrics of `METRIC_COLUMNS`, and
            noise_floor_db, which may be empty.
        positions: by task (`box-x5`), by method: MAE in HU by position in the thick slice.
        views: pictures.
        losses: training curves by name; empty where nothing was trained.
        calibration: by task; empty where the model gives no standard deviation.
        decision: of the promotion gate; None where it has not been asked.
        coverage_90: the shares of the truth that the 90 % interval has to hold, smallest and largest.
        evidence: tables of what the run measured of its first task beyond scores.
        measured: what longer commands measured, by the names of `EVIDENCE_COMMANDS`; absent where they were not run.
        model: hash of the file of the run's model.
        phantoms: whether the test cases are built-in phantoms.
        provenance: by group (`packages`, `params`, `hashes`, `device`), name and value.
        seed: of the bootstrap.
    """

    rows: pd.DataFrame
    positions: Mapping[str, Mapping[str, Sequence[float]]]
    views: Sequence[View]
    losses: Mapping[str, Curve]
    calibration: Mapping[str, Calibration]
    decision: Decision | None
    coverage_90: tuple[float, float]
    evidence: Sequence[Table]
    measured: Mapping[str, Measured]
    model: str
    phantoms: bool
    provenance: Mapping[str, Mapping[str, str]]
    seed: int


@dataclass(frozen=True)
class Cell:
    """A mean with its interval as text; `best` marks the best of its column."""

    mean: str
    interval: str
    best: bool


class MethodRow(NamedTuple):
    """A method's line of a task's table: the cells of `METRIC_COLUMNS`, how far it is from the noise floor, as text."""

    method: str
    cells: Sequence[Cell]
    below: str


class LongerMeasurement(NamedTuple):
    """What a longer command measured: its name, where that comes from, its tables."""

    name: str
    origin: Sequence[str]
    tables: Sequence[Table]


@dataclass(frozen=True)
class TaskSection:
    """What the template shows of one task."""

    name: str
    cases: int
    ends: int
    gain: Difference
    floor_db: float | None
    table: Sequence[MethodRow]
    per_case: Sequence[Mapping[str, str]]
    gains: Markup
    positions: Markup | None
    calibration: Calibration | None


def render(report: ReportData) -> str:
    """The whole page: style, pictures and charts are inside, it runs no script and loads nothing.

    Args:
        report: what the page shows.

    Returns:
        The text of the file.

    Raises:
        EvaluationError: there are no rows, no rows of the model, or a method was not scored on every case of a task.
    """
    if report.rows.empty:
        raise EvaluationError("the report has no rows: evaluate at least one case")
    tasks = [_section(name, rows, report) for name, rows in by_task(report.rows)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["title_of"] = title
    environment.filters["signed"] = lambda value: f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")
    environment.filters["data_url"] = lambda png: "data:image/png;base64," + base64.b64encode(png).decode()
    return environment.get_template("page.html").render(
        report=report,
        tasks=tasks,
        columns=METRIC_COLUMNS,
        model_title=judged().title,
        longer=[_longer(name, report.measured.get(name), report.model) for name in EVIDENCE_COMMANDS],
        training=Markup(training_chart(report.losses)) if report.losses else None,  # noqa: S704 - our own SVG
    )


def _longer(name: str, measured: Measured | None, model: str) -> LongerMeasurement:
    return LongerMeasurement(name, shown(measured, name, model), measured.tables if measured else ())


def _section(name: str, rows: pd.DataFrame, report: ReportData) -> TaskSection:
    rivals = without_references(rows)
    differences = compare(rivals, "psnr_db", method=judged().name, higher_is_better=True, seed=report.seed)
    titled = [Difference(title(d.baseline), d.interval, d.wins, d.by_case) for d in differences]
    gain = best_baseline(rivals, "psnr_db", method=judged().name, higher_is_better=True, seed=report.seed)
    floors = rows.loc[rows["method"] == judged().name, "noise_floor_db"].dropna()
    floor = None if floors.empty else float(floors.mean())
    errors = {title(method): values for method, values in report.positions.get(name, {}).items()}
    chart = position_chart(errors, highlight=judged().title) if errors else None
    return TaskSection(
        name=name,
        cases=int(rows["case"].nunique()),
        ends=end_slices(float(rows["factor"].iloc[0])),
        gain=gain,
        floor_db=floor,
        table=_table(rows, floor, report.seed),
        per_case=_per_case(rows),
        gains=_inline(gain_chart(titled, unit="dB"), name),
        positions=None if chart is None else _inline(chart, name),
        calibration=report.calibration.get(name),
    )


def _inline(svg: str, task: str) -> Markup:
    """The chart with ids that no other task's chart has."""
    for mark in ('id="', "url(#", 'xlink:href="#'):
        svg = svg.replace(mark, f"{mark}{task}-")
    return Markup(svg)  # noqa: S704 - drawn by figures.py, which escapes the names


def _table(rows: pd.DataFrame, floor_db: float | None, seed: int) -> list[MethodRow]:
    means = [summarise(rows, column.metric, seed=seed) for column in METRIC_COLUMNS]
    table = []
    for method in dict.fromkeys(rows["method"]):
        cells = [_cell(column, intervals, method) for column, intervals in zip(METRIC_COLUMNS, means, strict=True)]
        psnr = means[0][method].mean
        below = "\N{EN DASH}" if floor_db is None else f"{psnr - floor_db:+.1f}".replace("-", "\N{MINUS SIGN}")
        table.append(MethodRow(method, cells, below))
    return table


def _cell(column: Column, intervals: Mapping[str, Interval], method: str) -> Cell:
    best = max(column.better * round(interval.mean, column.decimals) for interval in intervals.values())
    interval = intervals[method]
    spread = (
        ""
        if interval.low is None or interval.high is None
        else f"{interval.low:.{column.decimals}f}\N{EN DASH}{interval.high:.{column.decimals}f}"
    )
    return Cell(
        f"{interval.mean:.{column.decimals}f}",
        spread,
        column.better * round(interval.mean, column.decimals) == best,
    )


def _per_case(rows: pd.DataFrame) -> list[dict[str, str]]:
    """A line a case and method, cases in order, numbers as text."""
    ordered = rows.sort_values("case", kind="stable")
    return [
        {
            "case": str(row["case"]),
            "method": str(row["method"]),
            **{column.metric: f"{row[column.metric]:.{column.decimals}f}" for column in METRIC_COLUMNS},
        }
        for row in ordered.to_dict("records")
    ]
