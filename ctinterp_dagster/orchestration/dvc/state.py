"""What definitions need of a project, as a file: so that a load reads neither checkout nor data."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .stage import DvcIndex, DvcInput, DvcOutput, DvcProjectError, DvcSource, DvcStage


def write_state(index: DvcIndex, path: Path) -> None:
    """Write a project as it was read, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(json.dumps(asdict(index)), encoding="utf-8")
    beside.replace(path)


def read_state(path: Path) -> DvcIndex:
    """The project that `write_state` wrote.

    Args:
        path: a JSON file.

    Returns:
        The index as it was then.

    Raises:
        DvcProjectError: the file is not of this version.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        return DvcIndex(
            stages={target: _stage(stage) for target, stage in record["stages"].items()},
            sources={name: DvcSource(**source) for name, source in record["sources"].items()},
            read_at=record["read_at"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DvcProjectError(f"{path} is no state of this version: run `dg utils refresh-defs-state`") from error


def _stage(record: Mapping[str, Any]) -> DvcStage:
    inputs = tuple(DvcInput(**item) for item in record["inputs"])
    outputs = tuple(DvcOutput(**item) for item in record["outputs"])
    return DvcStage(**{**record, "inputs": inputs, "outputs": outputs})
