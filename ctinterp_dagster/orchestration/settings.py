"""operate.yaml: how the project runs by itself."""

from typing import Annotated
from zoneinfo import available_timezones

import dagster as dg
from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scans(_Section):
    """The sensor on data/raw."""

    settle_s: Annotated[float, Field(ge=0)]
    interval_s: Annotated[int, Field(gt=0)]


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


class Retrain(_Section):
    """The schedule."""

    cron: Annotated[str, AfterValidator(_is_cron)]
    timezone: Annotated[str, AfterValidator(_is_zone)]
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


class OperateSettings(_Section):
    """All of operate.yaml."""

    scans: Scans
    retrain: Retrain
    publish: Publish
    alert: Alert
