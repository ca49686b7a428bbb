"""How well a stack tells a wrong SliceThickness; run by hand, in the root.

    python -m benchmarks.thickness FOLDER

FOLDER holds thin volumes (NIfTI) and index.jsonl (`file`, `use`, `slice_thickness_mm`); test volumes are not read. Each
is made thick with every width (thickness over distance), distance and profile, as it is, small, soft (blurred in
plane) and noisy; each stack is judged under every claim. Prints claims contradicted / not / cannot tell, by the true
width; then the RMSE of projected cubic interpolation by the width that is used.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy.ndimage import gaussian_filter

from ctinterp_dagster.physics.interpolators import cubic_projected
from ctinterp_dagster.physics.noise import shared_noise
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile, slice_weights
from ctinterp_dagster.physics.thickness import CORRELATION_MARGIN, SURE, box_correlation, lags_for, verdict

Stack = npt.NDArray[np.float32]
Counts = Counter[tuple[float | None, float, bool | None]]

WIDTHS = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0)
CLAIMS = (None, *WIDTHS[1:])
DISTANCES = (1, 2, 4)  # thin slices
PROFILES: tuple[Profile, ...] = ("box", "triangle", "gaussian")
LEAST, MOST = 10, 40  # slices of a stack
SIDE = 256  # pixels
NOISE_HU = 60.0


def thicken(thin: Stack, spacing_mm: float, thin_mm: float, width: float, distance: int, profile: Profile) -> Stack:
    """Thick slices well inside of the thin volume, whole HU; fewer than LEAST where it is short."""
    distance_mm = distance * spacing_mm
    count = max(0, min(MOST, int(len(thin) / distance - 2 * width) + 1))
    thin_at = (np.arange(len(thin)) - (len(thin) - 1) / 2) * spacing_mm
    thick_at = (np.arange(count) - (count - 1) / 2) * distance_mm
    weights = slice_weights(
        profile,
        thin_at - thick_at[:, None],
        thin_spacing_mm=spacing_mm,
        thin_thickness_mm=thin_mm,
        thick_thickness_mm=width * distance_mm,
    )
    weights /= weights.sum(axis=1, keepdims=True)
    return np.rint(np.tensordot(weights.astype(np.float32), thin, 1))


def variants(thick: Stack, noisy: Stack) -> Iterator[tuple[str, Stack]]:
    """The stack, and what else it might have been."""
    yield "whole", thick
    y, x = (side // 2 for side in thick.shape[1:])
    middle = max(0, len(thick) // 2 - 8)
    yield "small", thick[middle : middle + 16, y - 32 : y + 32, x - 32 : x + 32]
    yield "soft", np.rint(gaussian_filter(thick, (0, 1.5, 1.5)))
    yield "noisy", noisy


class Thin(NamedTuple):
    """A thin volume: its name, HU (z, y, x), and the distance and thickness of its slices in mm."""

    name: str
    hu: Stack
    spacing_mm: float
    thickness_mm: float


def volumes(folder: Path) -> Iterator[Thin]:
    """Each volume that is not for testing."""
    for line in (folder / "index.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["use"] != "test":
            image = nib.load(folder / entry["file"])
            hu = np.asarray(image.dataobj, np.float32).T[:, :SIDE, :SIDE]
            yield Thin(entry["id"], hu, float(image.header.get_zooms()[2]), float(entry["slice_thickness_mm"]))


def table(name: str, counts: Counts) -> None:
    """Rows: the claimed width; columns: the true one."""
    print(f"\n{name}: contradicted / not / cannot tell; without a claim: taken for overlapping / not / cannot tell\n")
    print("| claimed \\ true |" + "".join(f" {width:g} |" for width in WIDTHS))
    print("|---|" + "---|" * len(WIDTHS))
    for claim in CLAIMS:
        cells = ["/".join(str(counts[claim, true, told]) for told in (True, False, None)) for true in WIDTHS]
        print(f"| {claim or 'none'} |" + "".join(f" {cell} |" for cell in cells), flush=True)


def count(hu: Stack, true: float, counts: Counts, label: str) -> None:
    """Judge one stack under every claim; says a false alarm at once."""
    measured = {lags: shared_noise(hu, lags) for lags in {lags_for(claim or 1.0, len(hu)) for claim in CLAIMS}}
    for claim in CLAIMS:
        noise = measured[lags_for(claim or 1.0, len(hu))]
        found = verdict(noise, 1.0, claim)
        silent = noise is None or (
            claim and box_correlation(claim, noise.lags) < CORRELATION_MARGIN + SURE * noise.standard_error
        )
        told = None if silent else found.warning is not None
        counts[claim, true, told] += 1
        if told and claim and claim <= true:
            print(f"false alarm: {label}, {true:g} wide, {claim:g} claimed, {noise}")


def harm(name: str, thin: Stack, distance: int = 4, count: int = 24) -> None:
    """RMSE in HU of projected cubic interpolation, by the true profile (rows) and the width of the box that is used."""
    start, sides = (len(thin) - count * distance) // 2, [side // 2 - 64 for side in thin.shape[1:]]
    if start < 0:
        return
    truth = torch.from_numpy(thin[start : start + count * distance, sides[0] :, sides[1] :][:, :128, :128])
    for profile, true in (("box", 1.0), ("triangle", 1.0), ("box", 1.5), ("box", 2.0), ("gaussian", 2.0)):
        thick = operator(count, distance, true, profile).forward(truth)
        edge = slice(2 * distance, -2 * distance)
        errors = []
        for used in WIDTHS[:-1]:
            error = cubic_projected(thick, operator(count, distance, used, "box")) - truth
            errors.append(f"{error[edge].square().mean().sqrt().item():.0f}")
        print(f"| {name}: {profile}, {true:g} | " + " | ".join(errors) + " |", flush=True)


def operator(count: int, distance: int, width: float, profile: Profile) -> ThickeningOperator:
    """`count` thick slices of `width` distances."""
    return ThickeningOperator.from_geometry(
        n_thick=count,
        thick_spacing_mm=distance,
        thick_thickness_mm=width * distance,
        n_thin=count * distance,
        thin_spacing_mm=1,
        thin_thickness_mm=1,
        first_thin_offset_mm=-(distance - 1) / 2,
        profile=profile,
    )


@click.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(folder: Path) -> None:
    """Measure."""
    tables: dict[str, Counts] = {}
    for name, thin, spacing_mm, thin_mm in volumes(folder):
        noisy = thin + np.random.default_rng(0).normal(0, NOISE_HU, thin.shape).astype(np.float32)
        for distance, width, profile in product(DISTANCES, WIDTHS, PROFILES):
            how = (spacing_mm, thin_mm, width, distance, profile)
            if width * distance * spacing_mm < 1.99 * thin_mm or len(thick := thicken(thin, *how)) < LEAST:
                continue
            for kind, stack in variants(thick, thicken(noisy, *how)):
                count(stack, width, tables.setdefault(f"{kind}, {profile}", Counter()), f"{name} {kind} {how}")
        print(name, flush=True)
    for kind, counts in sorted(tables.items()):
        table(kind, counts)
    table("all", sum(tables.values(), Counter()))
    print("\n| true profile, used width |" + "".join(f" {width:g} |" for width in WIDTHS[:-1]))
    print("|---|" + "---|" * len(WIDTHS[:-1]))
    for thin in volumes(folder):
        harm(thin.name, thin.hu)


if __name__ == "__main__":
    main()
