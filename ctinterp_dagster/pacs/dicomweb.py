"""DICOMweb: QIDO-RS to find, WADO-RS to fetch, STOW-RS to send (DICOM PS3.18)."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
import requests
from dicomweb_client.web import DICOMwebClient
from pydicom.dataset import Dataset

from ctinterp_dagster.errors import PacsError
from ctinterp_dagster.pacs.archive import SERIES_FIELDS, Images, Query, Series, images_of, series_of
from ctinterp_dagster.pacs.settings import DicomWeb, secret

TIMEOUT_S = 60
PAGE = 100  # answers a request
ADVICE = dict.fromkeys((401, 403), "set user or token in the environment") | {404: "is its url that of DICOMweb?"}
OTHER = (ValueError, EOFError, TypeError, AttributeError, KeyError)  # of an answer that is something else
IMAGES_A_REQUEST = 20  # images a request: about 10 MB


class WebArchive:
    """An archive by DICOMweb."""

    def __init__(self, name: str, server: DicomWeb) -> None:
        self.name, session = name, requests.Session()
        session.trust_env = False  # no passwords of .netrc, and nothing of this machine through a proxy
        session.verify = str(server.ca) if server.ca else True
        if user := secret(name, "USER"):
            session.auth = (user, secret(name, "PASSWORD"))
        elif token := secret(name, "TOKEN"):
            session.headers["Authorization"] = f"Bearer {token}"
        self.client = DICOMwebClient(server.url, session=session, permissive_uid=True, timeout=TIMEOUT_S)
        self.client.set_http_retry_params(retry=False)

    @contextmanager
    def _asked(self, what: str) -> Iterator[None]:
        """An answer that is none in one line without address, names or numbers of a patient.

        Args:
            what: the server is asked to do, for messages.

        Raises:
            PacsError: the server refused, or did not answer as it should.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # values that break a rule are the archive's own
                yield
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            advice = ADVICE.get(status, "look at its log")
            raise PacsError(f"server {self.name} refused to {what} ({status}): {advice}") from error
        except (requests.RequestException, *OTHER) as error:
            raise PacsError(
                f"server {self.name} did not {what} ({type(error).__name__}): is it running, and the address right?"
            ) from error

    def find(self, query: Query) -> list[Series]:
        """The series that match, by QIDO-RS, page by page until the server gives no new one.

        Args:
            query: what is looked for; what is empty in it matches all.

        Returns:
            Series, each once.

        Raises:
            PacsError: the server refused, or did not answer.

        Source: DICOM PS3.18 10.6.
        """
        wanted = {
            "PatientID": query.patient,
            "StudyDate": query.asked_date,
            "SeriesInstanceUID": query.series,
            "Modality": query.modality,
        }
        filters = {keyword: value for keyword, value in wanted.items() if value}
        found: dict[str, Series] = {}
        with self._asked("list series"):
            while True:
                answers = self.client.search_for_series(
                    query.study or None, limit=PAGE, offset=len(found), fields=SERIES_FIELDS, search_filters=filters
                )
                page = {s.uid: s for s in map(series_of, map(Dataset.from_json, answers))}
                if page.keys() <= found.keys():
                    return [series for series in found.values() if query.takes(series)]
                found |= page

    def images(self, series: Series) -> Images:
        """What `Archive.images` promises, by QIDO-RS."""
        found: dict[str, Dataset] = {}
        with self._asked("list images"):
            while True:
                answers = self.client.search_for_instances(
                    series.study, series.uid, limit=PAGE, offset=len(found), fields=("SliceThickness",)
                )
                page = {str(d.SOPInstanceUID): d for d in map(Dataset.from_json, answers)}
                if page.keys() <= found.keys():
                    return images_of(list(found.values()))
                found |= page

    def fetch(self, series: Series, folder: Path) -> None:
        """Write the images of a series, `00000.dcm` and so on, by WADO-RS in the transfer syntax that they are kept in.

        Args:
            series: whose `study` and `uid` say which.
            folder: where the files go; it exists.

        Raises:
            PacsError: the server refused, or did not answer.

        Source: DICOM PS3.18 10.4.
        """
        with self._asked("give images"):
            stored = (("application/dicom", "*"),)
            for k, dataset in enumerate(self.client.iter_series(series.study, series.uid, media_types=stored)):
                dataset.save_as(folder / f"{k:05d}.dcm", enforce_file_format=True)

    def send(self, files: Sequence[Path]) -> None:
        """Send images, several a request, by STOW-RS; the server has taken all of them when this returns.

        Args:
            files: DICOM images.

        Raises:
            PacsError: the server refused images, those of earlier requests are kept; or it did not answer.

        Source: DICOM PS3.18 10.5.
        """
        with self._asked("take images"):
            for k in range(0, len(files), IMAGES_A_REQUEST):
                images = [pydicom.dcmread(file) for file in files[k : k + IMAGES_A_REQUEST]]
                answer = self.client.store_instances(images)
                if refused := answer.get("FailedSOPSequence"):
                    raise PacsError(
                        f"server {self.name} refused {len(refused)} of {len(files)} images "
                        f"(reason {refused[0].get('FailureReason')}): look at its log"
                    )
