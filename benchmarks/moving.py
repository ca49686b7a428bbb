"""Scans, parameters and code that change while the pipeline runs: is anything lost, does dvc.lock say what was done?

A clone of the committed state runs `dvc repro thicken` with six small scans. At random moments of each run scans come,
go or are replaced, and parameters and code change. Then `dvc repro` runs until `dvc status` is clean, and what ingest
and thicken made is compared with what the files now ask for: which cases, with which values, at which tasks.

    python -m benchmarks.moving --seconds 280 --seed 1
"""

import argparse
import random
import re
import shutil
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import yaml

from ctinterp_dagster.records import read_csv
from ctinterp_dagster.scan.phantom import phantom
from tests.checkout import Checkout

SPAN_S = 6.0  # moves fall into so many seconds from the start of the first stage
METAL_HU = 2500
# Upper end of what ingest keeps, which the code says. Of different lengths: Python knows what it has compiled by the
# second and the size of the source, and would run the old code after a second edit of one size within a second.
BOUNDS_HU = (3071, 900)
SLICES = (24, 32)
LEAST = (20, 28)  # ingest.min_slices
FACTORS = (4, 3)
MOVES = ("add", "remove", "replace", "min_slices", "factor", "code")


@dataclass
class Project:
    """A clone, and what its inputs ask for.

    Attributes:
        checkout: the clone.
        draw: of every choice.
        scans: by file name: slices, and the value in HU by which a scan is told from the one that it replaced.
        number: of the next scan.
        least: ingest.min_slices.
        factor: of the task.
        bound: upper end of what the code keeps, HU.
        count: of what happened.
    """

    checkout: Checkout
    draw: random.Random
    scans: dict[str, tuple[int, int]] = field(default_factory=dict)
    number: int = 0
    least: int = LEAST[0]
    factor: int = FACTORS[0]
    bound: int = BOUNDS_HU[0]
    count: Counter[str] = field(default_factory=Counter)

    @property
    def raw(self) -> Path:
        """The scans."""
        return self.checkout.root / "data" / "raw"

    def write(self, name: str, slices: int) -> None:
        """Put a scan into data/raw in one step, as a copy under another name and a rename do."""
        self.number += 1
        mark = self.number
        made = phantom(mark % 4, (slices, 24, 24), (1.5, 10.0, 10.0), 10.0)
        hu = made.hu.round().astype(np.int16)
        hu[0, 0, 0], hu[1, 0, 0] = mark, METAL_HU
        partial = self.raw / f".copying-{name}"
        nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([10.0, 10.0, 1.5, 1.0])).to_filename(partial)
        partial.rename(self.raw / name)
        self.scans[name] = (slices, mark)

    def move(self) -> None:
        """One random change."""
        short = sorted(name for name, (slices, _) in self.scans.items() if slices == SLICES[0])
        kind = self.draw.choice([kind for kind in MOVES if kind != "remove" or short])
        self.count[kind] += 1
        if kind == "add":
            self.write(f"s{self.number:04d}.nii", self.draw.choice(SLICES))
        elif kind == "remove":
            name = self.draw.choice(short)
            (self.raw / name).unlink()
            del self.scans[name]
        elif kind == "replace":
            name = self.draw.choice(sorted(self.scans))
            self.write(name, self.scans[name][0])
        elif kind == "code":
            (self.bound,) = set(BOUNDS_HU) - {self.bound}
            self.edit(
                "ctinterp_dagster/scan/window.py", rf"(STORED = .*?)(?:{BOUNDS_HU[0]}|{BOUNDS_HU[1]})", self.bound
            )
        else:
            self.least = self.draw.choice(LEAST)
            self.factor = self.draw.choice(FACTORS)
            self.write_params()

    def edit(self, file: str, pattern: str, value: int) -> None:
        """Replace a number of a source file in one step."""
        path = self.checkout.root / file
        text, found = re.subn(pattern, rf"\g<1>{value}", path.read_text(), count=1)
        assert found == 1
        (path.parent / "edited.tmp").write_text(text)
        (path.parent / "edited.tmp").replace(path)

    def write_params(self) -> None:
        """Write the present parameters."""
        path = self.checkout.root / "params.yaml"
        values = yaml.safe_load(path.read_text())
        values["ingest"]["min_slices"] = self.least
        values["thicken"]["tasks"] = [{"factor": self.factor, "profile": "box"}]
        (path.parent / "edited.tmp").write_text(yaml.safe_dump(values))
        (path.parent / "edited.tmp").replace(path)

    def disturbed_run(self) -> None:
        """`dvc repro` with moves at random moments, then runs without until there is nothing left to do."""
        log = self.checkout.root.parent / "repro.log"
        self.move()  # so that there is something to run
        process = self.checkout.start("dvc", "repro", "thicken", log=log)
        while process.poll() is None and "Running stage" not in log.read_text():
            time.sleep(0.01)
        start = time.monotonic()
        for moment in sorted(self.draw.uniform(0, SPAN_S) for _ in range(self.draw.randint(2, 5))):
            while process.poll() is None and time.monotonic() < start + moment:
                time.sleep(0.005)
            if process.poll() is None:
                self.move()
                self.count["moves"] += 1
        process.wait()
        self.count["runs"] += 1
        self.count["runs that a move ended"] += "which read what was there before" in log.read_text()
        for attempt in range(4):
            code, shown = self.checkout.attempt("dvc", "repro", "thicken")
            if code == 0:
                break
            assert attempt < 3, shown[-3000:]
        status = self.checkout.run("dvc", "status", "ingest", "thicken", "data/raw.dvc").strip()
        assert status == "Data and pipelines are up to date.", status

    def differences(self) -> list[str]:
        """What ingest and thicken made that the files do not ask for, or the other way round."""
        data = self.checkout.root / "data"
        asked = sorted((mark, self.bound) for slices, mark in self.scans.values() if slices >= self.least)
        cases = [row["case"] for row in read_csv(data / "ingest" / "cases.csv")]
        volumes = [np.asarray(nib.load(data / "ingest" / "volumes" / f"{case}.nii").dataobj) for case in cases]
        made = sorted((round(float(v[0, 0, 0])), round(float(v[0, 0, 1]))) for v in volumes)
        asked = [(mark, min(METAL_HU, bound)) for mark, bound in asked]
        wrong = [] if made == asked else [f"ingest made {made}, asked for is {asked}"]
        thick = sorted(p.relative_to(data / "thicken").as_posix() for p in (data / "thicken").rglob("*.nii"))
        wanted = sorted(f"box-x{self.factor}/{case}.nii" for case in cases)
        return wrong if thick == wanted else [*wrong, f"thicken made {thick}, asked for is {wanted}"]


def disturb(folder: Path, seconds: float, seed: int) -> Counter[str]:
    """Disturb a clone in `folder` for so many seconds; the counts, with `lost` for what was not as the files ask."""
    project = Project(Checkout.clone(folder / "ctinterp"), random.Random(seed))  # noqa: S311 (repeatable)
    for slices in (24, 24, 24, 32, 32, 32):
        project.write(f"s{project.number:04d}.nii", slices)
    project.write_params()
    project.checkout.run("ctinterp", "scans", "add")
    project.checkout.run("dvc", "repro", "thicken")
    assert project.differences() == []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        project.disturbed_run()
        for line in project.differences():
            project.count["lost"] += 1
            print(f"run {project.count['runs']}: {line}")
    return project.count


def main() -> None:
    """Print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=280)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="moving-"))
    try:
        print(dict(disturb(folder, arguments.seconds, arguments.seed)))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
