"""Real thick scans beside the thin ones of the test set."""

import logging
from collections.abc import Iterator

from ctinterp_dagster.errors import GeometryError, ParamsError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.physics.measurement import Measurement, paired
from ctinterp_dagster.physics.thickness import judge_thickness
from ctinterp_dagster.pipeline.cases import RealPair, read_cases, read_pairs
from ctinterp_dagster.records import read_json
from ctinterp_dagster.scan.io import read_scan

logger = logging.getLogger(__name__)


def real_pairs(layout: Layout) -> Iterator[tuple[RealPair, Measurement]]:
    """The real pairs of the test set, each cut to what both scans cover; those that cannot be are told and left out."""
    for pair, case in read_pairs(layout, read_cases(layout, "test")):
        path = pair.thick(layout)
        thick = read_scan(path).volume
        claimed_mm = read_json(path.with_suffix(".json"))["thickness_mm"]
        judged = judge_thickness(thick.hu, thick.spacing_mm[0], claimed_mm)
        if judged.warning:
            logger.warning("pair=%s %s", pair.case, judged.warning)
        try:
            yield pair, paired(thick, read_scan(case.thin(layout)).volume, judged.thickness_mm)
        except (GeometryError, ParamsError) as error:
            logger.warning("pair=%s left out: %s", pair.case, error)
