"""Headers of DICOM files, read again only where a file is not what it was."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctinterp_dagster.records import read_json, whole_file
from ctinterp_dagster.scan.identity import key_file, load_key, pseudonym
from ctinterp_dagster.scan.io.dicom import DicomFile, read_header
from ctinterp_dagster.scan.io.grid import Plane

FORMAT = 1  # another one, and what was kept is forgotten


class HeaderCache:
    """The headers of files below a folder, kept beside the site's key, readable by its owner only.

    A file is known by its path, size and time of change. Patients are kept, and given, as pseudonyms. What cannot be
    read is not kept.
    """

    def __init__(self, root: Path) -> None:
        """Load what is known."""
        self._path, self._key, self._root = key_file().with_name("headers.json"), load_key(), root.absolute()
        kept: Mapping[str, Any] = read_json(self._path) if self._path.exists() else {}
        self._known: dict[str, Sequence[Any]] = kept["files"] if kept.get("format") == FORMAT else {}
        self._asked: dict[str, Sequence[Any]] = {}

    def read(self, file: Path) -> DicomFile:
        """The header of a file, its patient a pseudonym.

        Raises:
            ScanError: see `read_header`.
        """
        status, name = file.stat(), str(file.absolute())
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if known and known[0] == stamp:
            self._asked[name] = known
            return _header(file, known[1])
        header = read_header(file)
        header = replace(header, patient=pseudonym(header.patient, self._key) if header.patient else "")
        self._asked[name] = (stamp, _record(header))
        return header

    def save(self) -> None:
        """Keep what was asked for, and what lies elsewhere."""
        files = {name: entry for name, entry in self._known.items() if self._root not in Path(name).parents}
        if self._known == files | self._asked:
            return
        with whole_file(self._path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(json.dumps({"format": FORMAT, "files": files | self._asked}), encoding="utf-8")


def _record(header: DicomFile) -> dict[str, Any]:
    planes = [(p.frame, p.position_mm, p.orientation, p.pixel_mm, p.size) for p in header.planes]
    record = asdict(replace(header, planes=()))
    del record["file"]
    return record | {"rescales": list(header.rescales), "planes": planes}


def _header(file: Path, record: Mapping[str, Any]) -> DicomFile:
    def rescales() -> Iterator[tuple[float, float] | None]:
        for pair in record["rescales"]:
            yield None if pair is None else (pair[0], pair[1])

    planes = (Plane(file, frame, *map(tuple, values)) for frame, *values in record["planes"])
    made = {"image_type": tuple(record["image_type"]), "rescales": frozenset(rescales()), "planes": tuple(planes)}
    return DicomFile(file=file, **(dict(record) | made))
