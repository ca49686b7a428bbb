"""The checksum of a file, as others compute it."""

import hashlib
from pathlib import Path


def sha256sum(path: Path) -> str:
    """SHA-256 of the bytes of a file, as the command of that name gives it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
