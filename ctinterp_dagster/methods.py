"""The table of methods, from which every list of them derives: parameters, commands, stages, page and gate.

A method is a row here and a function `Measurement -> Estimate`: of a rival in `physics.baselines.METHODS`, of a model
where its stage is named.
"""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a method is for."""

    RIVAL = "rival"  # classical: what the judged model is compared with
    REFERENCE = "reference"  # shown, and neither judged nor a rival
    JUDGED = "judged"  # what the gate judges, and is released


@dataclass(frozen=True)
class MethodEntry:
    """A method.

    Attributes:
        name: in params.yaml, on the command line and in tables.
        title: on the page.
        role: what it is for.
        consistent: whether its estimates explain the thick slices, so that it is offered in the place of the model.
        stage: of the pipeline that trains it; empty where none does.
    """

    name: str
    title: str
    role: Role
    consistent: bool = False
    stage: str = ""


TABLE = [
    MethodEntry("nearest", "Nearest", Role.RIVAL),
    MethodEntry("linear", "Linear", Role.RIVAL),
    MethodEntry("cubic", "Cubic B-spline", Role.RIVAL),
    MethodEntry("cubic_projected", "Cubic + projection", Role.RIVAL, consistent=True),
    MethodEntry("tv_projected", "Huber-TV + projection", Role.RIVAL, consistent=True),
    MethodEntry("registration_projected", "Registration + projection", Role.RIVAL, consistent=True),
    MethodEntry("autoencoder_ceiling", "Truth, encoded and decoded", Role.REFERENCE),
    MethodEntry("latent", "Latent diffusion", Role.REFERENCE, consistent=True, stage="latent"),
    MethodEntry("regression", "Regression alone", Role.REFERENCE, consistent=True),
    MethodEntry("model", "ctinterp model", Role.JUDGED, consistent=True, stage="train"),
]
CEILING, REGRESSION = "autoencoder_ceiling", "regression"
"""References that the stage `evaluate` computes: the truth through the autoencoder; the judged model's one pass."""


def rows(*roles: Role) -> list[MethodEntry]:
    """The rows of some roles, of all without any, in the order of the table."""
    return [row for row in TABLE if not roles or row.role in roles]


def names(*roles: Role) -> tuple[str, ...]:
    """The names of the methods of these roles, in the order of the table."""
    return tuple(row.name for row in rows(*roles))


def judged() -> MethodEntry:
    """The row of the method that the gate judges."""
    (row,) = rows(Role.JUDGED)
    return row


def trained() -> dict[str, str]:
    """Rows that a stage trains, and the stage."""
    return {row.name: row.stage for row in TABLE if row.stage}


def title(name: str) -> str:
    """What a method is called on the page; its name where it is of no row."""
    return next((row.title for row in TABLE if row.name == name), name)
