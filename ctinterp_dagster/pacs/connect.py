"""An archive by the language that it speaks."""

from importlib.util import find_spec
from logging import CRITICAL, getLogger

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.pacs.archive import Archive
from ctinterp_dagster.pacs.settings import DicomWeb, Dimse

LOGGERS = ("dicomweb_client", "pynetdicom", "retrying")  # they log addresses, which name patients and studies


def connect(name: str, server: DicomWeb | Dimse) -> Archive:
    """An archive by its settings.

    Args:
        name: of the server, for messages.
        server: its settings.

    Returns:
        The archive; nothing is connected yet.

    Raises:
        MissingInputError: the library that speaks its language is not installed.
    """
    library = "dicomweb_client" if isinstance(server, DicomWeb) else "pynetdicom"
    if find_spec(library) is None:
        raise MissingInputError(f"a PACS needs {library}: install ctinterp with its extra, pip install '.[pacs]'")
    for logger in LOGGERS:
        getLogger(logger).setLevel(CRITICAL + 1)
    if isinstance(server, DicomWeb):
        from ctinterp_dagster.pacs.dicomweb import WebArchive  # noqa: PLC0415 (an extra)

        return WebArchive(name, server)
    from ctinterp_dagster.pacs.dimse import DimseArchive  # noqa: PLC0415 (an extra)

    return DimseArchive(name, server)
