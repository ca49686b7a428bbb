"""What a wrong slice profile costs, and how often a stack tells its own; run by hand, in the root.

    python -m benchmarks.profiles cost FOLDER NAME        dB lost and mean |error|, by the true and the told profile
    python -m benchmarks.profiles pair THICK THIN         the same on a real pair, by the told profile
    python -m benchmarks.profiles recognition FOLDER      answers, by the true profile, of stacks made thick
    python -m benchmarks.profiles real PATH ...           tags, noise and answer of real scans

FOLDER holds thin volumes (NIfTI) and index.jsonl (`file`, `use`, `slice_thickness_mm`); test
volumes are not read.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch

from benchmarks.thickness import Stack, volumes
from benchmarks.thickness import operator as thickening
from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.evaluation.metrics import Scores
from ctinterp_dagster.interpolation import Interpolator, Measurement, Settings, load_checkpoint, paired
from ctinterp_dagster.physics.acquisition import Acquisition, Tags
from ctinterp_dagster.physics.operator import ThickeningOperator
from ctinterp_dagster.physics.profile import Profile, Trapezoid
from ctinterp_dagster.physics.recognition import MOST_ERROR, recognise
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from ctinterp_dagster.scan.checks import MIN_SLICES, check_volume
from ctinterp_dagster.scan.io import find_scans, read_scan
from ctinterp_dagster.scan.volume import Volume

FACTOR, THICK, SIDE = 5, 16, 72  # thin slices a thick one, thick slices, pixels
Shape = tuple[Profile, float]
GRIDS = ((4, 4), (5, 5), (6, 6), (8, 8), (5, 4), (6, 4), (4, 2), (8, 4))  # thin slices: thickness, distance
LEAST_MM, MOST_MM = 2.0, 8.0  # of thickness
FEWEST, MOST = 8, 24  # slices of a stack
NOISE_HU = 60.0
SHAPES: tuple[Shape, ...] = (
    ("box", 1.0), (Trapezoid(0.5), 1.0), ("triangle", 0.9), ("triangle", 1.0), ("gaussian", 0.9), ("gaussian", 1.0),
)  # fmt: skip


def label(shape: Shape) -> str:
    """Shape and width over the nominal thickness."""
    profile, width = shape
    return f"{profile} {width:g} T"


@click.group
def main() -> None:
    """Measure."""


def operator(shape: Shape) -> ThickeningOperator:
    """Thick slices of a shape, as far apart as they are thick."""
    profile, width = shape
    return thickening(THICK, FACTOR, width, profile)


def _middle(volume: Volume, side: int) -> Volume:
    y, x = ((n - side) // 2 for n in volume.hu.shape[1:])
    return replace(volume, hu=volume.hu[:, y : y + side, x : x + side].copy())


def scores(measurement: Measurement, model: Interpolator) -> Scores:
    """What the model's estimate scores."""
    (found,) = score_methods(measurement, {"model": model.by(Settings(mirror=True))})
    return found.scores


