"""What may name a person, a patient id or the name of a file, becomes a pseudonym before it reaches any output."""

import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Literal

from ctinterp_dagster.errors import ScanError
from ctinterp_dagster.scan.io.source import Found


def key_file() -> Path:
    """Where the key is: `CTINTERP_KEY_FILE`, else `ctinterp/key` in the user's configuration folder."""
    configuration = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return Path(os.environ.get("CTINTERP_KEY_FILE") or configuration / "ctinterp" / "key")


def load_key() -> bytes:
    """The secret of this site, made on first use, readable by its owner only, outside the repository."""
    path = key_file()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(secrets.token_bytes(32))
    return path.read_bytes()


def pseudonym(identifier: str, key: bytes, kind: Literal["p", "s"] = "p") -> str:
    """A name that tells patients (`p-...`) or scans (`s-...`) apart and cannot be looked up without the key.

    Source: DICOM PS3.15, annex E (de-identification); the keyed hash is BLAKE2b (RFC 7693).
    """
    return f"{kind}-" + hashlib.blake2b(identifier.encode(), key=key, digest_size=6).hexdigest()


def without_names(error: ScanError, scan: Found) -> ScanError:
    """The same refusal without the names of folders and files: the k-th file of the scan is called `file k`.

    Names that an archive holds stand in quotes, and go with them.
    """
    plain: BaseException = error
    while isinstance(plain.__cause__, ScanError):  # `find_scans` puts the scan's place before the message
        plain = plain.__cause__
    said = str(plain)
    for number, file in sorted(enumerate(scan.files, 1), key=lambda item: -len(item[1].name)):
        for name in (str(file), file.name):
            said = said.replace(name, f"file {number}")
    if scan.archive or scan.kind == "unreadable":
        said = re.sub(r"'[^']*'", "a member", said)
    return type(error)(said)
