"""pacs.yaml: where the archives are, and what a watch does. Secrets are in the environment only."""

import ipaddress
import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.params import load_section

Port = Annotated[int, Field(ge=1, le=65535)]
Title = Annotated[str, Field(pattern=r"^[\x20-\x5b\x5d-\x7e]{1,16}$")]  # PS3.5, VR AE
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]  # part of the name of an environment variable


def is_local(host: str) -> bool:
    """Whether a host is this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DicomWeb(_Section):
    """An archive that speaks DICOMweb (DICOM PS3.18)."""

    protocol: Literal["dicomweb"]
    url: str
    ca: Path | None = None
    remote: bool = False

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        place = urlsplit(self.url)
        if place.scheme not in {"http", "https"} or not place.hostname:
            raise ValueError("url must start with https://, or with http:// on this machine")
        if place.username or place.password:
            raise ValueError("url must hold no password: set it in the environment")
        if not is_local(place.hostname):
            if not self.remote:
                raise ValueError(f"{place.hostname} is another machine: say `remote: true`, or use localhost")
            if place.scheme != "https":
                raise ValueError("another machine is asked by https:// only")
        return self


class Dimse(_Section):
    """An archive that speaks DICOM networking (PS3.7, PS3.8); with `ca` within TLS."""

    protocol: Literal["dimse"]
    host: str
    port: Port
    aet: Title
    calling_aet: Title
    ca: Path | None = None
    move_port: Port | None = None
    remote: bool = False

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not is_local(self.host) and not self.remote:
            raise ValueError(f"{self.host} is another machine: say `remote: true`, or use localhost")
        return self


Server = Annotated[DicomWeb | Dimse, Field(discriminator="protocol")]


class WatchRule(_Section):
    """Which series a watch takes, and what it does with them."""

    source: str
    description: str
    min_thickness_mm: Annotated[float, Field(gt=0)]
    days: Annotated[int, Field(ge=1)]
    interval_s: Annotated[float, Field(gt=0)]
    quiet_s: Annotated[float, Field(ge=0)]
    action: Literal["restore", "add"]
    interpolate: tuple[str, ...] = ()


class PacsSettings(_Section):
    """All of pacs.yaml."""

    servers: dict[Name, Server]
    watch: WatchRule | None = None

    def server(self, name: str | None) -> tuple[str, DicomWeb | Dimse]:
        """A server by name; the only one where none is named.

        Args:
            name: below `servers` in pacs.yaml; None for the only one.

        Returns:
            Its name and its settings.

        Raises:
            ParamsError: there is none of that name, or several and none was named.
        """
        name = name or (next(iter(self.servers)) if len(self.servers) == 1 else "")
        if name not in self.servers:
            wrong = f"there is no server {name!r}" if name else "no server was named"
            expected = (
                f"--server {' or '.join(self.servers)}" if self.servers else "one below `servers` (docs/howto/pacs.md)"
            )
            raise ParamsError(f"pacs.yaml: {wrong}: expected {expected}")
        return name, self.servers[name]


def load_pacs(path: Path) -> PacsSettings:
    """Read and check pacs.yaml.

    Args:
        path: of pacs.yaml.

    Returns:
        The settings, every value in its range.

    Raises:
        MissingInputError: the file is not there.
        ParamsError: it is not YAML, or a value is missing, unknown or impossible.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing: write it as docs/howto/pacs.md shows, or name it with --config")
    return load_section(PacsSettings, path)


def secret(server: str, what: Literal["USER", "PASSWORD", "TOKEN"]) -> str:
    """A secret of a server from the environment, such as CTINTERP_PACS_ARCHIVE_TOKEN; empty where it is not set."""
    return os.environ.get(f"CTINTERP_PACS_{server.upper()}_{what}", "")
