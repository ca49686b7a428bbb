"""Training volumes: read as they are, without their bytes in memory."""

from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from ctinterp_dagster.pipeline.trainings.training import training_volume
from ctinterp_dagster.scan.io import read_scan, write_volume
from ctinterp_dagster.scan.volume import Volume
from ctinterp_dagster.training.batches import seeded
from ctinterp_dagster.training.device_volumes import AS_STORED, ResidentVolumes, stacked

SPACINGS_MM = [(1.0, 0.7, 0.7), (0.6, 1.5, 0.7)]  # of the second the reader takes rows for slices


def written(path: Path, shape: tuple[int, ...], spacing_mm: tuple[float, float, float], *, whole: bool) -> Path:
    hu = np.random.default_rng(0).uniform(-1000, 1000, shape)
    volume = Volume(np.float32(hu.round() if whole else hu), spacing_mm, (0.0, 0.0, 0.0), np.eye(3))
    write_volume(volume, path)
    return path


@pytest.mark.parametrize("spacing_mm", SPACINGS_MM)
@pytest.mark.parametrize("whole", [True, False])
def test_a_training_volume_is_what_the_reader_gives_in_whole_hu(
    tmp_path: Path, spacing_mm: tuple[float, float, float], *, whole: bool
) -> None:
    path = written(tmp_path / "a.nii", (5, 6, 7), spacing_mm, whole=whole)
    read, volume = read_scan(path).volume, training_volume(path, 1.0, "a")
    assert torch.equal(volume.hu, torch.from_numpy(read.hu).round().short())
    assert volume.spacing_mm == read.spacing_mm


def test_volumes_are_held_and_cut_without_memory_of_their_size(tmp_path: Path) -> None:
    size = (64, 256, 256)
    paths = [written(tmp_path / f"{n}.nii", size, SPACINGS_MM[0], whole=True) for n in range(3)]
    resident = ResidentVolumes([training_volume(path, 1.0, path.stem) for path in paths])
    process = psutil.Process()

    def own_bytes() -> int:
        memory = process.memory_info()
        return int(memory.rss - memory.shared)  # without pages of files

    before = own_bytes()
    boxes = [resident.random_box(n, AS_STORED, (8, 64, 64), seeded(0, n)) for n in (0, 1, 2)]
    cut = resident.cut(stacked(boxes), (8, 64, 64))
    assert own_bytes() - before < 8e6  # one volume is 8.4e6 bytes
    for n, (path, box, values) in enumerate(zip(paths, boxes, cut, strict=True)):
        flat = torch.from_numpy(read_scan(path).volume.hu).reshape(-1)
        z, y, x = (step * torch.arange(length) for step, length in zip(box.steps, (8, 64, 64), strict=True))
        where = box.first - n * flat.numel() + z[:, None, None] + y[:, None] + x
        assert torch.equal(values, flat[where])
