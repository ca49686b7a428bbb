"""The option --profile."""

import csv
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

import click

from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.physics.profile import Profile, SampledProfile, profile_named

NAMED = ("box", "gaussian", "triangle")
METAVAR = f"auto|{'|'.join(NAMED)}|trapezoid:RAMP|FILE.csv"
WEIGHT_COLUMNS = ["offset_mm", "weight"]


class ProfileType(click.ParamType[Profile | Literal["auto"]]):
    """auto, a shape, trapezoid:RAMP, or a file of weights."""

    name = "profile"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The profile that is meant."""
        if not isinstance(value, str) or value in (*NAMED, "auto"):
            return value
        if value.startswith("trapezoid:"):
            try:
                return profile_named(value)
            except ParamsError:
                self.fail(f"{value!r} has no ramp above 0 and at most 1, as in trapezoid:0.5", param, ctx)
        if value.lower().endswith(".csv"):
            return read_profile(Path(value))
        near = get_close_matches(value, NAMED, n=1)
        meant = f": did you mean {near[0]!r}?" if near else ""
        return self.fail(f"{value!r} is none of {METAVAR}{meant}", param, ctx)


def read_profile(path: Path) -> SampledProfile:
    """Weights of a slice profile from a table with the columns offset_mm and weight.

    Args:
        path: a CSV file with a header; offsets in mm.

    Returns:
        The profile, which carries the name and hash of the file.

    Raises:
        MissingInputError: the file is not there.
        ParamsError: it is no such table, or no profile.
    """
    if not path.is_file():
        raise MissingInputError(f"{path} does not exist: give a table of {', '.join(WEIGHT_COLUMNS)}")
    rows = csv.DictReader(path.read_text(encoding="utf-8-sig", errors="replace").splitlines())  # Excel writes a mark
    try:
        pairs = [(float(row["offset_mm"] or ""), float(row["weight"] or "")) for row in rows]
        offsets_mm, weights = (tuple(column) for column in zip(*pairs, strict=True)) if pairs else ((), ())
        return SampledProfile(offsets_mm, weights, path.name, sha256sum(path))
    except (KeyError, ValueError, csv.Error, ParamsError) as error:
        raise ParamsError(
            f"{path} is no slice profile: {error}; its columns are {rows.fieldnames}, give numbers in columns of the "
            f"names {', '.join(WEIGHT_COLUMNS)}"
        ) from error
