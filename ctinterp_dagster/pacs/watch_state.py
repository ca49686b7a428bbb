"""What a watch has seen and done, in a file that outlives it."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ctinterp_dagster.errors import ParamsError

SeriesOutcome = Literal["sent", "added", "thin", "own", "incomplete", "refused"]
SCHEMA = """
create table if not exists seen (series text primary key, images text not null, since real not null);
create table if not exists done (
  series text, images text, listed text not null, verdict text not null, detail text not null, at real not null,
  primary key (series, images)
);
"""


@dataclass(frozen=True)
class WatchState:
    """A database of one watch. A second watch on it is refused; the system gives it free however the first one ends.

    Attributes:
        database: the connection; each statement is on disk when it returns.
    """

    database: sqlite3.Connection

    @classmethod
    def open(cls, path: Path) -> "WatchState":
        """Open or make it, readable by its owner only: it has the UIDs of series.

        Args:
            path: a SQLite file.

        Returns:
            What the watch has seen so far, open.

        Raises:
            ParamsError: another watch has it, or it is no such file.
        """
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            database = sqlite3.connect(path, timeout=0, isolation_level=None)
            database.execute("pragma locking_mode = exclusive")
            database.execute("pragma synchronous = full")
            database.execute("begin exclusive")
            database.execute("commit")
            database.executescript(SCHEMA)
        except sqlite3.DatabaseError as error:
            raise ParamsError(f"{path}: {error}: expected the state of a watch that does not run") from error
        return cls(database)

    def quiet_s(self, series: str, images: str, now_s: float) -> float:
        """For how long a series has had these images, and none beside.

        Args:
            series: its UID.
            images: digest of the UIDs of its images.
            now_s: epoch, seconds.

        Returns:
            Seconds; 0 when they are seen for the first time.
        """
        row = self.database.execute("select images, since from seen where series = ?", (series,)).fetchone()
        if row and row[0] == images:
            return now_s - float(row[1])
        self.database.execute("insert or replace into seen values (?, ?, ?)", (series, images, now_s))
        return 0.0

    def is_done(self, series: str, images: str, listed: str, now_s: float) -> bool:
        """Whether a series is done with these images; where it is, the list and the time are kept as the last seen.

        Args:
            series: its UID.
            images: digest of the UIDs of its images.
            listed: how many images the archive's list has of it.
            now_s: epoch, seconds.

        Returns:
            True where these very images were done before.
        """
        row = (listed, now_s, series, images)
        return (
            self.database.execute("update done set listed = ?, at = ? where series = ? and images = ?", row).rowcount
            > 0
        )

    def was_listed(self, series: str, listed: str, since_s: float) -> bool:
        """Whether a series that had this number of images in the archive's list was seen done since a time.

        Args:
            series: its UID.
            listed: how many images the archive's list has of it; empty where it does not say.
            since_s: epoch, seconds.

        Returns:
            False also where the list does not say.
        """
        row = self.database.execute(
            "select 1 from done where series = ? and listed = ? and at > ?", (series, listed, since_s)
        ).fetchone()
        return bool(listed and row)

    def finish(self, series: str, images: str, listed: str, verdict: SeriesOutcome, detail: str, now_s: float) -> None:
        """Write down what became of a series.

        Args:
            series: SeriesInstanceUID.
            images: a hash of the SOPInstanceUIDs that it had.
            listed: how many images the archive listed; empty where it does not say.
            verdict: what became of it.
            detail: why, without names of patients.
            now_s: the time, seconds since 1970.
        """
        self.database.execute(
            "insert or replace into done values (?, ?, ?, ?, ?, ?)", (series, images, listed, verdict, detail, now_s)
        )

    def forget_refused(self) -> None:
        """Have the next look take again what was refused."""
        self.database.execute("delete from done where verdict = 'refused'")
