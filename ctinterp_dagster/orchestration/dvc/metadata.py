"""What a stage's run shows in Dagster: metrics as numbers, plots as pictures and tables, outputs with their hashes."""

import base64
import csv
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg

from ctinterp_dagster.orchestration.dvc.index import read_metrics
from ctinterp_dagster.orchestration.dvc.stage import DvcStage

_MAX_IMAGES = 8
_MAX_IMAGE_BYTES = 512 * 1024  # metadata lies in Dagster's event log, and travels to the browser with every page
_MAX_ROWS = 50


def stage_metadata(stage: DvcStage, root: Path) -> dict[str, dg.MetadataValue]:
    """Metadata of a stage that has run: `<file>/<metric>`, `plot/<path>`, `table/<path>`, `out/<path>`, in this order.

    Args:
        stage: with its lock entry.
        root: the project's root.
    """
    metadata: dict[str, dg.MetadataValue] = {
        name: dg.MetadataValue.float(value) for name, value in stage_metrics(stage, root).items()
    }
    for path in islice((p for p in _plots(stage, root, ".png") if p.stat().st_size <= _MAX_IMAGE_BYTES), _MAX_IMAGES):
        metadata[f"plot/{path.relative_to(root).as_posix()}"] = inline_picture(path.read_bytes(), path.stem)
    for path in _plots(stage, root, ".csv"):
        metadata[f"table/{path.relative_to(root).as_posix()}"] = _table(path)
    for out in (stage.lock or {}).get("outs", []):
        files = f", {out['nfiles']} files" if "nfiles" in out else ""
        metadata[f"out/{out['path']}"] = dg.MetadataValue.text(f"{out.get('md5')} ({out.get('size', 0)} bytes{files})")
    return metadata


def stage_metrics(stage: DvcStage, root: Path) -> dict[str, float]:
    """Every number of the stage's metrics files, by `<file>/<dotted name>`."""
    paths = [root / out.path for out in stage.outputs if out.metric]
    return {
        f"{path.stem}/{name}": value for path in paths if path.is_file() for name, value in _numbers(read_metrics(path))
    }


def live_metadata(values: Mapping[str, Any], root: Path) -> dict[str, dg.MetadataValue]:
    """What a running stage said of itself: numbers, texts, and paths of PNG files, which become pictures."""
    metadata: dict[str, dg.MetadataValue] = {}
    for name, value in values.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            metadata[name] = dg.MetadataValue.float(float(value))
        elif str(value).endswith(".png") and (root / str(value)).is_file():
            metadata[name] = inline_picture((root / str(value)).read_bytes(), Path(str(value)).stem)
        else:
            metadata[name] = dg.MetadataValue.text(str(value))
    return metadata


def inline_picture(png: bytes, title: str) -> dg.MetadataValue:
    """A picture that is shown where it stands."""
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{base64.b64encode(png).decode()})")


def _numbers(record: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a nested mapping with its dotted name."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from _numbers(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(record, int | float) and not isinstance(record, bool):
        yield prefix, float(record)


def _plots(stage: DvcStage, root: Path, suffix: str) -> list[Path]:
    """The files of a kind among the stage's plots, files or folders."""
    plots = [root / out.path for out in stage.outputs if out.plot]
    files = [file for plot in plots for file in ([plot] if plot.is_file() else sorted(plot.rglob(f"*{suffix}")))]
    return [file for file in files if file.suffix == suffix]


def _table(path: Path) -> dg.MetadataValue:
    """The first rows of a CSV file that has a header."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(islice(csv.DictReader(handle, restkey="...", restval=""), _MAX_ROWS))
    records = [dg.TableRecord({str(name): str(value) for name, value in row.items()}) for row in rows]
    columns = [dg.TableColumn(name) for name in (records[0].data if records else {})]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
