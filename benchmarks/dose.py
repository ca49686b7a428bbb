"""Error by tissue and by dose: noise is added to thin scans before they are thickened, the truth is without it.

python -m benchmarks.dose records.json THIN ...    adds the scans that records.json lacks; THIN,MM where slices
                                                   overlap; without THIN the table alone
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd

from benchmarks.evidence import MODEL, EvidenceFile, best_classical, contestants, table, thickened, thin_scan
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.evaluation.structures import REGIONS_HU, noisy, tissue_errors
from ctinterp_dagster.interpolation import Interpolator, load_checkpoint

NOISE_HU = (0, 25, 50)


def measured(argument: str, side: int, model: Interpolator) -> Iterator[dict[str, Any]]:
    """A record a noise and method."""
    case, thin, thickness_mm = thin_scan(argument, side)
    known = thickened(thin, thickness_mm).known
    methods = contestants(model)
    for noise in NOISE_HU:
        measurement = thickened(thin.with_hu(noisy(thin.hu, noise)), thickness_mm)
        for name, method in methods.items():
            errors = tissue_errors(method(measurement).mean.hu, known.hu, known.spacing_mm)
            means = {tissue: error for tissue, (error, _) in errors.items()}
            yield {"case": case, "side": side, "noise_hu": noise, "method": name, **means}


def by_tissue(records: list[dict[str, Any]]) -> Table:
    """Tissues and scans down, noise across: thick slices, the best classical method of the cell, the model."""
    rows = pd.DataFrame(records).set_index(["case", "noise_hu", "method"]).sort_index()
    of_training = {record["case"] for record in records if record.get("training")}
    lines = []
    for tissue in REGIONS_HU:
        for case in dict.fromkeys(rows.index.get_level_values("case")):
            if rows.loc[case, tissue].isna().any():
                continue
            cells = []
            for noise in NOISE_HU:
                values = {str(name): float(value) for name, value in rows.loc[(case, noise), tissue].items()}
                best = best_classical(values, higher_is_better=False)
                cells.append(" / ".join(f"{values[name]:.1f}" for name in ("nearest", best, "model")))
            training = " (training volume)" if case in of_training else ""
            lines.append([f"{tissue}, {case}{training}", *cells])
    cases = rows.index.get_level_values("case").nunique()
    few = f"Mean |error|, HU: nearest / classical / model; {cases} scans, one patient or phantom behind each number"
    return table(["tissue, scan", *(f"+ {noise} HU" for noise in NOISE_HU)], lines, f"{few}: fewer than 3, no interval")


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--side", default=96, help="pixels of the middle of each slice, 0 for all")
@click.option("--trained-on", multiple=True, metavar="CASE", help="a scan that the model was trained on; it is said")
@MODEL
def main(records: Path, scans: tuple[str, ...], side: int, trained_on: tuple[str, ...], model_file: Path) -> None:
    """Measure what RECORDS lacks, and print the table of all."""
    file = EvidenceFile(records, model_file)
    model = load_checkpoint(model_file, "cpu")
    for argument in scans:
        made = measured(argument, side, model)
        file.records += [record | {"training": record["case"] in trained_on} for record in made]
        file.save([by_tissue(file.records)])
    print(by_tissue(file.records))


if __name__ == "__main__":
    main()
