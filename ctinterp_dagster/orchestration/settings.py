"""operate.yaml: how the project runs by itself."""

import subprocess
from typing import Annotated
from zoneinfo import available_timezones

import dagster as dg
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

_CHECK_NAME = ("git", "check-ref-format")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scans(_Section):
    """The sensor on data/raw."""

    settle_s: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    interval_s: Annotated[int, Field(gt=0, strict=True)]


def _is_cron(text: str) -> str:
    try:
        dg.ScheduleDefinition(name="asked", cron_schedule=text, job_name="asked")
    except dg.DagsterInvalidDefinitionError as error:
        raise ValueError("expected a cron schedule such as 0 2 * * 0 (Sunday, 02:00)") from error
    return text


def _is_zone(name: str) -> str:
    if name not in available_timezones():
        raise ValueError("expected a time zone such as Europe/Berlin")
    return name


def _is_branch(name: str) -> str:
    if subprocess.run([*_CHECK_NAME, f"refs/heads/{name}"], check=False).returncode:
        raise ValueError("expected the name of a Git branch such as retrain")
    return name


def _is_address(url: str) -> str:
    if url and not url.startswith(("http://", "https://")):
        raise ValueError("expected an address that begins with http:// or https://, or nothing")
    return url


class Retrain(_Section):
    """The schedule."""

    cron: Annotated[str, AfterValidator(_is_cron)]
    timezone: Annotated[str, AfterValidator(_is_zone)]
    min_new_scans: Annotated[int, Field(gt=0, strict=True)]


class Publish(_Section):
    """What a retraining ends in."""

    branch: Annotated[str, AfterValidator(_is_branch)]
    tag: bool
    push: bool


class Alert(_Section):
    """What a failed run ends in."""

    folder: Annotated[str, Field(min_length=1)]
    webhook: Annotated[str, AfterValidator(_is_address)]


class OperateSettings(_Section):
    """All of operate.yaml."""

    scans: Scans
    retrain: Retrain
    publish: Publish
    alert: Alert
