"""What ingest made of data/raw, and which file each name stands for."""

from rich.console import Console
from rich.table import Table

from ctinterp_dagster.cli import prerequisites
from ctinterp_dagster.cli.raw_folder import table_of
from ctinterp_dagster.records import read_csv
from ctinterp_dagster.scan.identity import load_key, pseudonym
from ctinterp_dagster.scan.io import find_scans


def run() -> None:
    """Print the scans that were added, one a line.

    Raises:
        MissingInputError: there is no project here, or its ingest has not run.
    """
    layout, key = prerequisites.project(), load_key()
    here = find_scans(layout.raw, keep_headers=True) if layout.raw.exists() else []
    places = {pseudonym(found.name, key, "s"): found.name for found in here}
    table = Table("case", "patient", "split", "in data/raw")
    for row in read_csv(layout.ingest / "cases.csv"):
        table.add_row(row["case"], row["patient"], row["split"], places.get(row["case"], ""))
    console = Console()
    console.print(table)
    for row in table_of(layout.ingest / "pairs.csv"):
        console.print(f"thick partner: {places.get(row['case'], row['case'])} of {row['thin']}", markup=False)
    for row in read_csv(layout.ingest / "quarantine.csv"):
        line = f"quarantined: {places.get(row['scan'], row['scan'])}: {row['reason']}: {row['message']}"
        console.print(line, markup=False, highlight=False)
