"""Is the model better than interpolation on every grid? Its gain by factor, whole or not, scored as `evaluate` does.

usage: python benchmarks/grids.py grids.json THIN ...    adds what grids.json lacks, prints a table a scan; without THIN
       the tables alone; THIN,MM for slices of MM that overlap; --spacing 1 restores to 1 mm (more: --help)
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ctinterp_dagster.cli.actions.evaluate import fields_of
from ctinterp_dagster.errors import EvaluationError, ParamsError
from ctinterp_dagster.evaluation.metrics import check_size
from ctinterp_dagster.evaluation.statistics import best_baseline
from ctinterp_dagster.interpolation import Settings, load_checkpoint
from ctinterp_dagster.interpolation.interpolator import RELEASED
from ctinterp_dagster.params import ProfileName
from ctinterp_dagster.physics.baselines import METHODS
from ctinterp_dagster.physics.measurement import simulated
from ctinterp_dagster.pipeline.testset.scoring import score_methods
from ctinterp_dagster.records import file_hash, read_json, write_json
from ctinterp_dagster.scan.io import read_scan
from ctinterp_dagster.scan.volume import Volume

FACTORS = (1.2, 1.5, 2, 2.5, 3, 3.13, 3.5, 4, 5, 6, 6.25, 6.5, 7.5, 10, 12)
PROJECTED = "cubic_projected"
SCORES = {"psnr_db": 2, "mae_hu": 1}
KEYS = ["case", "crop", "profile", "spacing_mm", "model_hash"]


def cropped(thin: Volume, side: int) -> Volume:
    """The middle of every slice, `side` pixels wide; the whole of it for 0."""
    if not side:
        return thin
    starts = [max(0, (size - side) // 2) for size in thin.hu.shape[1:]]
    hu = np.ascontiguousarray(thin.hu[:, starts[0] : starts[0] + side, starts[1] : starts[1] + side])
    origin = thin.point_mm((0, *starts))
    return Volume(hu, thin.spacing_mm, (float(origin[0]), float(origin[1]), float(origin[2])), thin.direction)


def measured(scan: str, args: argparse.Namespace, known: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The records of each factor that is not known yet; factors for which a scan is too short are left out."""
    path, _, thickness = scan.partition(",")
    model, profile = load_checkpoint(args.model), args.profile
    labels = {"case": Path(path).name.split(".")[0], "crop": args.crop, "profile": profile}
    labels |= {"model_hash": file_hash(args.model)[:16]}
    thin = cropped(read_scan(Path(path)).volume, args.crop)
    for factor in args.factors:
        try:
            pair = simulated(thin, factor, profile, args.spacing, float(thickness) if thickness else None)
            check_size(pair.known.hu.shape, pair.factor)
        except (EvaluationError, ParamsError) as error:
            print(f"{labels['case']} factor={factor:g} left out: {error}", flush=True)
            continue
        here = labels | {"factor": factor, "spacing_mm": round(pair.known.spacing_mm[0], 4)}
        if any(here.items() <= record.items() for record in known):
            continue
        scored = score_methods(pair, {**METHODS, "model": model.by(Settings(memory_gib=args.memory_gib))})
        yield [here | {"method": it.method, "seconds": it.seconds, **fields_of(it.scores)} for it in scored]


def nearest_whole(factor: float, gains: dict[float, float]) -> float | None:
    """The gain at the whole factor nearest to this one, of two the smaller factor; None without any."""
    whole = sorted(other for other in gains if other == round(other))
    return gains[min(whole, key=lambda other: abs(other - factor))] if whole else None


def table(rows: pd.DataFrame) -> str:
    """The scores of one scan by factor as Markdown: PSNR dB / MAE HU."""
    groups = {float(str(factor)): group for factor, group in rows.groupby("factor")}
    values = {factor: group.set_index("method")[list(SCORES)] for factor, group in groups.items()}
    better = {"psnr_db": 1, "mae_hu": -1}
    gains = {
        name: {factor: sign * float(it.loc["model", name] - it.loc[PROJECTED, name]) for factor, it in values.items()}
        for name, sign in better.items()
    }

    def cell(factor: float, methods: Sequence[str]) -> str:
        pairs = zip(methods, SCORES.items(), strict=True)
        return " / ".join(f"{values[factor].loc[method, name]:.{digits}f}" for method, (name, digits) in pairs)

    def gain(factor: float, name: str) -> str:
        own, whole = gains[name][factor], nearest_whole(factor, gains[name])
        return f"{own:+.2f} ({'-' if whole is None else f'{own / whole:.2f}'})"

    lines = [
        f"| factor | {PROJECTED}; best classical | model | gain over {PROJECTED} (of the nearest whole factor's) |"
    ]
    lines += ["|---|---|---|---|"]
    for factor, group in groups.items():
        best = [
            best_baseline(group, name, method="model", higher_is_better=sign > 0, seed=0).baseline
            for name, sign in better.items()
        ]
        classical = f"{cell(factor, [PROJECTED] * 2)}; {cell(factor, best)} ({', '.join(dict.fromkeys(best))})"
        gained = " / ".join(gain(factor, name) for name in SCORES)
        lines.append(f"| {factor:g} | {classical} | {cell(factor, ['model'] * 2)} | {gained} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, write it after each factor, print every table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, help="JSON that is read, and written after each factor")
    parser.add_argument("scans", nargs="*", metavar="THIN")
    parser.add_argument("--factors", type=float, nargs="+", default=FACTORS)
    parser.add_argument("--spacing", type=float, help="slice distance of the truth in mm [the scan's own]")
    parser.add_argument("--profile", choices=ProfileName.__args__, default="box")
    parser.add_argument("--crop", type=int, default=0, help="pixels of the middle of each slice [all]")
    parser.add_argument("--model", type=Path, default=RELEASED)
    parser.add_argument("--memory-gib", type=float, default=3.0)
    args = parser.parse_args()
    records = read_json(args.records) if args.records.exists() else []
    for scan in args.scans:
        for new in measured(scan, args, records):
            records += new
            write_json(args.records, records)
            print(*(f"{it['factor']:g} {it['method']} {it['psnr_db']:.2f} {it['mae_hu']:.1f}" for it in new), sep="; ")
    for names, rows in pd.DataFrame(records).groupby(KEYS, sort=False) if records else ():
        print(f"\n{', '.join(f'{key} {name}' for key, name in zip(KEYS, names, strict=True))}\n\n{table(rows)}")


if __name__ == "__main__":
    main()
