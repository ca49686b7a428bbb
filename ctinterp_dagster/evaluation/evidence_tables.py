"""Evidence as tables: what a run measured of itself, and what longer commands left in `reports/evidence`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from ctinterp_dagster.evaluation.evidence import (
    BALL_HU,
    BALLS_MM,
    BLOB_HU,
    BLOB_MM,
    NOISE_HU,
    ROD_CONTRASTS_HU,
    TRUTH,
    pooled,
)
from ctinterp_dagster.evaluation.statistics import bootstrap_mean
from ctinterp_dagster.methods import Role, judged, names, title

FEWEST_CASES = 3
"""A mean over fewer has no interval that means anything."""
THICK = "nearest"
"""The thick slices as they are."""
NOTHING = "\N{EN DASH}"

EVIDENCE_COMMANDS = {
    "planted": "python -m benchmarks.planted reports/evidence/planted.json THIN ...",
    "physics": "python -m benchmarks.physics reports/evidence/physics.json THIN ...",
    "tasks": "python -m benchmarks.tasks reports/evidence/tasks.json THIN ...",
    "radiomics": "python -m benchmarks.radiomics reports/evidence/radiomics.json THIN ...",
    "dose": "python -m benchmarks.dose reports/evidence/dose.json THIN ...",
}
"""What costs more than a run may, and the command that measures it, by the name of the file in `reports/evidence`."""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: a sentence, or a few words.
        columns: headings.
        rows: a text a column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __str__(self) -> str:
        """The title and the table in Markdown."""
        lines = [self.columns, ("---",) * len(self.columns), *self.rows]
        text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{self.title}\n\n{text}" if self.title else text


@dataclass(frozen=True)
class CommandRun:
    """A command that measured some of a record: its words, its day (YYYY-MM-DD), and the hash of the model's file."""

    command: str
    date: str
    model: str


@dataclass(frozen=True)
class Measured:
    """What a file of `reports/evidence` holds: the commands that filled it, and their tables."""

    runs: tuple[CommandRun, ...]
    tables: tuple[Table, ...]


def run_tables(rows: pd.DataFrame, *, seed: int) -> Iterator[Table]:
    """The tables of what a run measured of itself.

    Args:
        rows: the lines of `evidence.csv`.
        seed: of the bootstrap.

    Yields:
        Tables, those of planted structures first.
    """
    cases = rows["case"].nunique()
    methods = [name for name in dict.fromkeys(rows["method"]) if name != TRUTH]

    def cell(method: str, measure: str, at: str, decimals: int | None) -> str:
        lines = rows[(rows["method"] == method) & (rows["measure"] == measure) & (rows["at"] == at)]
        if lines.empty:
            return NOTHING
        if decimals is None:
            share, count = pooled(lines)
            return f"{round(share * count)} of {count}"
        interval = bootstrap_mean(lines["value"].to_numpy(float), seed=seed)
        if interval.cases < FEWEST_CASES:
            return f"{interval.mean:.{decimals}f}"
        return f"{interval.mean:.{decimals}f} ({interval.low:.{decimals}f}\N{EN DASH}{interval.high:.{decimals}f})"

    def by_method(title: str, names: Sequence[str], measure: str, places: Sequence[str], decimals: int | None) -> Table:
        return Table(
            title,
            ("Method", *places),
            tuple((_titled(name), *(cell(name, measure, at, decimals) for at in places)) for name in names),
        )

    few, contrasts = _few(cases), [f"{hu:g} HU" for hu in ROD_CONTRASTS_HU]
    sizes = [f"{size:g} mm" for size in BALLS_MM]
    title = "Width of a planted edge along z, full width at half maximum in mm, by its contrast"
    yield by_method(title + few, (TRUTH, *methods), "width_mm", contrasts, 1)
    title = f"Share of the contrast that is kept of planted balls of {BALL_HU:g} HU, by diameter"
    yield by_method(title + few, methods, "kept", sizes, 2)
    yield by_method("How many of these balls keep less than half", methods, "lost_balls", sizes, None)
    at = f"{BLOB_HU:g} HU"
    yield Table(
        f"Bright blobs of {BLOB_MM:g} mm and {BLOB_HU:g} HU or more that nobody planted",
        ("Method", "Invented, of found", "Lost, of the truth's"),
        tuple((_titled(name), cell(name, "invented", at, None), cell(name, "lost", at, None)) for name in methods),
    )
    yield _errors(rows, cases, cell)
    ranked = rows[rows["measure"] == "ranking"]
    yield Table(
        "Area under the ROC curve of the standard deviation for the worst tenth of voxels by |error|; 0.5 is chance",
        ("Case", "Area"),
        tuple((str(row["case"]), f"{row['value']:.2f}") for row in ranked.to_dict("records")),
    )


CellText = Callable[[str, str, str, int | None], str]


def _errors(rows: pd.DataFrame, cases: int, cell: CellText) -> Table:
    """Mean error by tissue and added noise: the thick slices, the best classical method of the line, the model."""
    errors = rows[rows["measure"] == "error_hu"]
    rivals = [name for name in names(Role.RIVAL) if name != THICK and name in set(errors["method"])]
    lines = []
    for noise in NOISE_HU:
        for at in dict.fromkeys(at for at in errors["at"] if at.endswith(f"+{noise:g} HU")):
            means = errors[errors["at"] == at].groupby("method")["value"].mean()
            best = min(rivals, key=means.__getitem__, default=THICK)
            lines.append((at, *(cell(name, "error_hu", at, 1) for name in (THICK, best, judged().name))))
    return Table(
        "Mean |error| in HU by tissue and by noise that was added to the thin scan; the truth is without it"
        + _few(cases),
        ("Tissue, noise", "Thick slices", "Best classical", title(judged().name)),
        tuple(lines),
    )


def _titled(method: str) -> str:
    return "Truth" if method == TRUTH else title(method)


def _few(cases: int) -> str:
    """What is said of too few cases, after a title."""
    if cases >= FEWEST_CASES:
        return f"; {cases} cases, 95 % bootstrap interval over cases"
    return f". {cases} case{'' if cases == 1 else 's'}: fewer than {FEWEST_CASES}, no interval"


def shown(measured: Measured | None, name: str, model: str) -> Sequence[str]:
    """Sentences on where the tables of a name come from: date and command of each run, and whether the model differs.

    Args:
        measured: what its file holds; None where there is none, and the sentence is the command that measures.
        name: of its file without `.json`, a key of `EVIDENCE_COMMANDS`.
        model: hash of the file of the run's own model.

    Returns:
        One sentence or more.
    """
    if measured is None:
        return [f"Not measured: run {EVIDENCE_COMMANDS[name]}"]
    sentences = [f"{run.date}: {run.command}" for run in measured.runs]
    others = sorted({run.model[:12] for run in measured.runs if run.model != model})
    return [*sentences, *(f"Of another model than this run's: {other}." for other in others)]
