"""What may name a person, a patient id or the name of a file, becomes a pseudonym before it reaches any output."""

import hashlib
import os
import secrets
from pathlib import Path
from typing import Literal


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

    Args:
        identifier: what the source calls the patient or scan.
        key: the site's secret, at most 64 bytes.
        kind: `p` for a patient, `s` for a scan.

    Returns:
        `p-` or `s-` and twelve hexadecimal digits.

    Source: DICOM PS3.15, annex E (de-identification); the keyed hash is BLAKE2b (RFC 7693).
    """
    return f"{kind}-" + hashlib.blake2b(identifier.encode(), key=key, digest_size=6).hexdigest()
