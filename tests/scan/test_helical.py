from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from ctinterp_dagster.scan.io import read_scan
from tests.scan.conftest import enhanced_ct

Series = Callable[..., Path]


@pytest.mark.parametrize(
    ("tags", "helical"),
    [
        ({"ScanOptions": "HELIX", "SpiralPitchFactor": 0.391, "AcquisitionType": "SPIRAL"}, True),
        ({"ScanOptions": "HELICAL MODE"}, True),
        ({"ScanOptions": ["HELICAL_CT", "AXIAL"]}, True),
        ({"SpiralPitchFactor": 1.2}, True),
        ({"ScanOptions": "AXIAL MODE"}, False),
        ({"ScanOptions": "VOLUME_CT"}, False),
        ({"AcquisitionType": "SEQUENCED", "SpiralPitchFactor": 1.0}, False),
        ({"ScanOptions": "DYNAMIC MODE"}, None),
        ({"SpiralPitchFactor": 0}, None),
        ({}, None),
    ],
)
def test_the_tags_of_the_vendors_say_whether_the_table_moved(
    tags: dict[str, Any], series: Series, *, helical: bool | None
) -> None:
    assert read_scan(series(**tags)).helical is helical


def test_an_enhanced_ct_says_it_in_its_functional_groups(tmp_path: Path) -> None:
    dataset = enhanced_ct([0.0, 2.0, 4.0, 6.0], 4 * [(1.0, -1024.0)])
    kind = Dataset()
    kind.AcquisitionType = "SPIRAL"
    dataset.SharedFunctionalGroupsSequence[0].CTAcquisitionTypeSequence = [kind]
    dataset.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    assert read_scan(tmp_path).helical is True
