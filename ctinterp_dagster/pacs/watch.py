"""A watch on an archive: each look lists what is there and does what is not done.

There are no events: they are lost while nobody listens, and come twice. What an archive lists is compared with the
state, so that a watch may end at any moment.
"""

import hashlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom import Dataset

from ctinterp_dagster.errors import CtinterpError, PacsError
from ctinterp_dagster.pacs.archive import MAKER, Archive, Images, Query, Series
from ctinterp_dagster.pacs.settings import WatchRule
from ctinterp_dagster.pacs.transfer import Restore, fetch, is_own, send
from ctinterp_dagster.pacs.watch_state import SeriesOutcome, WatchState
from ctinterp_dagster.scan.identity import pseudonym
from ctinterp_dagster.scan.io import find_scans
from ctinterp_dagster.scan.io.dicom import read_header
from ctinterp_dagster.scan.io.found_scan import QUOTED
from ctinterp_dagster.scan.io.pixels import BROKEN
from ctinterp_dagster.scan.io.series_parts import incomplete

UNASKED_S = (
    600  # as long a done series whose count stays is not asked for its images, of which an archive may have many
)


class RefusedError(CtinterpError):
    """A series that cannot be restored or added, however often it is tried."""


@dataclass(frozen=True)
class Watch:
    """What a watch needs.

    Attributes:
        archive: where series come from and results go to.
        rule: which series, and what is done with them.
        state: what was done.
        folder: where series lie meanwhile; it is the watch's own.
        restore: makes a folder with a result of a folder with a series; raises `RefusedError`.
        add: takes a folder with a series into the project; raises `RefusedError`.
        tell: takes what is to be logged, without names and numbers of patients.
        key: of the pseudonyms in the log.
    """

    archive: Archive
    rule: WatchRule
    state: WatchState
    folder: Path
    restore: Restore
    add: Callable[[Path], None]
    tell: Callable[[str], None]
    key: bytes

    def look(self) -> None:
        """Do all that is to be done now. What fails for the archive's or the disk's sake is tried at the next look."""
        since = datetime.now(UTC) - timedelta(days=self.rule.days)
        query = Query(date=f"{since:%Y%m%d}-", description=self.rule.description)
        try:
            listed = self.archive.find(query)
        except PacsError as error:
            self.tell(f"{error}; again at the next look")
            return
        self._tidy({pseudonym(series.uid, self.key, "s") for series in listed})
        for series in listed:
            if series.maker == MAKER or self.state.was_listed(series.uid, series.count, time.time() - UNASKED_S):
                continue
            name = pseudonym(series.uid, self.key, "s")
            try:
                self._consider(series, name)
            except (PacsError, OSError) as error:
                reason = error if isinstance(error, PacsError) else f"{error.strerror or type(error).__name__}"
                self.tell(f"{name}: {reason}; again at the next look")

    def _tidy(self, keep: set[str], only: str = "s") -> None:
        """Leave no images of series that are done, or that the archive does not list any more."""
        for work in self.folder.glob(f"{only}-*"):
            if work.name.rpartition("-")[0] not in keep:
                try:
                    shutil.rmtree(work)
                except OSError as error:
                    self.tell(f"{work.name}: its images cannot be removed: {error.strerror}")

    def _consider(self, series: Series, name: str) -> None:
        """Take a series that is quiet and was not taken with these images.

        Args:
            series: one that the archive lists, not made by ctinterp.
            name: of the series, for messages and its folder.

        Raises:
            PacsError: the archive failed.
            OSError: the disk failed.
        """
        images, now_s = self.archive.images(series), time.time()
        digest = hashlib.blake2b("\n".join(sorted(images.uids)).encode(), digest_size=16).hexdigest()
        if not images.uids or self.state.quiet_s(series.uid, digest, now_s) < self.rule.quiet_s:
            return
        if self.state.is_done(series.uid, digest, series.count, now_s):
            return
        work = self.folder / f"{name}-{digest[:8]}"
        try:
            verdict, detail = self._take(series, images, work)
        except (PacsError, OSError):
            raise
        except CtinterpError as error:
            verdict, detail = "refused", QUOTED.sub("...", str(error))
        self.state.finish(series.uid, digest, series.count, verdict, detail, now_s)
        self._tidy(set(), name)
        self.tell(f"{name}: {len(images.uids)} images, {verdict}{f': {detail}' if detail else ''}")

    def _take(self, series: Series, images: Images, work: Path) -> tuple[SeriesOutcome, str]:
        """What becomes of a series. What an earlier try has left whole is not made again: a result has one UID."""
        least_mm = self.rule.min_thickness_mm
        if images.thickness_mm is not None and images.thickness_mm < least_mm:
            return "thin", ""
        thick, thin = work / work.name, work / "thin"
        if not thick.exists():
            fetch(self.archive, series, images, thick)
        files = sorted(thick.iterdir())
        headers = headers_of(files)
        if is_own(files[0]):
            return "own", ""
        scans = find_scans(thick)
        if scans and all(scan.place and scan.place.spacing_mm[0] < least_mm for scan in scans):
            return "thin", ""
        if absent := incomplete(headers):
            return "incomplete", "; ".join(absent)
        if self.rule.action == "add":
            self.add(thick)
            return "added", ""
        if not thin.exists():
            self.restore(thick, thin)
        return "sent", f"{send(self.archive, thin)} images"


def headers_of(files: Sequence[Path]) -> list[Dataset]:
    """The headers of the images of a series.

    Args:
        files: DICOM images.

    Returns:
        Headers in the order of the files.

    Raises:
        RefusedError: one is damaged.
    """
    try:
        return [read_header(file) for file in files]
    except BROKEN as error:
        raise RefusedError(f"an image is damaged: {error}") from error
