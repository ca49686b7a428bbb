"""What evaluate measures beyond scores, on a cube of each test case: see `evaluation.evidence`."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ctinterp_dagster.evaluation.evidence import (
    COLUMNS,
    MeasuredValue,
    Setting,
    Summary,
    cube,
    findings,
    ranked,
    row,
    summary,
)
from ctinterp_dagster.interpolation import Interpolator, Method, Settings
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.methods import judged
from ctinterp_dagster.params import Params
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.pipeline.testset.thick_scans import ThickScan, thickened_scans
from ctinterp_dagster.records import write_csv
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)


def write_evidence(model: Interpolator, params: Params, layout: Layout, reports: Path) -> Summary:
    """Write `evidence.csv`, a line a number, of the first task; the model's means.

    Args:
        model: the judged one.
        params: of all stages.
        layout: where things are.
        reports: the folder.
    """
    settings = Settings(memory_gib=params.generate.memory_gib)
    methods = {name: METHODS[name] for name in params.evaluate.baselines} | {judged().name: model.by(settings)}
    task = params.thicken.tasks[0]
    rows = [
        row(scan.case, it)
        for scan in thickened_scans(params, layout)
        if scan.task == task.name
        for it in evidence_of(scan, Setting(task.factor, task.profile), methods, layout)
    ]
    write_csv(reports / "evidence.csv", rows, COLUMNS)
    own = [line for line in rows if line["method"] == judged().name]
    return summary(pd.DataFrame(own, columns=list(COLUMNS)))


def evidence_of(
    scan: ThickScan, setting: Setting, methods: Mapping[str, Method], layout: Layout
) -> Iterator[MeasuredValue]:
    """Every number of a thick scan of the test set.

    Args:
        scan: a thick scan of the test set.
        setting: how it was thickened.
        methods: by name.
        layout: where generate put the judged model's estimate and its deviation.
    """
    start = time.perf_counter()
    truth = scan.measurement().known
    part = cube(truth.hu.shape, truth.spacing_mm)
    thin = replace(truth, hu=np.ascontiguousarray(truth.hu[part]))
    yield from findings(thin, setting, methods)
    estimate, std = (
        read_scan(path(layout, judged().stage)).volume.hu[part] for path in (scan.estimate, scan.deviation)
    )
    ranking = ranked(judged().name, std, estimate - thin.hu, scan.factor)
    if ranking is not None:
        yield ranking
    seconds = time.perf_counter() - start
    logger.info("case=%s task=%s evidence voxels=%d seconds=%.1f", scan.case, scan.task, thin.hu.size, seconds)
