"""Zip archives, unpacked without trust."""

import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from ctinterp_dagster.errors import UnreadableScanError
from ctinterp_dagster.scan.io.limits import refuse_size

MAX_FILES = 20_000  # a whole-body CT of 0.5 mm slices has 4,000
MAX_FOLDERS = 64  # Python's own walks over folders recurse
ARCHIVE_SUFFIXES = {".zip", ".7z", ".rar", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst"}


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name."""
    return PurePosixPath(name.lower()).suffix in ARCHIVE_SUFFIXES and not name.lower().endswith(".nii.gz")


def _refuse_member(member: zipfile.ZipInfo) -> None:
    path = PurePosixPath(member.filename)
    if not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise UnreadableScanError(f"{member.filename!r} would be unpacked outside of the archive: expected plain names")
    if len(path.parts) > MAX_FOLDERS:
        raise UnreadableScanError(f"a file lies {len(path.parts)} folders deep: expected at most {MAX_FOLDERS}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise UnreadableScanError(f"{member.filename!r} is a symbolic link: expected files only")
    if member.flag_bits & 1:
        raise UnreadableScanError(f"{member.filename!r} is encrypted: decrypt the archive first")


def inner_archives(archive: Path) -> list[str]:
    """The names of the archives inside of a zip archive that `unpacked` took, which stay packed."""
    with zipfile.ZipFile(archive) as opened:
        return [name for name in opened.namelist() if is_archive(name)]


def _refuse_bomb(archive: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    if len(members) > MAX_FILES:
        raise UnreadableScanError(f"the archive holds {len(members)} files, expected at most {MAX_FILES}")
    refuse_size("the archive", archive.stat().st_size, sum(m.file_size for m in members))  # members may overlap
    if len({m.filename for m in members}) < len(members):
        raise UnreadableScanError("two files in the archive have the same name: expected one each")


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack a zip archive into a temporary folder that lives as long as the context; archives inside are left out.

    Backslashes in names are taken for separators, as Windows means them.

    Sizes are those that the archive declares; the unpacker stops there, so a lie cannot exceed the limits.

    Args:
        archive: a zip file.

    Yields:
        The folder.

    Raises:
        UnreadableScanError: the archive is corrupt or encrypted, holds links or names that lead out of it,
            or exceeds 20,000 files, 8 GiB, or 200 times its packed size.
    """
    with tempfile.TemporaryDirectory(prefix="ctinterp-") as folder:
        try:
            with zipfile.ZipFile(archive) as opened:
                for member in opened.infolist():
                    member.filename = member.filename.replace("\\", "/")  # as Windows' own packer writes it
                members = [m for m in opened.infolist() if not m.is_dir()]
                for member in members:
                    _refuse_member(member)
                _refuse_bomb(archive, members)
                for member in (m for m in members if not is_archive(m.filename)):
                    opened.extract(member, folder)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise UnreadableScanError(
                f"the archive cannot be unpacked: {error}; make it again as a plain zip"
            ) from error
        yield Path(folder)
