"""What a stage's run shows in Dagster: metrics as numbers, plots as pictures, outputs with their hashes."""

import base64
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from ctinterp_dagster.orchestration.dvc.index import read_metrics
from ctinterp_dagster.orchestration.dvc.stage import DvcStage

_MAX_IMAGES = 8
_MAX_IMAGE_BYTES = 512 * 1024  # metadata lies in Dagster's event log, and travels to the browser with every page


def stage_metadata(stage: DvcStage, root: Path) -> dict[str, dg.MetadataValue]:
    """Metadata of a stage that has run: `<file>/<metric>`, `plot/<path>`, `out/<path>`.

    Args:
        stage: with its lock entry.
        root: the project's root.
    """
    metadata: dict[str, dg.MetadataValue] = {}
    for out in (stage.lock or {}).get("outs", []):
        files = f", {out['nfiles']} files" if "nfiles" in out else ""
        metadata[f"out/{out['path']}"] = dg.MetadataValue.text(f"{out.get('md5')} ({out.get('size', 0)} bytes{files})")
    for path in (root / out.path for out in stage.outputs if out.metric):
        if path.is_file():
            numbers = _numbers(read_metrics(path))
            metadata |= {f"{path.stem}/{name}": dg.MetadataValue.float(value) for name, value in numbers}
    for path in _images(stage, root):
        image = base64.b64encode(path.read_bytes()).decode()
        label = path.relative_to(root).as_posix()
        metadata[f"plot/{label}"] = dg.MetadataValue.md(f"![{path.stem}](data:image/png;base64,{image})")
    return metadata


def _numbers(record: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested mapping with its dotted name."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from _numbers(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(record, int | float) and not isinstance(record, bool):
        yield prefix, float(record)


def _images(stage: DvcStage, root: Path) -> list[Path]:
    """The first PNG files among the stage's plots, files or folders, that are small enough to travel."""
    plots = [root / out.path for out in stage.outputs if out.plot]
    files = [file for plot in plots for file in ([plot] if plot.is_file() else sorted(plot.rglob("*.png")))]
    return [f for f in files if f.suffix == ".png" and f.stat().st_size <= _MAX_IMAGE_BYTES][:_MAX_IMAGES]
