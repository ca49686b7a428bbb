"""A kit: the training and validation volumes in a small folder, for a machine that has torch and numpy alone."""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.packing import pack, unpack
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.records import whole_file, write_json
from ctinterp_dagster.training.device_volumes import ThinVolume

TABLE = "kit.json"
VALIDATION_ZYX = (96, 128, 128)  # validation volumes are cut down to this, about their middle
TABLE_BYTES = 1000  # a volume, at most
MIB = 1 << 20


@dataclass(frozen=True)
class Packed:
    """A row of the table.

    Attributes:
        case: the volume's id; its file is `<case>.npz`.
        split: train or val.
        spacing_mm: (z, y, x).
        thin_thickness: of `ThinVolume`.
        weight: of `ThinVolume`.
        whole_zyx: size of the volume that the packed one was cut out of, about its middle.
        shape_zyx: size of the packed one.
        bits_per_voxel: of its file.
        file_sha256: of its file.
        voxels_sha256: of its voxels, little-endian int16 in the order (z, y, x).
    """

    case: str
    split: str
    spacing_mm: tuple[float, float, float]
    thin_thickness: float
    weight: float
    whole_zyx: tuple[int, ...]
    shape_zyx: tuple[int, ...]
    bits_per_voxel: float
    file_sha256: str
    voxels_sha256: str


def write_kit(folder: Path, train: Sequence[ThinVolume], val: Sequence[ThinVolume], mib: float) -> list[Packed]:
    """Pack volumes into a new folder: the middle of those for validation, as many slices as fit of those for training.

    Each training volume loses the same share of its slices, half of them at each end.

    Args:
        folder: must be empty or absent.
        train: volumes to train on.
        val: volumes to validate on.
        mib: largest size of all files together, in MiB.

    Returns:
        A row for each volume that was packed.

    Raises:
        ParamsError: the folder holds something, two volumes share a case, or nothing fits.
    """
    cases = [volume.case for volume in (*train, *val)]
    if len(set(cases)) < len(cases) or not all(cases):
        raise ParamsError(f"the cases of a kit need names of their own, got {', '.join(sorted(cases))}")
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise ParamsError(f"{folder} is not empty: give a new folder, or remove it")
    validation = _packed(folder, "val", val, [middle(volume, VALIDATION_ZYX) for volume in val])
    room = mib * MIB - TABLE_BYTES * len(cases) - sum(map(_bytes, validation))
    share, training = 1.0, _packed(folder, "train", train, train)
    while (size := sum(map(_bytes, training))) > room:
        share *= min(room / size, 0.999)
        kept = [middle(volume, (math.floor(share * len(volume.hu)), *volume.hu.shape[1:])) for volume in train]
        if not all(volume.hu.numel() for volume in kept):
            raise ParamsError(f"{mib:g} MiB are too few for {len(cases)} volumes: give more, or fewer volumes")
        training = _packed(folder, "train", train, kept)
    rows = [*training, *validation]
    write_json(folder / TABLE, {"volumes": [asdict(row) for row in rows]})
    return rows


def read_kit(folder: Path) -> tuple[list[ThinVolume], list[ThinVolume]]:
    """The volumes of a kit: those to train on, those to validate on.

    Args:
        folder: of the kit.

    Returns:
        Both lists in the order of the kit.

    Raises:
        MissingInputError: a file is missing or damaged, or a volume is not restored as it was.
    """
    try:
        table = json.loads((folder / TABLE).read_text(encoding="utf-8"))
        rows = [Packed(**row) for row in table["volumes"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise MissingInputError(
            f"{folder / TABLE} is missing or damaged ({error}): copy the kit again, or make it with "
            "`python -m benchmarks.kit`"
        ) from error
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        volumes = list(pool.map(lambda row: _read(folder, row), rows))
    train, val = (
        [volume for row, volume in zip(rows, volumes, strict=True) if row.split == split] for split in ("train", "val")
    )
    return train, val


def middle(volume: ThinVolume, size_zyx: Sequence[int]) -> ThinVolume:
    """At most this much of a volume, about its middle."""
    first = [max(0, (n - size) // 2) for n, size in zip(volume.hu.shape, size_zyx, strict=True)]
    z, y, x = (slice(start, start + size) for start, size in zip(first, size_zyx, strict=True))
    return replace(volume, hu=volume.hu[z, y, x])


def _packed(folder: Path, split: str, whole: Sequence[ThinVolume], kept: Sequence[ThinVolume]) -> list[Packed]:
    """Write a file for each kept part."""

    def one(volume: ThinVolume, part: ThinVolume) -> Packed:
        path, voxels = folder / f"{part.case}.npz", np.ascontiguousarray(part.hu.numpy())
        with whole_file(path) as partial, partial.open("wb") as handle:
            np.savez_compressed(handle, **pack(voxels))
        return Packed(
            case=part.case,
            split=split,
            spacing_mm=part.spacing_mm,
            thin_thickness=part.thin_thickness,
            weight=part.weight,
            whole_zyx=tuple(volume.hu.shape),
            shape_zyx=tuple(part.hu.shape),
            bits_per_voxel=8 * path.stat().st_size / voxels.size,
            file_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            voxels_sha256=_hash(voxels),
        )

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(one, whole, kept))


def _read(folder: Path, row: Packed) -> ThinVolume:
    path = folder / f"{row.case}.npz"
    if not path.exists() or hashlib.sha256(path.read_bytes()).hexdigest() != row.file_sha256:
        raise MissingInputError(f"{path} is missing or damaged: copy the kit again")
    try:
        with np.load(path) as arrays:
            voxels = unpack(dict(arrays))
    except (KeyError, ValueError, IndexError) as error:
        raise MissingInputError(f"{path} was packed by another version ({error}): make the kit again") from error
    if _hash(voxels) != row.voxels_sha256:
        raise MissingInputError(f"{path} does not give the voxels that were packed: make the kit again")
    z, y, x = row.spacing_mm
    return ThinVolume(torch.from_numpy(voxels), (z, y, x), row.weight, row.case, row.thin_thickness)


def _bytes(row: Packed) -> int:
    return round(row.bits_per_voxel * math.prod(row.shape_zyx) / 8)


def _hash(voxels: Any) -> str:
    return hashlib.sha256(voxels.astype("<i2").tobytes()).hexdigest()
