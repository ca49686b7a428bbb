"""operate.yaml: how the project runs by itself."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctinterp_dagster.errors import MissingInputError, ParamsError


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
    """Read and check operate.yaml.

    Raises:
        MissingInputError: the file is not there.
        ParamsError: it is not YAML, or a value is missing, unknown or impossible.
    """
    if not path.exists():
        raise MissingInputError(f"{path} is missing: start Dagster in the project's root, the folder of dvc.yaml")
    try:
        raw: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ParamsError(f"{path.name} is not YAML: {' '.join(str(error).split())}") from error
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ParamsError(f"{path.name}: {where}: {first['msg']}, got {first['input']!r}") from error
