"""What an archive of DICOM is asked and answers, whatever language it speaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

from pydicom.dataset import Dataset

UNDATED = "none"
MAKER = "ctinterp"  # Manufacturer (0008,0070) of results


@dataclass(frozen=True)
class Query:
    """What series are looked for; what is empty matches all.

    Attributes:
        patient: PatientID (0010,0020).
        study: StudyInstanceUID (0020,000D).
        series: SeriesInstanceUID (0020,000E).
        date: StudyDate (0008,0020), a day or a range: 20260101, 20260101-20260131, 20260101-; `none` for studies that
            have no date, which no day or range matches.
        description: SeriesDescription (0008,103E), with * and ?, whatever the case; matched here, as archives differ.
        modality: Modality (0008,0060).
    """

    patient: str = ""
    study: str = ""
    series: str = ""
    date: str = ""
    description: str = "*"
    modality: str = "CT"

    @property
    def asked_date(self) -> str:
        """What an archive is asked for: of dates that are absent it can say nothing, so that they are matched here."""
        return "" if self.date == UNDATED else self.date

    def takes(self, series: "Series") -> bool:
        """Whether a series is what was asked for, as some archives answer more than that."""
        return (
            fnmatchcase(series.description.lower(), self.description.lower())
            and self.modality in {"", series.modality}
            and self.series in {"", series.uid}
            and (self.date != UNDATED or not series.date)
        )


@dataclass(frozen=True)
class Series:
    """A series as an archive lists it. Identifies a person: not for logs.

    Attributes:
        study: StudyInstanceUID.
        uid: SeriesInstanceUID.
        patient: PatientID.
        date: StudyDate.
        description: SeriesDescription.
        number: SeriesNumber.
        modality: Modality.
        maker: Manufacturer; empty where the archive does not list it.
        count: NumberOfSeriesRelatedInstances; empty where the archive does not list it.
    """

    study: str
    uid: str
    patient: str
    date: str
    description: str
    number: str
    modality: str
    maker: str
    count: str


@dataclass(frozen=True)
class Images:
    """The images of a series as an archive lists them.

    Attributes:
        uids: their SOPInstanceUIDs.
        thickness_mm: the least SliceThickness (0018,0050); None where the archive does not list it.
    """

    uids: frozenset[str]
    thickness_mm: float | None


SERIES_FIELDS = (
    "PatientID", "StudyDate", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "SeriesNumber", "Modality",
    "Manufacturer", "NumberOfSeriesRelatedInstances",
)  # fmt: skip


def series_of(answer: Dataset) -> Series:
    """A series of the data set that an archive answers with; what it leaves out is empty."""
    text = {keyword: str(answer.get(keyword) or "") for keyword in SERIES_FIELDS}
    return Series(
        study=text["StudyInstanceUID"],
        uid=text["SeriesInstanceUID"],
        patient=text["PatientID"],
        date=text["StudyDate"],
        description=text["SeriesDescription"],
        number=text["SeriesNumber"],
        modality=text["Modality"],
        maker=text["Manufacturer"],
        count=text["NumberOfSeriesRelatedInstances"],
    )


def images_of(answers: Sequence[Dataset]) -> Images:
    """The images of the data sets that an archive answers with, each with its SOPInstanceUID."""
    thickness_mm = [float(a.SliceThickness) for a in answers if a.get("SliceThickness")]
    return Images(frozenset(str(a.SOPInstanceUID) for a in answers), min(thickness_mm, default=None))


class Archive(Protocol):
    """An archive that can be asked.

    Every method raises `PacsError` where the archive cannot be reached, refuses, or does not answer as it should.
    """

    def find(self, query: Query) -> list[Series]:
        """The series that match, in the order of the archive; none is an empty list.

        Args:
            query: what is asked for.

        Raises:
            PacsError: the archive does not answer, or refuses.
        """

    def images(self, series: Series) -> Images:
        """What the archive has of a series now, which may be less than was sent: images arrive one by one.

        Args:
            series: whose `study` and `uid` say which.

        Returns:
            Their UIDs, and the least SliceThickness in mm where the archive lists it.

        Raises:
            PacsError: the archive does not answer, or refuses.
        """

    def fetch(self, series: Series, folder: Path) -> None:
        """Write the images of a series, a `.dcm` file each, as the archive keeps them.

        Args:
            series: whose `study` and `uid` say which.
            folder: where the files go; it exists.

        Raises:
            PacsError: the archive does not answer, refuses, or gave some images only.
        """

    def send(self, files: Sequence[Path]) -> None:
        """Have the archive keep DICOM images; it has taken every one of them when this returns.

        Args:
            files: one image each.

        Raises:
            PacsError: the archive does not answer, or did not take them all.
        """
