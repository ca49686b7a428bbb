"""operate.yaml: how the project runs by itself."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ctinterp_dagster.params import load_section


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scans(_Section):
    """The sensor on data/raw."""

    settle_s: Annotated[float, Field(ge=0)]
    interval_s: Annotated[int, Field(gt=0)]


class Retrain(_Section):
    """The schedule."""

    cron: str
    timezone: str
    min_new_scans: Annotated[int, Field(gt=0)]


class Publish(_Section):
    """What a retraining ends in."""

    branch: Annotated[str, Field(min_length=1)]
    tag: bool
    push: bool


class Alert(_Section):
    """What a failed run ends in."""

    folder: str
    webhook: str


class Settings(_Section):
    """All of operate.yaml."""

    scans: Scans
    retrain: Retrain
    publish: Publish
    alert: Alert


def load_settings(path: Path) -> Settings:
    """Read and check operate.yaml; raises what `load_section` raises."""
    return load_section(Settings, path)
