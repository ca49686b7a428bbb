"""What does a person look at? One page: tables, pictures, curves, the decision, provenance."""

import logging
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from itertools import islice

import numpy as np
import pandas as pd

from ctinterp_dagster import telemetry
from ctinterp_dagster.decision import Decision, read_record
from ctinterp_dagster.evaluation.evidence_tables import EVIDENCE_COMMANDS, Measured, run_tables
from ctinterp_dagster.evaluation.figures import Curve, Look, Voxel, views
from ctinterp_dagster.evaluation.page import ReportData, View, render
from ctinterp_dagster.evaluation.statistics import Calibration, by_task
from ctinterp_dagster.evaluation.tissue import body_mask
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import CEILING, judged, title, trained
from ctinterp_dagster.params import Params
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScan, ThickScans
from ctinterp_dagster.records import file_hash, whole_file
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import FloatArray
from ctinterp_dagster.scan.window import SOFT_TISSUE, second_window

logger = logging.getLogger(__name__)

PACKAGES = ("ctinterp", "torch", "numpy", "scipy", "SimpleITK", "nibabel", "scikit-image", "accelerate", "dvc")
CURVES = {
    "Expectation": "expect",
    **{title(method): stage for method, stage in trained().items()},
    "Network for one step": "train/one_step",
    "Autoencoder": "autoencoder",
}
"""Trainings by the name of what they make, and their folder below `reports`."""
REGION_MM = 160.0


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `reports/report/index.html`, and its pictures as `previews/<case>-<window>.png`.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        The size of the page in KiB.

    Raises:
        MissingInputError: a file of an earlier stage is not there.
        EvaluationError: nothing was scored.
    """
    shutil.rmtree(layout.report("report") / "previews", ignore_errors=True)
    first_task = ThickScans(params.thicken.tasks[:1], layout)
    scans = list(islice(first_task.thickened(), params.report.views))
    data = ReportData(
        rows=pd.read_csv(layout.report("evaluate") / "per_case.csv"),
        positions=positions(layout),
        views=[view for scan in scans for view in previewed(views_of(scan), scan, layout)],
        losses=curves(layout),
        calibration=calibrations(layout),
        decision=read_record(Decision, layout.report("promote") / "decision.json"),
        coverage_90=params.promote.coverage_90,
        evidence=list(run_tables(pd.read_csv(layout.report("evaluate") / "evidence.csv"), seed=params.base.seed)),
        measured=longer_measurements(layout),
        model=file_hash(layout.trained(judged().stage)),
        phantoms=any(case.phantom for case in read_cases(layout, "test")),
        provenance=page_provenance(params, layout),
        seed=params.base.seed,
    )
    page = render(data)
    with whole_file(layout.report("report") / "index.html") as partial:
        partial.write_text(page, encoding="utf-8")
    telemetry.result(page=telemetry.link((layout.report("report") / "index.html").resolve().as_uri()))
    return {"kib": len(page.encode()) / 1024}


def previewed(views: list[View], scan: ThickScan, layout: Layout) -> list[View]:
    """The views, each also as a file, which Dagster shows as soon as it is there.

    Args:
        views: pictures as PNG.
        scan: which they show.
        layout: where things are.

    Returns:
        The same views.
    """
    for number, view in enumerate(views, start=1):
        path = layout.report("report") / "previews" / f"{scan.case}-{number}.png"
        with whole_file(path) as partial:
            partial.write_bytes(view.png)
        telemetry.show(preview=path.as_posix(), case=scan.case)
        logger.info("case=%s preview=%s", scan.case, path.name)
    return views


def views_of(scan: ThickScan) -> list[View]:
    """The scan in the soft-tissue window and in the lung or bone one.

    Args:
        scan: thick scan of the test set.

    Returns:
        Two views, on the planes through a point of interest.

    Raises:
        MissingInputError: an estimate is not there.
    """
    measurement = scan.measurement()
    truth = measurement.known.hu
    estimates = {
        "thick": METHODS["nearest"](measurement).mean.hu,
        title("cubic"): METHODS["cubic"](measurement).mean.hu,
        judged().title: read_scan(scan.estimate(judged().stage)).volume.hu,
    }
    made = []
    for window in (SOFT_TISSUE, second_window(truth)):
        name = window.name.replace("_", " ")
        look = Look(window, REGION_MM, point_of_interest(truth))
        png = views(estimates, truth, spacing_mm=measurement.known.spacing_mm, look=look)
        names = ", ".join(estimates)
        alt = f"Axial, coronal and sagittal planes of {scan.case}: {names}, truth and error, {name} window"
        made.append(View(f"{scan.case}, {name} window, {scan.task}", alt, png))
    return made


def point_of_interest(truth_hu: FloatArray) -> Voxel:
    """The voxel in the middle of the body, a quarter of its width to the side, where lungs and organs are.

    Args:
        truth_hu: (z, y, x) HU.

    Returns:
        One of the volume.
    """
    z, y, x = (np.flatnonzero(body_mask(truth_hu).any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3))
    return Voxel(int(z[len(z) // 2]), int(y[len(y) // 2]), int(x[len(x) // 4]))


def positions(layout: Layout) -> dict[str, dict[str, list[float]]]:
    """MAE by position in the thick slice, mean over cases, by task and method; not of the ceiling, far above all."""
    table = pd.read_csv(layout.report("evaluate") / "position.csv")
    table = table[table["method"] != CEILING]
    return {
        task: {
            str(method): errors.groupby("position")["mae_hu"].mean().tolist()
            for method, errors in rows.groupby("method", sort=False)
        }
        for task, rows in by_task(table)
    }


def curves(layout: Layout) -> dict[str, Curve]:
    """The training curves that are not empty: smoothed loss, and validation loss where there is one."""
    losses = {}
    for name, stage in CURVES.items():
        table = pd.read_csv(layout.report(stage) / "curve.csv")
        if table.empty:
            continue
        losses[name] = Curve(table["step"].tolist(), table["loss"].ewm(span=20).mean().tolist())
        validated = table.dropna(subset="val_loss")
        if not validated.empty:
            losses[f"{name}, validation"] = Curve(validated["step"].tolist(), validated["val_loss"].tolist())
    return losses


def calibrations(layout: Layout) -> dict[str, Calibration]:
    """Mean coverage and correlation over the cases, by task."""
    table = pd.read_csv(layout.report("evaluate") / "calibration.csv")
    result = {}
    for task, group in by_task(table):
        correlation = None if group["correlation"].isna().any() else float(group["correlation"].mean())
        result[task] = Calibration(float(group["coverage_90"].mean()), correlation)
    return result


def longer_measurements(layout: Layout) -> dict[str, Measured]:
    """What longer commands left in `reports/evidence`, by name.

    Args:
        layout: where things are.

    Returns:
        By name, those whose files are there.

    Raises:
        MissingInputError: a record is damaged.
    """
    files = {name: layout.report("evidence") / f"{name}.json" for name in EVIDENCE_COMMANDS}
    return {name: read_record(Measured, file) for name, file in files.items() if file.exists()}


def page_provenance(params: Params, layout: Layout) -> dict[str, dict[str, str]]:
    """Versions, parameters and hashes; nothing that differs between two runs of the same state on one machine.

    The commit is not among them: it would change the page without a change of the result. `git log dvc.lock` has it.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        Tables of names and values by title.
    """
    return {
        "packages": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "hashes": {
            "model": file_hash(layout.trained(judged().stage)),
            "volumes": file_hash(layout.ingest / "manifest.json"),
            "thick scans": file_hash(layout.thicken / "manifest.json"),
        },
        "params": {f"{section}": str(values) for section, values in params.model_dump().items()},
        "device": {"machine": f"{platform.system()} {platform.machine()}", "torch threads": str(params.base.threads)},
    }
