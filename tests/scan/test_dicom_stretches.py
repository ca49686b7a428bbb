"""`ctinterp interpolate` of a series whose slices are uneven."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result
from pydicom.dataset import FileDataset

from ctinterp_dagster.cli.interpolate import command
from ctinterp_dagster.records import read_json
from ctinterp_dagster.scan.io import read_scan
from tests.phantoms import phantom

from .conftest import slices_at

Series = Callable[..., Path]


def _interpolated(series: Series, tmp_path: Path, *options: Any) -> Result:
    """`ctinterp interpolate` of eight slices of 2.5 mm and five of 5 mm."""
    planes = np.rint(phantom("parts", (13, 24, 24), (2.5, 10.0, 10.0), 10.0).hu).astype(np.int16) + 1024
    places = slices_at(
        [*(2.5 * k for k in range(8)), *(21.25 + 5.0 * k for k in range(5))], SliceThickness=[2.5] * 8 + [5] * 5
    )

    def edit(k: int, dataset: FileDataset) -> None:
        places(k, dataset)
        dataset.PixelData = planes[k].tobytes()

    folder = series(n=13, size=planes.shape[1:], PixelSpacing=[10.0, 10.0], edit=edit)
    words = [
        folder,
        "-o",
        tmp_path / "thin.nii",
        "--spacing",
        "1.25",
        "--method",
        "cubic_projected",
        "--profile",
        "box",
    ]
    return CliRunner().invoke(command, [str(word) for word in (*words, *options)])


def test_interpolate_joins_the_stretches_of_a_series(series: Series, tmp_path: Path) -> None:
    result = _interpolated(series, tmp_path, "--json", tmp_path / "record.json")
    assert result.exit_code == 0, result.output
    assert "13 slices of 2.5 and 5 mm -> 36 of 1.25 mm, |Ax - y| 0.000 HU" in result.output
    assert "stretch 2 of 2" in result.output
    assert result.output.count("the slice distance changes from 2.5 to 5 mm") == 1
    record = read_json(tmp_path / "record.json")
    assert record["input_thickness_tagged_mm"] == record["input_thickness_used_mm"] == [2.5, 5.0]
    thin = read_scan(tmp_path / "thin.nii").volume
    np.testing.assert_allclose(thin.point_mm((-0.5, 0, 0)), [-10, 20, -1.25], atol=1e-4)


def test_a_series_of_stretches_has_samples_a_deviation_and_a_picture(series: Series, tmp_path: Path) -> None:
    words = [
        *("--method", "model", "--samples", "2", "--steps", "2", "--std", tmp_path / "std.nii"),
        *("--draws", tmp_path / "draws", "--preview", tmp_path / "look.png"),
    ]
    result = _interpolated(series, tmp_path, *words)
    assert result.exit_code == 0, result.output
    mean, std = (read_scan(tmp_path / name).volume.hu for name in ("thin.nii", "std.nii"))
    draws = [read_scan(path).volume.hu for path in sorted((tmp_path / "draws").iterdir())]
    assert [draw.shape for draw in draws] == [mean.shape, mean.shape]
    assert 0 < std.mean() < 200
    np.testing.assert_allclose(
        draws[0][:16].reshape(8, 2, 24, 24).mean(axis=1), draws[1][:16].reshape(8, 2, 24, 24).mean(axis=1), atol=0.01
    )
    assert np.abs(draws[0] - draws[1]).mean() > 0.1
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")


def test_labels_of_a_series_of_stretches_are_refused(series: Series, tmp_path: Path) -> None:
    result = _interpolated(series, tmp_path, "--label", tmp_path / "map.nii", tmp_path / "out.nii")
    assert result.exit_code == 2
    assert "has 2 stretches, give a --series" in result.output


def test_slices_that_are_thick_and_thin_by_turns_are_restored_each_with_its_own_thickness(
    series: Series, tmp_path: Path
) -> None:
    tags: list[object] = [5, 3] * 5
    planes = np.rint(phantom("turns", (10, 24, 24), (5.0, 10.0, 10.0), 10.0).hu).astype(np.int16) + 1024
    places = slices_at([5.0 * k for k in range(10)], SliceThickness=tags)

    def edit(k: int, dataset: FileDataset) -> None:
        places(k, dataset)
        dataset.PixelData = planes[k].tobytes()

    folder = series(n=10, size=planes.shape[1:], PixelSpacing=[10.0, 10.0], edit=edit)
    words = [folder, "-o", tmp_path / "thin.nii", "--method", "cubic_projected", "--profile", "box"]
    result = CliRunner().invoke(command, [str(word) for word in (*words, "--json", tmp_path / "record.json")])
    assert result.exit_code == 0, result.output
    assert "SliceThickness is 3 and 5 mm from slice to slice" in result.output
    assert "each slice is taken to be as thick as its own SliceThickness says" in result.output
    record = read_json(tmp_path / "record.json")
    assert (record["input_thickness_tagged_mm"], record["input_thickness_used_mm"]) == (tags, 4.0)
    hu = read_scan(tmp_path / "thin.nii").volume.hu
    for k, thickness in enumerate((5, 3) * 5):
        own = hu[5 * k + 2 - thickness // 2 :][:thickness]
        np.testing.assert_allclose(own.mean(axis=0), planes[k] - 1024, atol=0.6)
    told = CliRunner().invoke(command, [str(w) for w in (*words[:2], tmp_path / "o.nii", *words[3:], "--thickness", 4)])
    assert "as its own SliceThickness" not in told.output
