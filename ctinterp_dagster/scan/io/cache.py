"""Headers of DICOM files, read again only where a file is not what it was."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ctinterp_dagster.records import read_json, whole_file
from ctinterp_dagster.scan.identity import key_file, load_key, pseudonym
from ctinterp_dagster.scan.io.dicom import DicomFile, read_header
from ctinterp_dagster.scan.io.plane import Plane

FORMAT = 7  # another one, and what was kept is forgotten


class HeaderCache:
    """The headers of files below a folder, kept beside the site's key, readable by its owner only.

    A file is known by its path, size and time of change. Patients are kept, and given, as pseudonyms; descriptions
    and dates of series, and what cannot be read, are not kept.
    """

    def __init__(self, root: Path) -> None:
        """Load what is known."""
        self._path, self._key, self._root = key_file().with_name("headers.json"), load_key(), root.absolute()
        kept: Mapping[str, Any] = read_json(self._path) if self._path.exists() else {}
        self._known: dict[str, Sequence[Any]] = kept["files"] if kept.get("format") == FORMAT else {}
        self._asked: dict[str, Sequence[Any]] = {}

    def read(self, file: Path) -> DicomFile:
        """The header of a file, its patient a pseudonym.

        Args:
            file: DICOM.

        Returns:
            The header, from the cache where the file did not change.

        Raises:
            ScanError: it is not DICOM, is broken before its pixels, or its place in space is impossible.
        """
        status, name = file.stat(), str(file.absolute())
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(name)
        if known and known[0] == stamp:
            self._asked[name] = known
            return _header(file, known[1])
        header = read_header(file)
        patient, person = self._pseudonym(header.patient), self._pseudonym(header.person)
        header = replace(header, title=("", ""), patient=patient, person=person)
        self._asked[name] = (stamp, _record(header))
        return header

    def _pseudonym(self, patient: str) -> str:
        return pseudonym(patient, self._key) if patient else ""

    def save(self) -> None:
        """Keep what was asked for, and what lies elsewhere."""
        files = {name: entry for name, entry in self._known.items() if self._root not in Path(name).parents}
        if self._known == files | self._asked:
            return
        with whole_file(self._path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(json.dumps({"format": FORMAT, "files": files | self._asked}), encoding="utf-8")


def _record(header: DicomFile) -> dict[str, Any]:
    record = asdict(header)
    del record["file"]
    for plane in record["planes"]:
        del plane["file"]
    return record | {"rescale_types": sorted(header.rescale_types)}


def _header(file: Path, record: Mapping[str, Any]) -> DicomFile:
    planes = (Plane(file, **{key: _tuple(value) for key, value in plane.items()}) for plane in record["planes"])
    made = {
        "title": tuple(record["title"]),
        "image_type": tuple(record["image_type"]),
        "rescale_types": frozenset(record["rescale_types"]),
        "planes": tuple(planes),
    }
    return DicomFile(file=file, **(dict(record) | made))


def _tuple(value: object) -> Any:
    return tuple(value) if isinstance(value, list) else value
