"""Which scans many inputs hold, and what their results are called."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from ctinterp_dagster.cli.actions.outputs import Outputs
from ctinterp_dagster.cli.options.interpolate import Options
from ctinterp_dagster.errors import ParamsError
from ctinterp_dagster.scan.io import WRITABLE_SUFFIXES, Found, find_scans

ENDING = re.compile(r"(\.nii\.gz|\.nii|\.mha|\.mhd|\.nrrd|\.nhdr|\.zip)(?=/|$)", re.IGNORECASE)
UNSAFE = re.compile(r"[^\w+.-]+")


@dataclass(frozen=True)
class Item:
    """A scan among many.

    Attributes:
        parts: the stretches of a scan in their order, or the one scan.
        source: the INPUT that holds it.
        base: the folder of all inputs.
        path: its place there, without ending; of a scan in an archive without the folders
            there, which may name the patient.
    """

    parts: tuple[Found, ...]
    source: Path
    base: Path
    path: str

    @property
    def name(self) -> str:
        """What its user calls it: the INPUT and the place in it."""
        inside = self.parts[0].whole or self.parts[0].label
        return str(self.source / inside) if self.source.is_dir() else str(self.source.parent / inside)

    @property
    def title(self) -> str:
        """Description, date, slices of every stretch, and owner, as far as the headers tell. May name a person."""
        slices = " and ".join(part.slices for part in self.parts if part.slices)
        return ", ".join(filter(None, (self.parts[0].description, self.parts[0].date, slices, self.parts[0].owner)))

    @property
    def files(self) -> list[Path]:
        """Its files; the archive of one that lies in an archive."""
        return [file for part in self.parts for file in ([part.archive] if part.archive else part.files)]

    @property
    def fields(self) -> dict[str, str]:
        """What a pattern may name."""
        part = self.parts[0]
        number = "" if part.number is None else str(part.number)
        values = {"series": part.description, "number": number, "date": part.date, "uid": part.uid}
        safe = {field: UNSAFE.sub("_", value).strip("._") or "none" for field, value in values.items()}
        return {"path": self.path, "name": self.path.rpartition("/")[2], **safe}

    def place(self, folder: Path, pattern: str, number: int) -> Path:
        """Where a pattern puts it below a folder, as the `number`-th scan of the same name."""
        path = folder / pattern.format_map(self.fields)
        stem = stem_of(path)
        return path if number == 1 else path.with_name(f"{stem}-{number}{path.name.removeprefix(stem)}")


def items_of(sources: Sequence[Path]) -> list[Item]:
    """Every scan of some inputs, each once, in the order of their places.

    Args:
        sources: files, zips or folders.

    Returns:
        Scans sorted by their paths.

    Raises:
        MissingInputError: an input is not there.
        ParamsError: they lie on several drives of Windows.
    """
    try:
        base = Path(os.path.commonpath([(s if s.is_dir() else s.parent).absolute() for s in sources]))
    except ValueError as error:
        raise ParamsError(f"the INPUTs have no folder in common ({error}): run once for each drive") from error
    items: dict[tuple[tuple[Path, ...], str], Item] = {}
    for source in sources:
        wholes: dict[str, list[Found]] = {}
        for found in find_scans(source):
            wholes.setdefault(found.whole or found.name, []).append(found)
        for name, parts in wholes.items():
            item = Item(tuple(parts), source, base, _path(parts[0], name, source, base))
            items.setdefault((tuple(file.absolute() for file in item.files), name), item)
    return sorted(items.values(), key=lambda item: item.path)


def _path(found: Found, name: str, source: Path, base: Path) -> str:
    root = (source if source.is_dir() else source.parent).absolute()
    place = found.archive.absolute() / name.rpartition("/")[2] if found.archive else root / name
    return ENDING.sub("", place.relative_to(base).as_posix())


def named_outputs(items: Sequence[Item], options: Options) -> Iterator[tuple[Item, Outputs]]:
    """Each scan with the places of its results; where one of them is taken, all get a number.

    Args:
        items: the scans.
        options: of the command, with its patterns.

    Yields:
        Scans in their order, and no place twice.

    Raises:
        ParamsError: the names have an ending that is not known.
    """
    taken = set[str]()
    name = options.name or ("{path}" if options.as_dicom else "{path}.nii.gz")
    as_dicom = options.as_dicom or not name.lower().endswith(WRITABLE_SUFFIXES)
    ending = Path(name).suffix
    if as_dicom and ending and "{" not in ending:
        raise ParamsError(f"--name {name} has no known ending: give {', '.join(WRITABLE_SUFFIXES)}, or none for DICOM")
    maps = {item.place(item.base, str(label), 1) for item in items for label, _ in options.labels}
    for item in items:
        if maps.intersection(file.absolute() for file in item.files):
            continue
        for number in count(1):
            outputs = _numbered(item, options, name, number, as_dicom=as_dicom)
            places = {str(place).casefold() for place in outputs.paths}
            if not places & taken:
                break
        taken |= places
        yield item, outputs


def _numbered(item: Item, options: Options, name: str, number: int, *, as_dicom: bool) -> Outputs:
    """The places of the results of the `number`-th scan of the same name."""
    patterns = (name, options.std, options.draws, options.preview)
    thin, std, draws, preview = (item.place(options.output, str(own), number) if own else None for own in patterns)
    assert thin is not None  # it has a pattern
    labels = tuple(
        (item.place(item.base, str(label), 1), item.place(options.output, str(out), number))
        for label, out in options.labels
    )
    return Outputs(thin, std, draws, preview, None, as_dicom, options.as_multiframe, labels)


def stem_of(path: Path) -> str:
    """A file's name without the ending of a volume or a picture."""
    ending = next((s for s in (*WRITABLE_SUFFIXES[::-1], ".png") if path.name.lower().endswith(s)), "")
    return path.name[: len(path.name) - len(ending)]
