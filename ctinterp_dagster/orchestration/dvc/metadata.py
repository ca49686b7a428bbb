"""What a stage's run shows in Dagster: metrics as numbers, plots as pictures and tables, outputs with their hashes."""

import base64
import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg

from .index import read_metrics
from .stage import DvcProjectError, DvcSource, DvcStage

_MAX_IMAGES = 8
_MAX_IMAGE_BYTES = 512 * 1024  # metadata lies in Dagster's event log, and travels to the browser with every page
_MAX_ROWS = 50


def stage_metadata(stage: DvcStage, root: Path) -> dict[str, dg.MetadataValue]:
    """Metadata of a stage that has run: `<metric>`, `plot/<name>`, `table/<name>`, `out/<path>`, in this order.

    Metrics with more than two names, such as `box.psnr_db.cubic`, are rows of one table, `box.psnr_db`. Where a stage
    has several metrics files the name of the file stands before the metric; where two plots have one name they have
    their paths.

    Args:
        stage: with its lock entry.
        root: the project's root.

    Returns:
        Metadata by name, for Dagster.
    """
    metadata: dict[str, dg.MetadataValue] = dict(_metrics_metadata(list(stage_metrics(stage, root))))
    pictures = {n: p for n, p in _plots(stage, root, ".png").items() if p.stat().st_size <= _MAX_IMAGE_BYTES}
    for name, path in islice(pictures.items(), _MAX_IMAGES):
        metadata[f"plot/{name}"] = inline_picture(path.read_bytes(), path.stem)
    for name, path in _plots(stage, root, ".csv").items():
        metadata[f"table/{name}"] = _table(path)
    uris = [out.uri for out in stage.outputs if out.uri]
    if len(uris) == 1:
        metadata["dagster/uri"] = dg.MetadataValue.text(uris[0])
    if table := stage.settings.get("table"):
        metadata |= _table_metadata(root / table)
    for out in (stage.lock or {}).get("outs", []):
        files = f", {out['nfiles']} files" if "nfiles" in out else ""
        metadata[f"out/{out['path']}"] = dg.MetadataValue.text(f"{out.get('md5')} ({out.get('size', 0)} bytes{files})")
    return metadata


def _metrics_metadata(metrics: Sequence["Metric"]) -> Iterator[tuple[str, dg.MetadataValue]]:
    """Metrics by name as numbers, those of a third name as a table."""
    several = len({metric.file for metric in metrics}) > 1
    for (file, words), own in groupby(metrics, key=lambda metric: (metric.file, metric.words[:2])):
        name = f"{file}/{'.'.join(words)}" if several else ".".join(words)
        rows = list(own)
        if rows[0].words == words:
            yield name, dg.MetadataValue.float(rows[0].value)
        else:
            records = [dg.TableRecord({"name": ".".join(row.words[2:]), "value": row.value}) for row in rows]
            columns = [dg.TableColumn("name"), dg.TableColumn("value", "float")]
            yield name, dg.MetadataValue.table(records, dg.TableSchema(columns=columns))


def _table_metadata(path: Path) -> dict[str, dg.MetadataValue]:
    """`dagster/row_count` and `dagster/column_schema` of a CSV file that has a header.

    Args:
        path: a CSV file.

    Returns:
        Both entries; the types of columns are told by their values.

    Raises:
        DvcProjectError: there is none.
    """
    if path.suffix != ".csv" or not path.is_file():
        raise DvcProjectError(f"meta.dagster.table: got {path.name}, expected a CSV file among the stage's outputs")
    with path.open(newline="", encoding="utf-8") as handle:
        rows = csv.reader(handle)
        columns = [dg.TableColumn(name) for name in next(rows, [])]
        count = sum(1 for _ in rows)
    return {
        "dagster/row_count": dg.MetadataValue.int(count),
        "dagster/column_schema": dg.MetadataValue.table_schema(dg.TableSchema(columns=columns)),
    }


def source_metadata(source: DvcSource) -> dict[str, dg.MetadataValue]:
    """What is known of data that no stage makes: `dvc/size_bytes`, and `dvc/files` of a folder."""
    known = {"dvc/size_bytes": source.size, "dvc/files": source.files}
    return {name: dg.MetadataValue.int(value) for name, value in known.items() if value is not None}


class Metric(NamedTuple):
    """A number of a metrics file: the file's name without suffix, its names in the file from the outside, its value."""

    file: str
    words: tuple[str, ...]
    value: float

    @property
    def name(self) -> str:
        """Its names, with dots between."""
        return ".".join(self.words)


def stage_metrics(stage: DvcStage, root: Path) -> Iterator[Metric]:
    """Every number of the stage's metrics files."""
    for path in (root / out.path for out in stage.outputs if out.metric):
        if path.is_file():
            yield from (Metric(path.stem, words, value) for words, value in _numbers(read_metrics(path)))


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


def _numbers(record: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a nested mapping with its names."""
    if isinstance(record, Mapping):
        for name, value in record.items():
            yield from _numbers(value, (*words, str(name)))
    elif isinstance(record, int | float) and not isinstance(record, bool):
        yield words, float(record)


def _plots(stage: DvcStage, root: Path, suffix: str) -> dict[str, Path]:
    """The files of a kind among the stage's plots, files or folders: by name, by path where names are the same."""
    plots = [root / out.path for out in stage.outputs if out.plot]
    files = [file for plot in plots for file in ([plot] if plot.is_file() else sorted(plot.rglob(f"*{suffix}")))]
    chosen = [file for file in files if file.suffix == suffix]
    count = Counter(file.stem for file in chosen)
    return {file.stem if count[file.stem] == 1 else file.relative_to(root).as_posix(): file for file in chosen}


def _table(path: Path) -> dg.MetadataValue:
    """The first rows of a CSV file that has a header."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(islice(csv.DictReader(handle, restkey="...", restval=""), _MAX_ROWS))
    records = [dg.TableRecord({str(name): str(value) for name, value in row.items()}) for row in rows]
    columns = [dg.TableColumn(name) for name in (records[0].data if records else {})]
    return dg.MetadataValue.table(records, dg.TableSchema(columns=columns))
