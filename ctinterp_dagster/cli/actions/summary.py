"""The table that a run ends with."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.evaluation.statistics import by_task
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import load_params
from ctinterp_dagster.records import read_json

SCORE_COLUMNS = {
    "psnr_db": ("PSNR [-1000, 1000] dB", ".2f"),
    "psnr_soft_db": ("PSNR [-160, 240] dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "mae_hu": ("MAE HU", ".1f"),
    "residual_hu": ("|Ax - y| HU", ".2f"),
}


def run() -> None:
    """Print the scores of the last evaluation, a table a task, and what the gate decided.

    Raises:
        MissingInputError: there is no project here, or nothing was evaluated in it.
        ParamsError: params.yaml cannot be used.
    """
    layout = Layout(Path())
    params = load_params(layout.params)
    decision = read_json(layout.report("promote") / "decision.json")
    rows = pd.read_csv(layout.report("evaluate") / "per_case.csv")
    phantoms = read_json(layout.report("evaluate") / "metrics.json")["test"]["phantoms"]
    kind = "phantoms, which stand in until scans are added" if phantoms else "cases"
    console = Console(width=110)
    for task, group in by_task(rows):
        table = Table(title=f"{task}, {group['case'].nunique()} test {kind}")
        table.add_column("method")
        for title, _ in SCORE_COLUMNS.values():
            table.add_column(title, justify="right")
        for method, scores in group.groupby("method", sort=False):
            means = (format(scores[name].mean(), spec) for name, (_, spec) in SCORE_COLUMNS.items())
            table.add_row(str(method), *means)
        console.print(table)
    if params.expect.start:
        console.print(
            f"model: began with the weights of {params.expect.start} and trained on for {params.expect.steps} steps",
            soft_wrap=True,
        )
    console.print(f"decision: {'promoted' if decision['promoted'] else 'not promoted'}")
    for finding in decision["findings"]:
        console.print(f"  {finding['verdict']}: {finding['text']}", highlight=False)
    console.print(f"report: {layout.report('report') / 'index.html'}", soft_wrap=True)
