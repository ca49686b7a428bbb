"""Label maps on the grid of a scan."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ctinterp_dagster.errors import CtinterpError, GeometryError, IntensityError, MissingInputError
from ctinterp_dagster.scan.io import read_labels, write_volume
from ctinterp_dagster.scan.volume import Volume

LABELS = (np.arange(4 * 6 * 8) % 5).reshape(4, 6, 8).astype(np.float32)
SCAN = Volume(np.zeros((4, 6, 8), np.float32), (5.0, 0.7, 0.9), (10.0, -20.0, 30.0), np.eye(3))


@pytest.mark.parametrize("name", ["m.nii.gz", "m.nii", "m.mha", "m.nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_integers_and_their_type_are_kept(tmp_path: Path, name: str, dtype: type) -> None:
    write_volume(SCAN.with_hu(LABELS), tmp_path / name, dtype)
    labels, kept = read_labels(tmp_path / name, SCAN)
    np.testing.assert_array_equal(labels, LABELS)
    assert kept == dtype


def test_axes_that_run_against_those_of_the_scan_are_turned(tmp_path: Path) -> None:
    """As dcm2niix writes rows from below, and others slices from above."""
    flipped = Volume(
        np.ascontiguousarray(LABELS[::-1, ::-1]),
        SCAN.spacing_mm,
        tuple(SCAN.point_mm((3, 5, 0))),
        np.diag([1.0, -1, -1]),
    )
    write_volume(flipped, tmp_path / "m.nii", np.uint8)
    np.testing.assert_array_equal(read_labels(tmp_path / "m.nii", SCAN)[0], LABELS)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"origin_mm": (10.0, -20.0, 31.0)}, GeometryError, "expected labels on the grid of the scan"),
        (
            {"spacing_mm": (5.0, 0.7, 0.8)},
            GeometryError,
            r"every \(5, 0\.7, 0\.8\) mm, the first at \([^)]*\) mm \(LPS\)",
        ),
        ({"hu": LABELS[:3]}, GeometryError, "expected labels on the grid"),
        ({"hu": LABELS + 0.5}, IntensityError, "not whole numbers"),
        ({"hu": LABELS + 2.0**25}, IntensityError, "number them anew"),
    ],
)
def test_what_is_no_map_of_the_scan_is_refused(
    tmp_path: Path, change: dict[str, object], error: type[CtinterpError], message: str
) -> None:
    write_volume(replace(SCAN.with_hu(LABELS), **change), tmp_path / "m.nii", np.float32)
    with pytest.raises(error, match=message):
        read_labels(tmp_path / "m.nii", SCAN)
    with pytest.raises(MissingInputError, match="does not exist"):
        read_labels(tmp_path / "none.nii", SCAN)
    (tmp_path / "m.png").touch()
    with pytest.raises(CtinterpError, match="is no label map"):
        read_labels(tmp_path / "m.png", SCAN)
