"""The text headers of MetaImage and NRRD, looked at before ITK parses them: it crashes or hangs on some."""

import math
import re
from pathlib import Path

from ctinterp_dagster.errors import UnreadableScanError

HEADER_BYTES = 1 << 16
MAX_AXES = 5
MAX_NUMBER = 1e6  # voxels along an axis, mm
MAX_LINE = 500  # of a field of NRRD; ITK writes messages about longer ones past the end of its buffer
# The end of a header: the line of the data file in MetaImage, an empty line in NRRD.
END = {True: re.compile(rb"^ElementDataFile\s*[=:].*\r?\n?", re.MULTILINE), False: re.compile(rb"\r?\n\r?\n")}
LINE = re.compile(r"^\s*([\w ]+?)\s*(?:=|:(?!=))\s*(.*?)\s*$")
# How many numbers a field may hold for n axes; a space may have time as its fourth.
NUMBERS = {
    "ndims": lambda _: 1, "dimsize": lambda n: n, "elementspacing": lambda n: n, "elementsize": lambda n: n,
    "offset": lambda n: n, "position": lambda n: n, "origin": lambda n: n, "centerofrotation": lambda n: n,
    "transformmatrix": lambda n: n * n, "orientation": lambda n: n * n, "rotation": lambda n: n * n,
    "elementnumberofchannels": lambda _: 1,
    "headersize": lambda _: 1, "byte skip": lambda _: 1, "line skip": lambda _: 1, "byteskip": lambda _: 1,
    "lineskip": lambda _: 1,
    "dimension": lambda _: 1, "sizes": lambda n: n, "spacings": lambda n: n, "space directions": lambda n: 4 * n,
    "space origin": lambda _: 4, "space dimension": lambda _: 1, "thicknesses": lambda n: n,
}  # fmt: skip
UNKNOWN = {"spacings": {"nan"}, "thicknesses": {"nan"}, "space directions": {"none"}}  # NRRD's words for no number


def _damaged(what: str) -> UnreadableScanError:
    return UnreadableScanError(f"no readable file: its header has {what}; make it again")


def _fields(file: Path) -> tuple[dict[str, str], list[str]]:
    """The fields of a header by their names in lower case, and the lines that follow a LIST of data files."""
    meta = file.suffix.lower() in (".mha", ".mhd")
    with file.open("rb") as handle:
        head = handle.read(HEADER_BYTES)
    end = END[meta].search(head)
    if not end and (meta or len(head) == HEADER_BYTES):  # NRRD needs no empty line where the data lie elsewhere
        raise _damaged(f"no end within {min(len(head), HEADER_BYTES)} bytes")
    text = head[: end.end() if end else None].decode("latin-1")
    if re.search(r"[^\t\r\n\x20-\x7e\x80-\xff]", text):
        raise _damaged("bytes that are no text")
    lines = text.splitlines()
    if not meta and any(len(line) > MAX_LINE and ":=" not in line and line[0] != "#" for line in lines):
        raise _damaged(f"a line of more than {MAX_LINE} characters")
    fields = {found[1].lower(): found[2] for line in lines if not line.startswith("#") and (found := LINE.match(line))}
    listed = head[end.end() :] if end and meta else text.encode("latin-1").partition(b"LIST")[2]
    return fields, listed.decode("latin-1").splitlines()


def _check_numbers(name: str, value: str, axes: int) -> None:
    words = re.split(r"[\s,()]+", value.strip("() \t"))
    if len(words) > NUMBERS[name](axes) or value.count("(") > axes:
        raise _damaged(f"{len(words)} numbers in {name!r} for {axes} axes")
    for word in words:
        try:
            number = 0.0 if word.lower() in UNKNOWN.get(name, ()) else float(word)
        except ValueError:
            number = math.nan
        if not abs(number) <= MAX_NUMBER:
            raise _damaged(f"{word[:40]!r} in {name!r}, expected a number of at most {MAX_NUMBER:g}")


def data_files(file: Path) -> list[Path]:
    """Check a MetaImage or NRRD header; list the files beside it that hold its voxels, as far as they exist.

    Raises:
        UnreadableScanError: no text, no end, numbers that are none or too many, or a data file (or a link to one)
            outside of the header's folder.

    Source: MetaIO (ElementDataFile) and NRRD (`data file`) formats; both may be followed by a list, a name a line.
    """
    fields, listed = _fields(file)
    axes = fields.get("ndims", fields.get("dimension", ""))
    if not (axes.isdecimal() and 1 <= int(axes) <= MAX_AXES):
        raise _damaged(f"{axes[:40]!r} axes, expected 1 to {MAX_AXES}")
    for name, value in fields.items():
        if name in NUMBERS:
            _check_numbers(name, value, int(axes))
    skip = fields.get("byte skip", fields.get("byteskip", "0"))
    if skip.startswith("-") and fields.get("encoding", "").lower() != "raw":  # the end of a bomb is far away
        raise _damaged(f"a byte skip of {skip} in packed voxels, expected 0 or more")
    named = next((fields[k] for k in ("elementdatafile", "data file", "datafile") if k in fields), "LOCAL")
    found = []
    for name in [named, *(listed if named.startswith("LIST") else ())]:
        part = file.parent / name.strip().replace("\\", "/").replace("\0", "")
        if not part.resolve().is_relative_to(file.parent.resolve()):
            raise UnreadableScanError(
                "the header names a data file outside of its own folder: expected one beside it; copy it there"
            )
        found.append(part)
    return [part for part in found if part.is_file()]
