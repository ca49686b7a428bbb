import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.packed_volumes import MIB, middle, read_kit, write_kit
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.training.device_volumes import ThinVolume

pytestmark = pytest.mark.slow

READ = """
import sys
for name in "pydantic ruamel yaml click nibabel SimpleITK pydicom pandas scipy accelerate dagster dvc monai".split():
    sys.modules[name] = None
from pathlib import Path
from benchmarks.packed_volumes import read_kit
train, val = read_kit(Path(sys.argv[1]))
print(*(volume.case for volume in (*train, *val)))
"""


def volume(case: str, depth: int = 30, plane: int = 40) -> ThinVolume:
    generator = torch.Generator().manual_seed(depth)
    hu = 900 * torch.randn(depth, plane, plane, generator=generator)
    return ThinVolume(hu.to(torch.int16), (1.0, 0.7, 0.65), 2.5, case, 1.25)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_a_kit_gives_its_volumes_back(tmp_path: Path) -> None:
    train, val = [volume("a"), replace(volume("b", 7, 23), thin_thickness=2.0)], [volume("c", 100, 140)]
    write_kit(tmp_path, train, val, mib=10)
    for read, written in zip(read_kit(tmp_path), (train, [middle(val[0], (96, 128, 128))]), strict=True):
        for ours, theirs in zip(read, written, strict=True):
            assert torch.equal(ours.hu, theirs.hu)
            assert replace(ours, hu=theirs.hu) == theirs


def test_a_kit_is_no_larger_than_asked_and_says_what_was_cut(tmp_path: Path) -> None:
    train, val = [volume("a", 60), volume("b", 31)], [volume("c")]
    write_kit(tmp_path / "whole", train, val, mib=1)
    limit = size(tmp_path / "whole") * 3 // 4
    write_kit(tmp_path / "cut", train, val, mib=limit / MIB)
    assert 0.9 * limit < size(tmp_path / "cut") <= limit
    for read, whole in zip(read_kit(tmp_path / "cut")[0], train, strict=True):
        assert len(read.hu) < 0.8 * len(whole.hu)
        assert torch.equal(read.hu, middle(whole, read.hu.shape).hu)
    rows = json.loads((tmp_path / "cut" / "kit.json").read_text())["volumes"]
    assert [row["whole_zyx"] for row in rows] == [[60, 40, 40], [31, 40, 40], [30, 40, 40]]
    assert [row["shape_zyx"] == row["whole_zyx"] for row in rows] == [False, False, True]


def test_what_cannot_be_packed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"0\.05 MiB are too few for 2 volumes"):
        write_kit(tmp_path / "small", [volume("a")], [volume("b")], mib=0.05)
    with pytest.raises(ParamsError, match="need names of their own, got a, a"):
        write_kit(tmp_path / "twice", [volume("a")], [volume("a")], mib=1)
    (tmp_path / "file").touch()
    with pytest.raises(ParamsError, match="is not empty"):
        write_kit(tmp_path, [volume("a")], [], mib=1)


@pytest.mark.parametrize("name", ["a.npz", "b.npz", "kit.json"])
@pytest.mark.parametrize("damage", ["changed", "shortened", "removed"])
def test_a_damaged_file_is_refused_on_one_line(name: str, damage: str, tmp_path: Path) -> None:
    write_kit(tmp_path, [volume("a", 5, 9)], [volume("b", 5, 9)], mib=1)
    path = tmp_path / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :])
    if damage == "shortened":
        path.write_bytes(content[:middle])
    if damage == "removed":
        path.unlink()
    with pytest.raises(MissingInputError, match=rf"{name} is missing or damaged.*copy the kit again") as caught:
        read_kit(tmp_path)
    assert "\n" not in str(caught.value)


def test_voxels_that_are_not_those_that_were_packed_are_refused(tmp_path: Path) -> None:
    write_kit(tmp_path, [volume("a", 5, 9)], [], mib=1)
    table = json.loads((tmp_path / "kit.json").read_text())
    table["volumes"][0]["voxels_sha256"] = 64 * "0"
    (tmp_path / "kit.json").write_text(json.dumps(table))
    with pytest.raises(MissingInputError, match=r"a\.npz does not give the voxels that were packed"):
        read_kit(tmp_path)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    write_kit(tmp_path, [volume("a", 5, 9)], [], mib=1)
    with np.load(tmp_path / "a.npz") as arrays:
        older = {**arrays, "weights": arrays["weights"][:, :19]}
    np.savez_compressed(tmp_path / "a.npz", **older)
    table = json.loads((tmp_path / "kit.json").read_text())
    table["volumes"][0]["file_sha256"] = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    (tmp_path / "kit.json").write_text(json.dumps(table))
    with pytest.raises(MissingInputError, match=r"a\.npz was packed by another version"):
        read_kit(tmp_path)


def test_a_kit_is_read_where_only_torch_and_its_kin_are(tmp_path: Path) -> None:
    write_kit(tmp_path, [volume("a", 5, 9)], [volume("b", 5, 9)], mib=1)
    done = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["a", "b"]
