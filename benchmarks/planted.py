"""What restoring loses and invents: structures that are planted into thin scans, and those that are there anyway.

    python -m benchmarks.planted records.json THIN ...    adds the scans that records.json lacks, prints the tables;
                                                          without THIN the tables alone; THIN,MM where slices overlap
    --picture FILE.png                                    draws the worst cases of the last scan

Balls (nodules, calcifications) and cracks (fractures) are added to the thin slices before 5 mm slices are made of them.
The same scan without them is the twin. docs/evidence.md has the tables, and says how to read them.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from scipy.stats import mannwhitneyu

from benchmarks.evidence import CONTRASTS_HU, MODEL, EvidenceFile, table, thickened, thin_scan, usual
from benchmarks.invented import LEAST_HU, SIZES_MM, counted, warned
from benchmarks.planted_tables import counted_tables, planted_tables, warning_table
from benchmarks.worst import Case, picture
from ctinterp_dagster.evaluation.evidence import share_kept
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.evaluation.planting import (
    BONE,
    CRACKS,
    LUNG,
    SOFT,
    Planted,
    Structure,
    around,
    candidates,
    is_apart,
    paint,
    tissue_around,
)  # fmt: skip
from ctinterp_dagster.evaluation.structures import blob_response, ranking, regions, unmatched
from ctinterp_dagster.interpolation import Interpolator, Measurement, load_checkpoint
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.scan.volume import DoubleArray, FloatArray, Volume

DIAMETERS_MM, CRACK_MM = (2, 4, 8), 8
AROUND_MM = 6.0  # what must be one tissue around a structure
BETWEEN_MM = (15.0, 11.0, 11.0)  # from structure to structure
FROM_END_MM = (17.0, 11.0, 11.0)
ROOM_MM = 2.0  # that an observer sees around a structure
SAMPLES = 2  # of the twin; one of each planting
FEWEST = 8  # places of a structure in a scan
STRONG_HU, WORST_PLACES = 200, 0.2


STRUCTURES = (
    *(Structure(LUNG, "ball", size, hu) for size in DIAMETERS_MM for hu in CONTRASTS_HU[LUNG]),
    *(Structure(SOFT, "ball", size, hu) for size in DIAMETERS_MM for hu in CONTRASTS_HU[SOFT]),
    *(Structure(BONE, crack, CRACK_MM, hu) for crack in CRACKS for hu in CONTRASTS_HU[BONE]),
)


def sites(thin: Volume, rng: np.random.Generator) -> Planted:
    """Structures and their places (mm, as for `paint`), far from each other; every structure of a tissue as often.

    Bone is the rarest, and comes first.

    Args:
        thin: the scan.
        rng: of all choices.

    Returns:
        Structures with their places.
    """
    where = tissue_around(thin.hu, thin.spacing_mm, AROUND_MM)
    chosen: Planted = []
    for tissue in (BONE, SOFT, LUNG):
        places = candidates(thin, where[tissue], FROM_END_MM, rng, rng.random(3))
        kinds = [structure for structure in STRUCTURES if structure.tissue == tissue]
        order, count = rng.permutation(len(kinds)), 0
        for place in places:
            if is_apart(place, (other for _, other in chosen), BETWEEN_MM):
                chosen.append((kinds[order[count % len(kinds)]], place))
                count += 1
    return chosen


def observed(present: FloatArray, absent: FloatArray) -> float:
    """Area under the ROC curve of a non-prewhitening matched filter that knows size, contrast and place.

    Its template is the mean of what the structure adds at the other places, so that it is of the method's own images
    and never of the place that is judged.

    Args:
        present: (n, z, y, x) HU around n structures.
        absent: the same places of the twin.

    Returns:
        0 to 1, 0.5 by chance.

    Source: Barrett and Myers 2004, Foundations of Image Science, section 13.2; the area is Mann and Whitney's U / n^2.
    """
    n = len(present)
    flat = [(values - values.mean((1, 2, 3), keepdims=True)).reshape(n, -1) for values in (present, absent)]
    added = flat[0] - flat[1]
    templates = (added.sum(axis=0) - added) / (n - 1)
    scores = [(templates * values).sum(axis=1) for values in flat]
    return float(mannwhitneyu(*scores).statistic) / n**2


def restored(measurement: Measurement, model: Interpolator, samples: int) -> dict[str, FloatArray]:
    """HU by name: the truth, the estimates of all methods, a sample and the deviation where some are drawn."""
    drawn: list[Any] = []
    estimate = model.restore(measurement, usual(model, samples), on_sample=lambda _, hu: drawn.append(hu))
    volumes = {"truth": measurement.known.hu, **{name: it(measurement).mean.hu for name, it in METHODS.items()}}
    volumes["model"] = estimate.mean.hu
    if estimate.std is not None:
        volumes |= {"sample": drawn[0].numpy(), "std": estimate.std.hu}
    return volumes


@dataclass(frozen=True)
class Found:
    """What was planted at a place, and the voxels around it by method, HU: with the structure and without."""

    structure: Structure
    centre_mm: DoubleArray
    present: dict[str, FloatArray]
    absent: dict[str, FloatArray]

    def share_kept(self, method: str) -> float:
        """The contrast of the structure in an estimate over that in the truth, by least squares."""
        return share_kept(*(self.present[name] - self.absent[name] for name in (method, "truth")))


def plant(thin: Volume, seed: int) -> tuple[Volume, Planted]:
    """A scan with structures, and where they are."""
    scan, chosen = thin.with_hu(thin.hu.copy()), sites(thin, np.random.default_rng(seed))
    for structure, centre in chosen:
        paint(scan, centre, structure)
    return scan, chosen


def cut_out(
    chosen: Planted, made: dict[str, FloatArray], twin: dict[str, FloatArray], spacing_mm: tuple[float, ...]
) -> Iterator[Found]:
    """The voxels around every structure."""
    for structure, centre in chosen:
        cut = around(made["truth"].shape, spacing_mm, centre, structure.reach_mm + ROOM_MM)
        present, absent = ({name: hu[cut].copy() for name, hu in of.items() if name in made} for of in (made, twin))
        yield Found(structure, centre, present, absent)


def worst_cases(
    found: list[Found], made: dict[str, FloatArray], twin: dict[str, FloatArray], spacing_mm: tuple[float, ...]
) -> Iterator[Case]:
    """Of balls and cracks the one that the model keeps least of, and its strongest structure that the truth lacks."""
    for ball in (True, False):
        shown = [
            it for it in found if (it.structure.kind == "ball") == ball and abs(it.structure.contrast_hu) >= STRONG_HU
        ]
        if shown:
            shares = [it.share_kept("model") for it in shown]
            it = shown[int(np.argmin(shares))]
            at = it.structure
            title = f"planted: {at.kind} of {at.size_mm:g} mm, {at.contrast_hu:g} HU: the model keeps {min(shares):.2f}"
            centre = [int(mm / step) for mm, step in zip(it.centre_mm, spacing_mm, strict=True)]
            yield Case(title, at.tissue, (centre[0], centre[1], centre[2]), made)
    own, truth = (blob_response(twin[name], spacing_mm, SIZES_MM[0]) for name in ("model", "truth"))
    for region, inside in regions(twin["truth"], spacing_mm).items():
        _, invented = unmatched(own, truth, LEAST_HU[0], spacing_mm)
        if (invented & inside).any():
            z, y, x = np.unravel_index(np.argmax(np.where(invented & inside, own, -np.inf)), own.shape)
            yield Case(f"invented in {region}: {own[z, y, x]:.0f} HU", region, (int(z), int(y), int(x)), twin)


def judged(found: list[Found]) -> Iterator[dict[str, Any]]:
    """A record a structure and method of one scan."""
    by_structure = defaultdict(list)
    for it in found:
        by_structure[it.structure].append(it)
    for structure, everywhere in by_structure.items():
        for method in ("truth", *METHODS, "model", "sample"):
            places = [it for it in everywhere if method in it.present]
            if len(places) < FEWEST:
                continue
            present, absent = (np.stack([getattr(it, part)[method] for it in places]) for part in ("present", "absent"))
            kept = np.mean([it.share_kept(method) for it in places])
            scores = {"area": observed(present, absent), "kept": float(kept)}
            yield {"method": method, **asdict(structure), "places": len(places), **scores}


def alarmed(found: list[Found]) -> dict[str, Any]:
    """Whether the standard deviation is greater where the model errs most: among places, and for what is planted."""
    rms = np.array([np.sqrt(np.square(it.present["model"] - it.present["truth"]).mean()) for it in found])
    std, before = (
        np.array([np.sqrt(np.square(getattr(it, part)["std"]).mean()) for it in found])
        for part in ("present", "absent")
    )
    strong = np.array([it.structure.contrast_hu >= STRONG_HU for it in found])
    rise = np.median(std[strong] / before[strong])
    return {
        "places": len(found), "area_places": ranking(std, rms >= np.quantile(rms, 1 - WORST_PLACES)),
        "strong": int(strong.sum()), "rise_strong": float(rise),
    }  # fmt: skip


def measured(argument: str, side: int, replicates: int, model: Interpolator) -> tuple[dict[str, Any], bytes]:
    """The record of a scan, and the picture of its worst cases."""
    case, thin, thickness_mm = thin_scan(argument, side)
    measurement = thickened(thin, thickness_mm)
    twin, spacing = restored(measurement, model, SAMPLES), measurement.known.spacing_mm
    found: list[Found] = []
    for seed in range(replicates):
        scan, chosen = plant(thin, seed)
        made = restored(thickened(scan, thickness_mm), model, 1)
        last = list(cut_out(chosen, made, twin, spacing))
        found += last
        print(f"{case}: {len(last)} structures", flush=True)
    record = {
        "case": case, "side": side, "replicates": replicates, "shape": measurement.known.hu.shape,
        "planted": list(judged(found)), "alarmed": alarmed(found),
        "counted": list(counted(twin, spacing)), "warned": warned(measurement, twin),
    }  # fmt: skip
    return record, picture(list(worst_cases(last, made, twin, spacing)), spacing)


def tables(records: list[dict[str, Any]]) -> Iterator[Table]:
    """All that was measured."""
    yield from planted_tables(records)
    yield from counted_tables(records)
    yield warning_table(records)
    yield table(
        ["case", "worst fifth of planted places", "over 200 HU, deviation over the twin's"],
        [[it["case"], f"{it['alarmed']['area_places']:.2f}", f"{it['alarmed']['rise_strong']:.2f}"] for it in records],
        "What the standard deviation tells of planted structures: area under the ROC curve; median ratio",
    )


@click.command
@click.argument("records", type=click.Path(path_type=Path))
@click.argument("scans", nargs=-1, metavar="THIN")
@click.option("--side", default=128, help="pixels of the middle of each slice, 0 for all")
@click.option("--replicates", default=3, help="plantings a scan")
@click.option("--pictures", type=click.Path(path_type=Path), help="folder for a PNG a scan")
@MODEL
def main(
    records: Path, scans: tuple[str, ...], side: int, replicates: int, pictures: Path | None, model_file: Path
) -> None:
    """Measure what RECORDS lacks, and print the tables of all."""
    file = EvidenceFile(records, model_file)
    model = load_checkpoint(model_file, "cpu")
    for argument in scans:
        record, drawn = measured(argument, side, replicates, model)
        file.records = [other for other in file.records if other["case"] != record["case"]] + [record]
        file.save(tables(file.records))
        if pictures:
            (pictures / f"worst-{record['case']}.png").write_bytes(drawn)
    print(*tables(file.records), sep="\n\n")


if __name__ == "__main__":
    main()
