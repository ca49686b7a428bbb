"""The short form of reports/evidence for a model's card: thick slices, the best classical method and the model.

    python -m benchmarks.card reports/evidence

Prints a table in Markdown of what `planted`, `physics`, `tasks` and `radiomics` left there.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import click
import pandas as pd

from benchmarks import radiomics
from benchmarks.evidence import LUNG, best_classical, table
from ctinterp_dagster.records import read_json

Records = list[dict[str, Any]]


class Line(NamedTuple):
    """A line of the table: what was measured, by method, whether more (1) or less (-1) is better, how it is shown."""

    what: str
    values: Mapping[str, float]
    better: int
    form: str

    def cells(self) -> list[str]:
        """Its four columns."""
        best = best_classical(self.values, higher_is_better=self.better > 0)
        return [self.what, *(format(self.values[name], self.form) for name in ("nearest", best, "model"))]


def physics_lines(records: Records) -> Iterator[Line]:
    """Widths of the faces of rods, means over the scans that have them."""
    rods = [record["rods"] for record in records if "rods" in record]
    for contrast in ("50", "200", "800"):
        rows = pd.DataFrame([{k: v[0] for k, v in scan[contrast].items() if k != "rods"} for scan in rods])
        yield Line(f"edge of {contrast} HU across the slices, full width, mm", rows.mean().to_dict(), -1, ".1f")


def planted_lines(records: Records) -> Iterator[Line]:
    """Contrast that is kept of balls in lung, and blobs of 100 HU that are lost or invented."""
    rows = pd.DataFrame([row for record in records for row in record["planted"]])
    balls = rows[(rows["tissue"] == LUNG) & (rows["contrast_hu"] == 200) & (rows["kind"] == "ball")]
    for size, group in balls.groupby("size_mm"):
        sums = group.assign(kept=group["kept"] * group["places"]).groupby("method")[["kept", "places"]].sum()
        yield Line(f"ball of {size:g} mm, 200 HU: contrast kept", sums["kept"].div(sums["places"]).to_dict(), 1, ".2f")
    rows = pd.DataFrame([row for record in records for row in record["counted"]])
    blobs = rows[(rows["size_mm"] == 3) & (rows["least_hu"] == 100)]
    sums = blobs.groupby("method")[["lost", "true", "invented", "found"]].sum()
    yield Line("blobs of 3 mm, 100 HU: share lost", (sums["lost"] / sums["true"]).to_dict(), -1, ".1%")
    yield Line("the same: share invented", (sums["invented"] / sums["found"]).to_dict(), -1, ".2%")


def task_lines(records: Records) -> Iterator[Line]:
    """Volumes of planted nodules, distances of surfaces, vessels: means over nodules or scans."""
    rows = pd.DataFrame(records)
    planted = rows[rows["task"] == "nodules that were planted"]
    truth = planted[planted["method"] == "truth"].set_index(["case", "nodule"])["mm3"].rename("true_mm3")
    joined = planted.join(truth, on=["case", "nodule"])
    joined["off"] = 100 * (joined["mm3"] / joined["true_mm3"] - 1).abs()
    for size in (4, 6, 10):
        means = joined[joined["size_mm"] == size].groupby("method")["off"].mean()
        yield Line(f"nodule of {size} mm: error of the volume, %", means.to_dict(), -1, ".0f")
    for surface in ("bone", "lung"):
        means = rows[rows["task"] == surface].groupby("method")["mean_mm"].mean()
        yield Line(f"surface of {surface}: mean distance, mm", means.to_dict(), -1, ".2f")
    means = rows[rows["task"] == "vessels"].groupby("method")["recall"].mean()
    yield Line("thin vessels: share found", means.to_dict(), 1, ".3f")


def radiomics_lines(records: Records) -> Iterator[Line]:
    """Features that keep their value."""
    lines = radiomics.shares(records).rows
    values = {name: float(share.split()[0]) for name, share, _ in lines}
    yield Line("radiomic features with concordance >= 0.85", values, 1, ".2f")


LINES: dict[str, Callable[[Records], Iterator[Line]]] = {
    "physics": physics_lines,
    "planted": planted_lines,
    "tasks": task_lines,
    "radiomics": radiomics_lines,
}


@click.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Print the table of the files of FOLDER.

    Raises:
        ClickException: it holds none.
    """
    files = {name: folder / f"{name}.json" for name in LINES}
    lines = [line for name, file in files.items() if file.exists() for line in LINES[name](read_json(file)["records"])]
    if not lines:
        raise click.ClickException(
            f"{folder} has none of {', '.join(LINES)}.json: run the commands of docs/evidence.md"
        )
    print(table(["what", "thick slices", "best classical", "model"], (line.cells() for line in lines)))


if __name__ == "__main__":
    main()