@main.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("name")
def cost(folder: Path, name: str) -> None:
    """Thicken the middle of a thin volume with each shape, restore it with each."""
    model = load_checkpoint()
    thin, spacing_mm = next((it.hu, it.spacing_mm) for it in volumes(folder) if it.name == name)
    z, y, x = ((n - m) // 2 for n, m in zip(thin.shape, (THICK * FACTOR, SIDE, SIDE), strict=True))
    hu = thin[z : z + THICK * FACTOR, y : y + SIDE, x : x + SIDE].copy()
    truth = Volume(hu, (spacing_mm, 0.7, 0.7), (0.0, 0.0, 0.0), torch.eye(3).numpy())
    print(f"\n| {name}: true \\ told |" + "".join(f" {label(told)} |" for told in SHAPES))
    print("|---|" + "---|" * len(SHAPES))
    for true in SHAPES:
        thick = operator(true).forward(torch.from_numpy(hu)).numpy()
        scan = truth.with_slices(thick, (FACTOR - 1) / 2, spacing_mm * FACTOR)
        found = [scores(Measurement(scan, operator(told), truth), model) for told in SHAPES]
        best = found[SHAPES.index(true)]
        cells = [
            f"{best.psnr_db - it.psnr_db:.2f} / {best.psnr_soft_db - it.psnr_soft_db:.2f}, {it.mae_hu:.1f}"
            for it in found
        ]
        print(f"| {label(true)} | " + " | ".join(cells) + " |", flush=True)


@main.command
@click.argument("thick", type=click.Path(exists=True, path_type=Path))
@click.argument("thin", type=click.Path(exists=True, path_type=Path))
def pair(thick: Path, thin: Path) -> None:
    """Restore a real thick scan with each shape."""
    model = load_checkpoint()
    coarse, fine = (_middle(read_scan(path).volume, 2 * SIDE) for path in (thick, thin))
    print("| told | PSNR dB | soft tissue dB | mean |error| HU |\n|---|---|---|---|")
    for told in SHAPES:
        profile, width = told
        it = scores(paired(coarse, fine, Acquisition(profile, width * coarse.spacing_mm[0])), model)
        print(f"| {label(told)} | {it.psnr_db:.2f} | {it.psnr_soft_db:.2f} | {it.mae_hu:.1f} |", flush=True)


def thickened(thin: Stack, shape: Shape, thickness: int, distance: int) -> Stack:
    """Thick slices well inside of the thin volume, their faces on faces of thin slices, whole HU."""
    profile, width = shape
    count = min(MOST, (len(thin) - 3 * thickness) // distance + 1)
    if count < FEWEST:
        return thin[:0]
    operator = ThickeningOperator.from_geometry(
        n_thick=count,
        thick_spacing_mm=distance,
        thick_thickness_mm=width * thickness,
        n_thin=len(thin),
        thin_spacing_mm=1,
        thin_thickness_mm=1,
        first_thin_offset_mm=-thickness - (thickness - 1) / 2,
        profile=profile,
    )
    return np.rint(operator.forward(torch.from_numpy(thin)).numpy())


class Kind(NamedTuple):
    """A way to take thin slices: its name, HU (z, y, x), and their distance in mm."""

    name: str
    hu: Stack
    spacing_mm: float


def kinds(thin: Stack, spacing_mm: float) -> Iterator[Kind]:
    """Thin slices whose noise is correlated along z as the scanner left it, less so, and hardly."""
    yield Kind("as it is", thin, spacing_mm)
    yield Kind("every second slice", thin[::2].copy(), 2 * spacing_mm)
    noise = np.random.default_rng(0).normal(0, NOISE_HU, thin.shape).astype(np.float32)
    yield Kind("60 HU of white noise", thin + noise, spacing_mm)


@main.command
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def recognition(folder: Path) -> None:
    """Thicken thin volumes with each shape and ask the stacks, without tags."""
    answers: dict[tuple[str, str, str], Counter[str]] = {}
    for name, thin, spacing_mm, thin_mm in volumes(folder):
        if thin_mm > 1.01 * spacing_mm:  # overlapping slices share noise that no profile made
            thin, spacing_mm = thin[::2].copy(), 2 * spacing_mm  # noqa: PLW2901
        for (kind, stack, mm), (thickness, distance), shape in product(kinds(thin, spacing_mm), GRIDS, SHAPES):
            if not LEAST_MM <= thickness * mm <= MOST_MM or not len(
                thick := thickened(stack, shape, thickness, distance)
            ):
                continue
            found = recognise(thick, distance * mm, Acquisition(tags=Tags(thickness * mm)))
            said = "cannot tell" if found.confidence == "guessed" else "box" if found.profile == "box" else "bell"
            said = said if found.noise and found.noise.standard_error <= MOST_ERROR else "too little tissue"
            grid = "touching" if thickness == distance else "overlapping"
            answers.setdefault((kind, grid, label(shape)), Counter())[said] += 1
            if (shape[0] == "box") != (said == "box") and said in ("box", "bell") and shape[0] != Trapezoid(0.5):
                print(f"wrong: {name} {kind} {mm:g} mm, {thickness} every {distance}, {label(shape)}: {found.reason}")
        print(name, flush=True)
    words = ("box", "bell", "cannot tell", "too little tissue")
    print("\n| stack | slices | true | " + " | ".join(words) + " |\n|---|---|---|" + "---|" * len(words))
    for key, counts in sorted(answers.items()):
        print("| " + " | ".join((*key, *(str(counts[word]) for word in words))) + " |")


@main.command
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
def real(paths: tuple[Path, ...]) -> None:
    """Ask real scans of slices over 1 mm apart."""
    print("| scan | slices | thickness, distance mm | helical | answer |\n|---|---|---|---|---|")
    for found in (scan for path in paths for scan in find_scans(path)):
        try:
            scan = read_scan(found)
            check_volume(scan.volume, min_slices=MIN_SLICES)
        except ScanError:
            continue
        mm, tags = scan.volume.spacing_mm[0], Tags(scan.thickness_mm, scan.helical)
        if mm > 1:
            answer = recognise(scan.volume.hu, mm, Acquisition(tags=tags))
            cells = (found.name, scan.volume.depth, f"{tags.thickness_mm}, {mm:g}", tags.helical, answer)
            print("| " + " | ".join(map(str, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
