"""The scores of every method as tables that fit a terminal of 80 columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from ctinterp_dagster.evaluation.statistics import Interval, by_task, compare, summarise
from ctinterp_dagster.methods import judged
from ctinterp_dagster.params import task_name

SCORES = {
    "psnr_db": ("PSNR", 2), "psnr_soft_db": ("soft", 2), "ssim": ("SSIM", 4), "mae_hu": ("MAE", 1),
    "residual_hu": ("|Ax-y|", 3), "seconds": ("s", 1), "peak_rss_mib": ("MiB", 0),
}  # fmt: skip
MEANS = ("psnr_db", "psnr_soft_db", "ssim", "mae_hu")
GAINS = ("psnr_db", "psnr_soft_db")
LEGEND = "PSNR in dB, [-1000, 1000] HU; soft: of [-160, 240] HU; MAE and |Ax-y| in HU; CPU threads: {threads}"


def show(records: Sequence[Mapping[str, Any]]) -> None:
    """Print the scores of every scan, and means with intervals where a task has several."""
    rows = pd.DataFrame(records)
    for (case, profile, _), own in rows.groupby(["case", "profile", "factor"], sort=False):
        floor = own["noise_floor_db"].iloc[0]
        floor_note = "" if pd.isna(floor) else f", noise floor {floor:.2f} dB"
        table = table_of_methods(
            f"{case}: {task_name(str(profile), own['factor'].iloc[0])} to {own['spacing_mm'].iloc[0]:g} mm{floor_note}"
        )
        for title, _ in SCORES.values():
            table.add_column(title, justify="right")
        for row in own.to_dict("records"):
            table.add_row(row["method"], *(f"{row[name]:.{digits}f}" for name, (_, digits) in SCORES.items()))
        Console().print(table)
    Console().print(LEGEND.format(threads=torch.get_num_threads()), highlight=False)
    for task, own in by_task(rows):
        if len(set(own["case"])) > 1:
            show_means(own, task)


def show_means(rows: pd.DataFrame, task: str) -> None:
    """Print means over the cases of a task, and what the model gains on each method, with 95 % bootstrap intervals."""
    means = {metric: summarise(rows, metric, seed=0) for metric in MEANS}
    title = f"{task}: mean of {rows['case'].nunique()} cases with 95 % interval"
    for pair in (MEANS[:2], MEANS[2:]):
        _show_pair(rows, title, {metric: means[metric] for metric in pair})
    if judged().name not in set(rows["method"]):
        return
    gains = {
        metric: {
            gain.baseline: gain.interval
            for gain in compare(rows, metric, method=judged().name, higher_is_better=True, seed=0)
        }
        for metric in GAINS
    }
    _show_pair(rows, f"{task}: gain of the model on each, dB, paired", gains)


def _show_pair(rows: pd.DataFrame, title: str, columns: Mapping[str, Mapping[str, Interval]]) -> None:
    table = table_of_methods(title)
    for metric in columns:
        table.add_column(SCORES[metric][0], justify="right")
    for method in rows["method"].unique():
        cells = (
            interval_words(found[method], SCORES[metric][1]) if method in found else ""
            for metric, found in columns.items()
        )
        table.add_row(method, *cells)
    Console().print(table)


def table_of_methods(title: str) -> Table:
    """A table with a row a method."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    return table


def interval_words(interval: Interval, digits: int) -> str:
    """Mean (low, high), of a single case the mean."""
    mean = f"{interval.mean:.{digits}f}"
    return mean if interval.low is None else f"{mean} ({interval.low:.{digits}f}, {interval.high:.{digits}f})"
