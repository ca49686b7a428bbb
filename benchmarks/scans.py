"""How long ingest takes for a large DICOM series, and looking through many for new ones; run by hand, in the root.

    python -m benchmarks.scans

Series are made in a temporary folder: one of 512x512x300, 1,000 of 4 slices of 16x16, and 1,000 folders of 100 files
for the sensor, which looks at names, sizes and times. Prints wall and CPU seconds.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from ruamel.yaml import YAML

from ctinterp_dagster.cli.preset import PRESETS, override
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.scans import survey
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline import ingest
from ctinterp_dagster.scan.io import find_scans
from ctinterp_dagster.scan.phantom import phantom
from tests.scan.conftest import ct_slice


def write_series(folder: Path, raw: np.ndarray, uid: str, patient: str) -> None:
    """One DICOM file a slice, 1 mm apart; `raw` is HU + 1024."""
    folder.mkdir(parents=True)
    for k, plane in enumerate(raw):
        tags = {"SeriesInstanceUID": uid, "PatientID": patient, "SliceThickness": 1.0, "size": plane.shape}
        image = ct_slice((0.0, 0.0, float(k)), **tags)
        image.PixelData = plane.astype(np.int16).tobytes()
        image.save_as(folder / f"{k:03d}.dcm", enforce_file_format=True)


def timed(what: str, work: Callable[[], object]) -> None:
    """Do it, and print how long it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    print(f"{what}: {time.perf_counter() - wall:.1f} s, {time.process_time() - cpu:.1f} s of CPU", flush=True)


@click.command
@click.option("--scans", default=1000, help="small series")
@click.option("--slices", default=4, help="slices of each")
def main(scans: int, slices: int) -> None:
    """Measure."""
    yaml = YAML(typ="safe")
    values = yaml.load(Path("params.yaml").read_text(encoding="utf-8"))
    override(values, yaml.load((PRESETS / "cpu.yaml").read_text(encoding="utf-8")))
    params = Params.model_validate(values)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CTINTERP_KEY_FILE"] = f"{folder}/key"
        layout = Layout(Path(folder) / "large")
        body = np.rint(phantom(0, (30, 512, 512), (1.0, 0.7, 0.7), 12.0).hu).clip(-1024, 3071) + 1024
        write_series(layout.raw / "series", np.concatenate([body, body[::-1]] * 5), "1.2.3", "p")
        timed("ingest of 512x512x300", lambda: ingest.run(params, layout))
        timed("the same again, nothing new", lambda: ingest.run(params, layout))
        many, small = Path(folder) / "many", np.full((slices, 16, 16), 1064, np.int16)
        for number in range(scans):
            write_series(many / f"{number}", small, f"1.2.{number + 1}", f"p{number}")
        for when in ("first look", "second look"):
            timed(f"{scans} series of {slices} files, {when}", lambda: find_scans(many, keep_headers=True))
        for number in range(scans):
            (Path(folder) / "files" / str(number)).mkdir(parents=True)
            for k in range(100):
                (Path(folder) / "files" / str(number) / f"{k}.dcm").touch()
        timed(f"the sensor, {scans} folders of 100 files", lambda: survey(Path(folder) / "files"))


if __name__ == "__main__":
    main()
