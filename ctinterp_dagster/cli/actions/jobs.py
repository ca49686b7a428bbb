"""What `ctinterp evaluate` scores, one after the other: a truth, and the thick scan that is restored to it."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ctinterp_dagster.cli.checksum import sha256sum
from ctinterp_dagster.cli.options.evaluate import LEARNED, Options
from ctinterp_dagster.errors import GeometryError
from ctinterp_dagster.interpolation import Method
from ctinterp_dagster.scan.checks import MIN_SLICES, check_volume
from ctinterp_dagster.scan.io import Scan, input_files, read_scan
from ctinterp_dagster.scan.padding import without_padding


@dataclass(frozen=True)
class Job(ABC):
    """One of them.

    Attributes:
        paths: the files of both, or of the truth; the first names it.
        profile: the name of its task's profile.
        task: all that decides what is measured of them.
    """

    paths: tuple[Path, ...]
    profile: str
    task: str

    @property
    def name(self) -> str:
        """The scan's path, as its user gave it."""
        return str(self.paths[0])

    def made_of(self, method: str, options: Options, model_sha256: str) -> str:
        """SHA-256 of all that decides a score: scans, task, method and model."""
        digest = hashlib.sha256(repr((self.profile, self.task, method, version("ctinterp"))).encode())
        if method in LEARNED:
            digest.update(f"{model_sha256}, {options.mixed_precision}".encode())
        for file in (own for path in self.paths for own in sorted(input_files(path)) if own.is_file()):
            digest.update(sha256sum(file).encode())
        return digest.hexdigest()

    @abstractmethod
    def check(self) -> int:
        """Refuse scans that cannot be scored, with their path, before the first is computed; print what is to be known.

        Returns:
            The voxels of the truth.

        Raises:
            CtinterpError: a scan cannot be read, or is not fit for the task; the subclass is the reason.
        """

    @abstractmethod
    def score(self, restoring: Mapping[str, Method]) -> Iterator[dict[str, Any]]:
        """The record of every method, one after the other."""


def check_order(thick: Scan, thin: Scan) -> None:
    """Refuse a pair that was given the wrong way round.

    Args:
        thick: the first of the pair.
        thin: the second.

    Raises:
        GeometryError: the slices of the second are not closer together.
    """
    coarse_mm, fine_mm = thick.volume.spacing_mm[0], thin.volume.spacing_mm[0]
    if fine_mm >= coarse_mm:
        raise GeometryError(
            f"the slices of THICK are {coarse_mm:g} mm apart, those of THIN {fine_mm:g} mm: expected THIN's closer "
            "together; are the two swapped?"
        )


def fit(path: Path) -> Scan:
    """A scan that `check_volume` takes, its padding filled.

    Args:
        path: of a file or folder with one scan.

    Returns:
        The scan, its padding replaced by the nearest values.

    Raises:
        MissingInputError: there is no scan.
        ScanError: it cannot be used; the subclass is the reason.
    """
    return checked(read_scan(path), path)


def checked(scan: Scan, path: Path) -> Scan:
    """A scan, once `check_volume` has taken it, its padding filled.

    Args:
        scan: any that was read.
        path: for messages.

    Returns:
        The same scan, its padding replaced by the nearest values.

    Raises:
        ScanError: it cannot be used; the subclass is the reason.
    """
    check_volume(scan.volume, min_slices=MIN_SLICES, name=str(path))
    return replace(scan, volume=without_padding(scan.volume)[0])
