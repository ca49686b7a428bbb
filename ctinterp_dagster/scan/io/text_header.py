"""The text headers of MetaImage and NRRD, looked at before ITK parses them: it crashes or hangs on some."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from ctinterp_dagster.errors import GeometryError, NotCtError, UnreadableScanError, WrongUnitsError
from ctinterp_dagster.scan.io.images import unit_mm

META_SUFFIXES = (".mha", ".mhd")
HEADER_BYTES = 1 << 16
MAX_AXES = 5
MAX_NUMBER = 1e6  # voxels along an axis, mm
MAX_LINE = 500  # of a field of NRRD; ITK writes messages about longer ones past the end of its buffer
# The end of a header: the line of the data file in MetaImage, an empty line in NRRD.
END = {True: re.compile(rb"^ElementDataFile\s*[=:].*\r?\n?", re.MULTILINE), False: re.compile(rb"\r?\n\r?\n")}
LINE = re.compile(r"^\s*([\w ]+?)\s*(?:=|:(?!=))\s*(.*?)\s*$")
# The name of a data file, and none of: these values follow, a list follows, a pattern of numbered files.
OTHER_FILE = re.compile(r"(?!local\s*$|list(\s|$))(?=.*\S)[^%]*$", re.IGNORECASE)
# How many numbers a field may hold for n axes; a space may have time as its fourth.
NUMBERS: dict[str, Callable[[int], int]] = {
    "ndims": lambda _: 1, "dimsize": lambda n: n, "elementspacing": lambda n: n, "elementsize": lambda n: n,
    "offset": lambda n: n, "position": lambda n: n, "origin": lambda n: n, "centerofrotation": lambda n: n,
    "transformmatrix": lambda n: n * n, "orientation": lambda n: n * n, "rotation": lambda n: n * n,
    "elementnumberofchannels": lambda _: 1,
    "headersize": lambda _: 1, "byte skip": lambda _: 1, "line skip": lambda _: 1, "byteskip": lambda _: 1,
    "lineskip": lambda _: 1,
    "dimension": lambda _: 1, "sizes": lambda n: n, "spacings": lambda n: n, "space directions": lambda n: 4 * n,
    "space origin": lambda _: 4, "space dimension": lambda _: 1, "thicknesses": lambda n: n,
}  # fmt: skip
# What the values of MetaImage's and NRRD's fields that ITK does not apply are where they change nothing.
VALUES_AS_STORED = {
    "elementtointensityfunctionslope": 1, "elementtointensityfunctionoffset": 0, "old min": None, "old max": None,
    "oldmin": None, "oldmax": None,
}  # fmt: skip
# Letters of x, y, z of LPS, along and against: MetaImage names where an axis comes from, some programs where it goes.
FROM, TO = ("RL", "AP", "IS"), ("LR", "PA", "SI")
CT = {"MET_MOD_CT", "MET_MOD_UNKNOWN", "MET_MOD_OTHER"}
UNKNOWN = {"spacings": {"nan"}, "thicknesses": {"nan"}, "space directions": {"none"}}  # NRRD's words for no number


def _refuse(what: str) -> NoReturn:
    raise UnreadableScanError(f"no readable file: its header has {what}; make it again")


def _fields(file: Path) -> tuple[dict[str, str], list[str]]:
    """The fields of a header by their names in lower case, and the lines that follow a LIST of data files."""
    meta = file.suffix.lower() in META_SUFFIXES
    with file.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    end = END[meta].search(head)
    if not end and (meta or len(head) == HEADER_BYTES):  # NRRD needs no empty line where the data lie elsewhere
        _refuse(f"no end within {min(len(head), HEADER_BYTES)} bytes")
    text = head[: end.end() if end else None].decode("latin-1")
    if re.search(r"[^\t\r\n\x20-\x7e\x80-\xff]", text):
        _refuse("bytes that are no text")
    lines = text.splitlines()
    if not meta and any(len(line) > MAX_LINE and ":=" not in line and line[0] != "#" for line in lines):
        _refuse(f"a line of more than {MAX_LINE} characters")
    fields = {found[1].lower(): found[2] for line in lines if not line.startswith("#") and (found := LINE.match(line))}
    listed = head[end.end() :] if end and meta else text.encode("latin-1").partition(b"LIST")[2]
    return fields, listed.decode("latin-1").splitlines()


def _check_numbers(name: str, value: str, axes: int) -> None:
    words = re.split(r"[\s,()]+", value.strip("() \t"))
    if len(words) > NUMBERS[name](axes) or value.count("(") > axes:
        _refuse(f"{len(words)} numbers in {name!r} for {axes} axes")
    for word in words:
        try:
            number = 0.0 if word.lower() in UNKNOWN.get(name, ()) else float(word)
        except ValueError:
            number = math.nan
        if not abs(number) <= MAX_NUMBER:
            _refuse(f"{word[:40]!r} in {name!r}, expected a number of at most {MAX_NUMBER:g}")


@dataclass(frozen=True)
class TextHeader:
    """A MetaImage or NRRD header, as far as ITK does not apply it.

    Attributes:
        fields: values by names in lower case.
        parts: the files beside it that hold its voxels, as far as they exist.
        meta: whether it is MetaImage.
    """

    fields: dict[str, str]
    parts: tuple[Path, ...]
    meta: bool

    def refuse_unapplied(self, unknown: Iterable[str]) -> None:
        """Refuse a header that says what ITK passes over, so that values or sizes would be wrong.

        Args:
            unknown: names of fields of which ITK made no use.

        Raises:
            WrongUnitsError: values that are not the stored ones.
            NotCtError: another modality.
            GeometryError: voxels without a size, or one that ITK does not find.
        """
        for name, plain in VALUES_AS_STORED.items():
            if name in self.fields and _number(self.fields[name]) != plain:
                raise WrongUnitsError(
                    f"the header has {name!r} {self.fields[name]}: the stored numbers are not the values, though most "
                    "programs take them for it; expected stored HU; write the file anew, without that field"
                )
        if self.meta and self.fields.get("modality", "MET_MOD_UNKNOWN").upper() not in CT:
            raise NotCtError(f"the modality is {self.fields['modality']!r}: expected MET_MOD_CT; give the CT")
        for name in unknown:
            if self.meta and name.lower() in NUMBERS:
                raise GeometryError(f"the header has {name!r}: MetaImage spells no field so; mind its upper case")
        if not self.meta and "space" not in self.fields:
            raise GeometryError("the NRRD header names no `space`: expected one, or left and right are unknown; add it")
        steps = [self.fields[k] for k in ("elementspacing", "elementsize", "space directions") if k in self.fields]
        if not steps or "none" in steps[0].lower():
            raise GeometryError(
                f"the header gives no {'ElementSpacing' if self.meta else 'space directions of all axes'}: expected "
                "one, or the size of the voxels is unknown; add it"
            )

    def unit_mm(self) -> float:
        """The millimetres of its unit of length.

        Returns:
            mm, above 0.

        Raises:
            GeometryError: an unknown one, or several.
        """
        if self.meta:
            return unit_mm(self.fields.get("distanceunits", ""))
        words = set(re.findall(r'"([^"]*)"', self.fields.get("space units", ""))[:3]) or {""}
        if len(words) > 1:
            raise GeometryError(f"`space units` are {', '.join(sorted(words))}: expected one of all axes; convert them")
        return unit_mm(words.pop())

    def remarks(self, direction: npt.NDArray[np.float64]) -> tuple[str, ...]:
        """What it says against the direction (3, 3; columns are LPS axes) that ITK reads from its TransformMatrix."""
        if not self.meta:
            return ()
        remarks = []
        named = self.fields.get("anatomicalorientation", "?").upper()
        if named.isalpha() and not any(_names(named, direction, letters) for letters in (FROM, TO)):
            remarks.append(
                f"AnatomicalOrientation is {named}, but the axes by TransformMatrix are "
                f"{direction.T.round(3).tolist()} (LPS): the matrix is taken"
            )
        centre = self.fields.get("centerofrotation", "0")
        if any(_number(word) for word in centre.split()) and not np.allclose(direction, np.eye(len(direction))):
            remarks.append(f"CenterOfRotation is {centre}, expected 0: voxels are turned about the first one")
        return tuple(remarks)


def _names(code: str, direction: npt.NDArray[np.float64], letters: Sequence[str]) -> bool:
    """Whether a letter for each axis is one of a direction that the axis follows more than another."""
    return all(
        any(letters[k][int(axis[k] < 0)] == letter for k in range(3) if abs(axis[k]) > 0.5)
        for letter, axis in zip(code, direction.T, strict=False)
    )


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def read_text_header(file: Path) -> TextHeader:
    """Check a MetaImage or NRRD header.

    Args:
        file: .mha, .mhd, .nrrd or .nhdr.

    Returns:
        Its fields, and the files beside it that hold its voxels.

    Raises:
        UnreadableScanError: no text, no end, numbers that are none or too many, or a data file that is absent or (it,
            or a link to it) outside of the header's folder.

    Source: MetaIO (ElementDataFile) and NRRD (`data file`) formats; both may be followed by a list, a name a line.
    """
    fields, listed = _fields(file)
    axes = fields.get("ndims", fields.get("dimension", ""))
    if not (axes.isdecimal() and 1 <= int(axes) <= MAX_AXES):
        _refuse(f"{axes[:40]!r} axes, expected 1 to {MAX_AXES}")
    for name, value in fields.items():
        if name in NUMBERS:
            _check_numbers(name, value, int(axes))
    skip = fields.get("byte skip", fields.get("byteskip", "0"))
    if skip.startswith("-") and fields.get("encoding", "").lower() != "raw":  # the end of a bomb is far away
        _refuse(f"a byte skip of {skip} in packed voxels, expected 0 or more")
    named = next((fields[k] for k in ("elementdatafile", "data file", "datafile") if k in fields), "LOCAL")
    found, absent = list[Path](), list[str]()
    for name in [named, *(listed if named.startswith("LIST") else ())]:
        part = file.parent / name.strip().replace("\\", "/").replace("\0", "")
        if not part.resolve().is_relative_to(file.parent.resolve()):
            raise UnreadableScanError(
                "the header names a data file outside of its own folder: expected one beside it; copy it there"
            )
        found.append(part)
        if OTHER_FILE.match(name) and not part.is_file():
            absent.append(name.strip())
    if absent and file.stat().st_size <= HEADER_BYTES:  # of a longer list the last name may be cut off
        raise UnreadableScanError(f"the values lie in {absent[0]!r}, which is not there: copy it beside the header")
    return TextHeader(fields, tuple(part for part in found if part.is_file()), file.suffix.lower() in META_SUFFIXES)
