"""What ImageType says that images are: slices, or something that was computed of slices."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ctinterp_dagster.errors import DerivedError, DeviationError
from ctinterp_dagster.scan.io import read_scan

Series = Callable[..., Path]

KINDS = "MIP PERFUSION MIN_IP MPR REFORMATTED CBF VRT SUBTRACTION EFF_ATOMIC_NUM MAT_SPECIFIC"


@pytest.mark.parametrize("kind", [*KINDS.split(), "CT_SOM5 MPR"])
def test_projections_maps_and_reformats_are_refused(series: Series, kind: str) -> None:
    with pytest.raises(DerivedError, match=f"is DERIVED/SECONDARY/AXIAL/{kind}, a map, a projection or a reformat"):
        read_scan(series(ImageType=["DERIVED", "SECONDARY", "AXIAL", kind]))


@pytest.mark.parametrize("kind", ["VMI", "MAT_REMOVED"])
def test_monoenergetic_images_and_those_without_contrast_are_slices(series: Series, kind: str) -> None:
    assert read_scan(series(ImageType=["DERIVED", "PRIMARY", "AXIAL", kind])).derived


def test_standard_deviations_are_no_scan_unless_they_are_asked_for(series: Series) -> None:
    folder = series(ImageType=["DERIVED", "SECONDARY", "AXIAL", "STD_DEVIATION"], RescaleType="US")
    with pytest.raises(DeviationError, match="AXIAL/STD_DEVIATION, standard deviations: expected a scan; give"):
        read_scan(folder)
    assert read_scan(folder, deviation=True).volume.depth == 6
