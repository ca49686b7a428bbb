"""The tables of `python -m benchmarks.planted`, over all scans of its records."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from benchmarks.evidence import CONTRASTS_HU, ORDER, table
from benchmarks.invented import LEAST_HU, SIZES_MM
from ctinterp_dagster.evaluation.evidence_tables import Table
from ctinterp_dagster.methods import Role, names

RIVALS = [name for name in names(Role.RIVAL) if name != "nearest"]


def planted_tables(records: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Detection and contrast by tissue, size and contrast: means over scans, weighted by places."""
    rows = pd.DataFrame([row for record in records for row in record["planted"]])
    weighted = rows.assign(area=rows["area"] * rows["places"], kept=rows["kept"] * rows["places"])
    keys = ["tissue", "kind", "size_mm", "contrast_hu", "method"]
    sums = weighted.groupby(keys)[["area", "kept", "places"]].sum()
    places = sums.xs("model", level="method")["places"]
    counted = f"{len(records)} scans, {places.min():g} to {places.max():g} places a cell"
    for score, title in {"area": "Area under the ROC curve", "kept": "Share of the contrast that is kept"}.items():
        means = (sums[score] / sums["places"]).reset_index(name="mean").pivot_table("mean", keys[:-1], "method")
        means["classical"] = means[RIVALS].max(axis=1)
        for tissue, contrasts in CONTRASTS_HU.items():
            if tissue not in means.index.get_level_values("tissue"):
                continue
            here = means.loc[tissue]
            lines = [
                [f"{kind}, {size:g} mm", *(_cell(here, (kind, size, hu), score) for hu in contrasts)]
                for kind, size in sorted({(kind, size) for kind, size, _ in here.index})
            ]
            heading = f"{title}, {tissue}: {' / '.join(_methods(score))}; {counted}"
            yield table([tissue, *(f"{hu} HU" for hu in contrasts)], lines, heading)


def _methods(score: str) -> list[str]:
    return ["nearest", "classical", "model", "sample", *(["truth"] if score == "area" else [])]


def _cell(means: pd.DataFrame, key: tuple[str, float, float], score: str) -> str:
    if key not in means.index:
        return "-"
    values = [means.loc[key].get(name, float("nan")) for name in _methods(score)]
    return " / ".join("-" if pd.isna(value) else f"{value:.2f}" for value in values)


def counted_tables(records: Sequence[dict[str, Any]]) -> Iterator[Table]:
    """Structures that the truth lacks, and that the estimate lacks, by method and threshold, summed over scans."""
    rows = pd.DataFrame([row for record in records for row in record["counted"]])
    for (region, size), group in rows.groupby(["region", "size_mm"]):
        sums = group.groupby(["method", "least_hu"], sort=False)[["found", "invented", "true", "lost"]].sum()
        cells = (sums.astype(str)["invented"] + " of " + sums.astype(str)["found"]).str.cat(
            sums.astype(str)["lost"] + " of " + sums.astype(str)["true"], sep="; "
        )
        litres = group[group["method"] == "model"].groupby("least_hu")["litres"].sum().iloc[0]
        lines = [[name, *cells.loc[name]] for name in (*ORDER[1:], "sample")]
        heading = f"{region}, {size:g} mm, {litres:.2f} l: invented of found; lost of true"
        yield table(["method", *(f"{hu:g} HU" for hu in LEAST_HU)], lines, heading)


def warning_table(records: Sequence[dict[str, Any]]) -> Table:
    """How well the standard deviation ranks the errors of the model, against the contrast of the thick slices."""

    def pair(record: dict[str, Any], key: str) -> str:
        values = [record["warned"][f"{score}_{key}"] for score in ("std", "thick")]
        return " / ".join("-" if value is None else f"{value:.2f}" for value in values)

    header = ["std / thick contrast", "worst tenth of voxels", f"invented, {SIZES_MM[0]:g} mm", "error left (at best)"]
    lines = [
        [
            record["case"],
            pair(record, "area_voxels"),
            f"{pair(record, 'area_invented')} ({record['warned']['invented']} of {record['warned']['found']})",
            f"{pair(record, 'error_left')} ({record['warned']['best_error_left']:.2f})",
        ]
        for record in records
    ]
    return table(header, lines, "What the standard deviation, and the contrast of the thick slices, tell of errors")
