"""DICOM networking: C-FIND, C-GET or C-MOVE, C-STORE (DICOM PS3.4, PS3.7, PS3.8)."""

import socket
import ssl
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count, product
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    LegacyConvertedEnhancedCTImageStorage,
    RLELossless,
)
from pynetdicom import AE, build_role, evt
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs.archive import SERIES_FIELDS, Images, Query, Series, images_of, series_of
from ctinterp_dagster.pacs.settings import Dimse
from ctinterp_dagster.scan.io.pixels import BROKEN

TIMEOUT_S = 60
IMAGES = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
SYNTAXES = (
    ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLosslessSV1,
    JPEGLossless, JPEGLSLossless, JPEG2000Lossless, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000,
)  # fmt: skip
PENDING, SUCCESS = {0xFF00, 0xFF01}, 0x0000
NO_RESOURCES = 0xA700
STORED_STATUSES = {SUCCESS, 0xB000, 0xB006, 0xB007}  # the last three are warnings, as of a coerced name (PS3.4 B.2.3)
RETRIEVED = {*PENDING, SUCCESS, 0xB000}  # the last one came with failures (PS3.4 C.4.2.1.5): images are counted anyway
STUDY_FIELDS = ("StudyInstanceUID", "StudyDate", "PatientID")


class DimseArchive:
    """An archive by DICOM networking."""

    def __init__(self, name: str, server: Dimse) -> None:
        self.name, self.server = name, server

    def _entity(self) -> AE:
        entity = AE(self.server.calling_aet)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = TIMEOUT_S
        return entity

    @contextmanager
    def _association(self, entity: AE, handlers: Sequence[Any] = (), roles: Sequence[Any] = ()) -> Iterator[Any]:
        server = self.server
        tls = (ssl.create_default_context(cafile=str(server.ca)), server.host) if server.ca else None
        association = entity.associate(
            server.host, server.port, ae_title=server.aet,
            evt_handlers=[(evt.EVT_CONN_OPEN, _at_once), *handlers], ext_neg=list(roles),
            tls_args=tls,
        )  # fmt: skip
        if not association.is_established:
            raise PacsError(
                f"server {self.name} did not accept: is it running, does it know the title {server.calling_aet!r}, and "
                f"is its own {server.aet!r}?"
            )
        try:
            with _quiet():
                yield association
        except BROKEN as error:
            raise PacsError(f"server {self.name} answered what is no DICOM: look at its log") from error
        finally:
            association.release()

    def _answers(self, association: Any, level: str, fields: Sequence[str], known: Mapping[str, str]) -> list[Dataset]:
        question = _question(level, {keyword: known.get(keyword, "") for keyword in fields})
        found = []
        for status, answer in association.send_c_find(question, StudyRootQueryRetrieveInformationModelFind):
            if status.get("Status") in PENDING:
                found.append(answer)
            elif status.get("Status") != SUCCESS:
                asked = f"does it know the title {self.server.calling_aet!r}? Look at its log"
                raise PacsError(f"server {self.name} did not list ({_said(status)}): {asked}")
        return found

    def find(self, query: Query) -> list[Series]:
        """The series that match, by C-FIND: studies, then the series of each.

        A series by its UID alone is found by archives only that take relational queries.

        Args:
            query: what is looked for; what is empty in it matches all.

        Returns:
            Series, each once.

        Raises:
            PacsError: the server refused, or did not answer.

        Source: DICOM PS3.4 C.6.2.1 (study root query; C.4.1.1.3.2: relational queries).
        """
        entity = self._entity()
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        known = {"StudyInstanceUID": query.study, "StudyDate": query.asked_date, "PatientID": query.patient}
        wanted = {"SeriesInstanceUID": query.series, "Modality": query.modality}
        with self._association(entity) as association:
            if query.series and not query.study:
                found = self._answers(association, "SERIES", SERIES_FIELDS, wanted)
            else:
                studies = self._answers(association, "STUDY", STUDY_FIELDS, known)
                found = [series for study in studies for series in self._of_study(association, study, wanted)]
            return [series for series in map(series_of, found) if query.takes(series)]

    def _of_study(self, association: Any, study: Dataset, wanted: dict[str, str]) -> list[Dataset]:
        fields = [keyword for keyword in SERIES_FIELDS if keyword not in STUDY_FIELDS[1:]]
        known = {"StudyInstanceUID": str(study.StudyInstanceUID), **wanted}
        found = self._answers(association, "SERIES", fields, known)
        for series in found:
            for keyword in STUDY_FIELDS:
                setattr(series, keyword, study.get(keyword))
        return found

    def images(self, series: Series) -> Images:
        """What `Archive.images` promises, by C-FIND of the series' images."""
        entity = self._entity()
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelFind)
        fields = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SliceThickness")
        known = {"StudyInstanceUID": series.study, "SeriesInstanceUID": series.uid}
        with self._association(entity) as association:
            return images_of(self._answers(association, "IMAGE", fields, known))

    def fetch(self, series: Series, folder: Path) -> None:
        """Write the images of a series, `00000.dcm` and so on: by C-MOVE to `move_port` where that is set, else C-GET.

        Args:
            series: whose `study` and `uid` say which.
            folder: where the files go; it exists.

        Raises:
            PacsError: the server refused, gave some images only, or did not answer.
            OSError: this machine's disk is full, or refuses.

        Source: DICOM PS3.4 C.4.2 (C-MOVE), C.4.3 (C-GET).
        """
        number, failed = count(), list[OSError]()

        def keep(event: evt.Event) -> int:
            try:
                (folder / f"{next(number):05d}.dcm").write_bytes(event.encoded_dataset())
            except OSError as error:
                failed.append(error)
                return NO_RESOURCES
            return SUCCESS

        asked = _question("SERIES", {"StudyInstanceUID": series.study, "SeriesInstanceUID": series.uid})
        handlers, entity, server = [(evt.EVT_C_STORE, keep)], self._entity(), self.server
        if server.move_port is None:
            entity.add_requested_context(StudyRootQueryRetrieveInformationModelGet)
            for image, syntax in product(IMAGES, SYNTAXES):  # one each: of several the archive would choose one for all
                entity.add_requested_context(image, syntax)
            roles = [build_role(image, scp_role=True) for image in IMAGES]
            with _here(failed), self._association(entity, handlers, roles) as association:
                self._retrieved(association.send_c_get(asked, StudyRootQueryRetrieveInformationModelGet))
            return
        entity.add_requested_context(StudyRootQueryRetrieveInformationModelMove)
        with _here(failed), self._receiver(handlers), self._association(entity) as association:
            to = server.calling_aet
            self._retrieved(association.send_c_move(asked, to, StudyRootQueryRetrieveInformationModelMove))

    @contextmanager
    def _receiver(self, handlers: Sequence[Any]) -> Iterator[None]:
        """Take what the archive sends, on this machine's loopback unless the archive is another machine."""
        entity = self._entity()
        entity.require_called_aet, entity.require_calling_aet = True, [self.server.aet]
        for image in IMAGES:
            entity.add_supported_context(image, list(SYNTAXES))
        place = ("0.0.0.0" if self.server.remote else "127.0.0.1", self.server.move_port)  # noqa: S104 (was told so)
        receiver = entity.start_server(place, block=False, evt_handlers=list(handlers))
        try:
            yield
        finally:
            receiver.shutdown()

    def _retrieved(self, answers: Iterator[tuple[Dataset, Dataset | None]]) -> None:
        for status, _ in answers:
            if status.get("Status") not in RETRIEVED:
                raise PacsError(f"server {self.name} did not give images ({_said(status)}): look at its log")

    def send(self, files: Sequence[Path]) -> None:
        """Send images one by one, by C-STORE; the server has taken all of them when this returns.

        Args:
            files: DICOM images.

        Raises:
            PacsError: the server refused an image, those before it are kept; or it did not answer.

        Source: DICOM PS3.4 B.2.
        """
        entity = self._entity()
        for image in IMAGES:
            entity.add_requested_context(image, ExplicitVRLittleEndian)
        with self._association(entity) as association:
            for k, file in enumerate(files):
                status = association.send_c_store(file)
                if status.get("Status") not in STORED_STATUSES:
                    refused = f"{k + 1} of {len(files)} ({_said(status)})"
                    raise PacsError(f"server {self.name} refused image {refused}: look at its log")


@contextmanager
def _here(failed: Sequence[OSError]) -> Iterator[None]:
    """Have what failed on this machine's disk go before what the archive says of it."""
    try:
        yield
    finally:
        if failed:
            raise failed[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Have pydicom say nothing of what an archive sends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values that break a rule are the archive's own
        yield


def _question(level: str, values: Mapping[str, str]) -> Dataset:
    """What an archive is asked: the level and the attributes, of which empty ones match all."""
    asked = Dataset()
    with _quiet():
        for keyword, value in {"QueryRetrieveLevel": level, **values}.items():
            setattr(asked, keyword, value)
    return asked


def _said(status: Dataset) -> str:
    """A status in words; an empty one is an association that ended."""
    return f"status 0x{status.Status:04X}" if "Status" in status else "it ended the association"


def _at_once(event: evt.Event) -> None:
    """Send small messages without waiting for the answer to the one before: an image takes half the time."""
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
