"""Scans scored by the protocols of published papers, and the papers' tables."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
from rich.console import Console

from ctinterp_dagster.cli.actions.jobs import Job, check_order, checked, fit
from ctinterp_dagster.cli.actions.tables import interval_words, table_of_methods
from ctinterp_dagster.cli.options.evaluate import Options
from ctinterp_dagster.cli.raw_folder import given_for
from ctinterp_dagster.errors import CtinterpError
from ctinterp_dagster.evaluation.protocols import Trial, decimation, rplhr
from ctinterp_dagster.evaluation.statistics import summarise
from ctinterp_dagster.interpolation import Method
from ctinterp_dagster.physics.acquisition import Acquisition, Auto, Tags
from ctinterp_dagster.physics.profile import Profile
from ctinterp_dagster.pipeline.testset.scoring import ResourceMeter
from ctinterp_dagster.scan.io import Scan, read_scan
from ctinterp_dagster.scan.window import RPLHR

SCORES = {
    "psnr_db": ("PSNR", 2), "ssim_axial": ("SSIM", 4), "ssim_coronal": ("coronal", 4),
    "ssim_sagittal": ("sagittal", 4), "seconds": ("s", 1),
}  # fmt: skip
LEGENDS = {
    "rplhr": "PSNR in dB and SSIM of axial slices, [-1024, 2048] HU as [0, 1], without 5 slices at each end",
    "decimation": "PSNR in dB and SSIM of three planes, 4095 HU as [0, 1], middle 256 x 256 pixels, ends dropped",
}


@dataclass(frozen=True)
class TrialJob(Job):
    """A scan that is scored by a protocol.

    Attributes:
        patient: whose it is.
        load: reads the trial.
    """

    patient: str
    load: Callable[[], Trial]

    def check(self) -> int:
        """Read the trial and say which slice profile was found.

        Returns:
            How many voxels the truth has.

        Raises:
            CtinterpError: the scan cannot be read or scored so, with its name.
        """
        try:
            trial = self.load()
        except CtinterpError as error:
            raise type(error)(f"{self.name}: {str(error).removeprefix(f'{self.name}: ')}") from error
        if found := trial.measurement.slice_profile:
            click.echo(f"{self.name}: slice profile: {found}", err=True)
        return trial.truth_hu.size

    def score(self, restoring: Mapping[str, Method]) -> Iterator[dict[str, Any]]:
        """Restore by every method and score by the protocol.

        Args:
            restoring: methods by name.

        Yields:
            Case, scores and costs of each method.
        """
        trial = self.load()
        for name, method in restoring.items():
            with ResourceMeter() as meter:
                estimate = method(trial.measurement)
            yield {
                "case": self.name,
                "patient": self.patient,
                "protocol": self.profile,
                "factor": trial.factor,
                "method": name,
                **trial.score(estimate.mean.hu),
                "seconds": meter.seconds,
                "peak_rss_mib": meter.peak_mib,
            }


def trials_of(options: Options) -> list[Job]:
    """What is to be scored by the protocol that is asked for."""
    name = options.protocol
    if name == "decimation":
        factor = int(options.factor or 2)
        return [
            TrialJob((path,), name, str(factor), patient_of(path), partial(load_decimation, path, factor))
            for path in options.thin
        ]
    profile = options.profile or "auto"
    return [
        TrialJob(pair, name, str(profile), patient_of(pair[1]), partial(load_rplhr, *pair, profile))
        for pair in options.pairs
    ]


def patient_of(path: Path) -> str:
    """Whose a scan is, by the table beside it, else by its own name."""
    rows = list(given_for(path, path.name))
    return rows[0]["patient"] if rows else path.name.partition(".")[0]


def load_decimation(path: Path, factor: int) -> Trial:
    """A thin scan of which every `factor`-th slice is kept.

    Args:
        path: of the scan.
        factor: slices of the scan for each that is kept, 2 or more.

    Returns:
        The kept slices to restore from, and the scan to score with.

    Raises:
        ScanError: the scan cannot be used.
        EvaluationError: it has too few slices to be scored.
    """
    return decimation(fit(path).volume, factor)


def load_rplhr(thick_path: Path, thin_path: Path, profile: Profile | Auto) -> Trial:
    """A pair of RPLHR-CT, or one like it; the values of its files are HU, or [0, 1] as the data set has them.

    Args:
        thick_path: of the thick scan.
        thin_path: of the thin one.
        profile: of the thick slices; `auto` has it found from tags and noise.

    Returns:
        The thick scan to restore, and the thin one to score with.

    Raises:
        ScanError: a scan cannot be used, or the two do not lie over each other, or are swapped.
    """
    thick, thin = (checked(in_hu(read_scan(path)), path) for path in (thick_path, thin_path))
    check_order(thick, thin)
    acquisition = Acquisition(profile, tags=Tags(thick.thickness_mm, thick.helical))
    return rplhr(thick.volume, thin.volume, acquisition, name=str(thick_path))


def in_hu(scan: Scan) -> Scan:
    """A scan whose values of [0, 1] are brought back to the window of RPLHR-CT; others are HU."""
    hu = scan.volume.hu
    if hu.min() < 0 or hu.max() > 1:
        return scan
    return replace(scan, volume=scan.volume.with_hu(RPLHR.from_unit(hu).astype(np.float32)))


def show(records: Sequence[Mapping[str, Any]], protocol: str) -> None:
    """Print the table of a paper: means over patients with 95 % bootstrap intervals."""
    rows = pd.DataFrame(records)
    for factor, own in rows.groupby("factor", sort=False):
        metrics = [name for name in SCORES if name in own and own[name].notna().any()]
        by_patient = own.groupby(["patient", "method"], sort=False)[metrics].mean().reset_index()
        by_patient = by_patient.rename(columns={"patient": "case"}).assign(profile=protocol, factor=factor)
        patients, cases = by_patient["case"].nunique(), own["case"].nunique()
        table = table_of_methods(
            f"{protocol} x{factor}: {cases} scans of {patients} patients, 95 % intervals by patient"
        )
        means = {name: summarise(by_patient, name, seed=0) for name in metrics}
        for name in metrics:
            table.add_column(SCORES[name][0], justify="right")
        for method in by_patient["method"].unique():
            table.add_row(method, *(interval_words(means[name][method], SCORES[name][1]) for name in metrics))
        Console().print(table)
    Console().print(LEGENDS[protocol], highlight=False)
