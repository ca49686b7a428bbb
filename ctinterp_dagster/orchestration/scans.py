"""New scans: a run that takes them in, and for every scan a partition with its verdict, picture and history."""

import io
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
from PIL import Image

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.orchestration.dvc import DvcIndex, DvcProject, select_stages
from ctinterp_dagster.orchestration.dvc.metadata import inline_picture
from ctinterp_dagster.orchestration.dvc.stage import digest
from ctinterp_dagster.orchestration.runs import ending, under_way, unsuccessful
from ctinterp_dagster.orchestration.settings import Scans
from ctinterp_dagster.records import read_csv, read_json
from ctinterp_dagster.scan.io.volume_files import middle_planes
from ctinterp_dagster.scan.window import SOFT_TISSUE
from ctinterp_dagster.tracking import listing, recorded, track

SCAN = dg.AssetKey("scan")
RAW = dg.AssetKey(["data", "raw"])
PARTITIONS = dg.DynamicPartitionsDefinition(name="scan")
PARTITIONS_A_LOOK = 200  # partitions a look: Dagster stops a look after a minute
THUMBNAIL_PX = 112  # height
READ = "dvc.lock says that ingest has read what data/raw holds"
RETRY_S = 3600  # after a run that failed, until the next one for the same scans

scan_asset = dg.AssetSpec(
    SCAN,
    description="Every scan that ingest has judged, one partition each: fit and in which split, or refused and why.",
    deps=["ingest"],
    group_name="data",
    kinds={"nifti"},
    partitions_def=PARTITIONS,
)


@dataclass(frozen=True)
class IngestVerdict:
    """What ingest made of one scan; `version` changes when the verdict or the volume does."""

    metadata: Mapping[str, str]
    volume: Path | None
    version: str


def build_raw(project: DvcProject) -> dg.AssetsDefinition:
    """The asset of data/raw: to materialize it is to tell DVC which scans it holds, which ingest asks for."""
    layout = Layout(project.root)

    @dg.asset(
        key=RAW,
        group_name="sources",
        kinds={"dvc"},
        pool="dvc",
        description="The scans as they were dropped, tracked by DVC (`data/raw.dvc`, as `ctinterp scans add` does).",
    )
    def raw() -> dg.MaterializeResult[None]:
        track(layout)
        here, known = listing(layout.raw), recorded(layout)
        metadata = {
            "files": here.files,
            "MiB": round(here.size / 2**20, 1),
            "tracked files": known.files if known else 0,
        }
        version = dg.DataVersion(project.read().sources["data/raw"].now)
        return dg.MaterializeResult(data_version=version, metadata=metadata)

    return raw


def build_take_in_job(index: DvcIndex) -> Any:
    """The job that a new scan starts: DVC is told of it, then ingest runs."""
    return dg.define_asset_job(
        "take_in_scans",
        select_stages(index, "ingest"),
        description="Checks the scans in data/raw: fit ones become cases, the others go to quarantine with a reason.",
    )


def build_scan_sensor(project: DvcProject, job: Any, settings: Scans) -> dg.SensorDefinition:
    """A sensor that starts `job` once for each batch of new, changed or removed scans, and keeps the partitions.

    What was seen lies in the cursor, what was done in dvc.lock: a sensor that lost its cursor asks DVC, and starts a
    run only if ingest is out of date. After a run that failed, or was ended, one more is started each hour.

    Args:
        project: whose data/raw is watched.
        job: that takes scans in.
        settings: how often it looks.

    Returns:
        A sensor that is off until it is switched on.
    """
    layout = Layout(project.root)

    @dg.sensor(
        name="new_scans",
        job=job,
        minimum_interval_seconds=settings.interval_s,
        description="Takes in the scans that were dropped into data/raw, and shows each as a partition of `scan`.",
    )
    def look(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        cursor = json.loads(context.cursor or "{}")
        files, stamp, newest = survey(layout.raw)
        verdicts, known = read_verdicts(layout), cursor.get("verdicts", {})
        changed = [name for name, verdict in verdicts.items() if known.get(name) != verdict.version][:PARTITIONS_A_LOOK]
        gone = sorted(set(known) - set(verdicts))
        requests: list[dg.RunRequest] = []
        age_s = time.time() - newest
        if not files:
            reason = "data/raw holds no scan"
        elif age_s < settings.settle_s:
            reason = f"a file in data/raw changed {age_s:.0f} s ago: waiting until {settings.settle_s:g} s have passed"
        elif files == cursor.get("listing"):
            requests, reason = _again(project, job.name, context.instance, [files, stamp])
        else:
            requests = _requests(project, [files, stamp])
            reason = READ
            cursor["listing"] = files
        cursor["verdicts"] = {name: known[name] for name in known if name in verdicts} | {
            name: verdicts[name].version for name in changed
        }
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=reason if not (requests or changed or gone) else None,
            asset_events=[_event(name, verdicts[name]) for name in changed],
            dynamic_partitions_requests=[
                *([PARTITIONS.build_add_request(changed)] if changed else []),
                *([PARTITIONS.build_delete_request(gone)] if gone else []),
            ],
            cursor=json.dumps(cursor, sort_keys=True),
        )

    return look


class Survey(NamedTuple):
    """Of data/raw: what identifies its files, empty if there are none; the last change of a folder, of a file."""

    files: str
    folders_ns: int
    newest_s: float


def survey(raw: Path) -> Survey:
    """What is in data/raw, by name, size and time.

    By the time of the inode's change: a file that is moved in counts as new,
    whatever its own time says.

    Args:
        raw: the folder, which may not be there.

    Returns:
        A digest of the files, empty without one, and the newest change of a folder and of a file.
    """
    files, stamp, newest = [], 0, 0.0
    for folder, names, entries in os.walk(raw):
        names.sort()
        stamp = max(stamp, Path(folder).stat().st_ctime_ns)
        for entry in sorted(entries):
            if entry.startswith("."):  # also a copy by `ctinterp scans add` that is not finished
                continue
            file = Path(folder, entry)
            status = file.stat() if file.exists() else file.lstat()  # a link to nothing
            files.append([folder, entry, status.st_size, status.st_ctime_ns])
            newest = max(newest, status.st_ctime)
    return Survey(digest(files) if files else "", stamp, newest)


def read_verdicts(layout: Layout) -> dict[str, IngestVerdict]:
    """The verdicts of ingest by case, or by name for scans in quarantine; empty before its first run."""
    if not (layout.ingest / "quarantine.csv").exists():
        return {}
    outputs = {case: entry["outputs"] for case, entry in read_json(layout.ingest / "manifest.json").items()}
    verdicts = {}
    for row in read_csv(layout.ingest / "cases.csv"):
        case = row["case"]
        metadata = {"verdict": "fit", "split": row["split"]}
        version = digest([metadata, outputs.get(case)])
        verdicts[case] = IngestVerdict(metadata, layout.ingest / "volumes" / f"{case}.nii", version)
    for row in read_csv(layout.ingest / "quarantine.csv"):
        metadata = {"verdict": "quarantined", "reason": row["reason"], "message": row["message"]}
        verdicts[row["scan"]] = IngestVerdict(metadata, None, digest(metadata))
    return verdicts


def thumbnail(volume: Path) -> bytes:
    """The middle axial and coronal planes of a volume of ingest as PNG, in the window of soft tissue."""
    tiles = []
    for picture in middle_planes(volume):
        grey = SOFT_TISSUE.to_unit(picture.hu).clip(0, 1) * 255
        height_mm, width_mm = np.multiply(picture.hu.shape, picture.pixel_mm)
        size = (max(1, round(THUMBNAIL_PX * width_mm / height_mm)), THUMBNAIL_PX)
        tiles.append(np.asarray(Image.fromarray(grey.astype(np.uint8)).resize(size)))
    png = io.BytesIO()
    Image.fromarray(np.concatenate(tiles, axis=1)).save(png, "png", optimize=True)
    return png.getvalue()


def _requests(project: DvcProject, raw: Sequence[object]) -> list[dg.RunRequest]:
    """The run that data/raw asks for, if DVC finds ingest out of date; once for each state of both."""
    ingest = project.read().stages["ingest"]
    key = digest([raw, ingest.lock])
    return [dg.RunRequest(run_key=key, tags={"ctinterp/trigger": "new_scans"})] if ingest.changed else []


def _again(
    project: DvcProject, job: str, instance: dg.DagsterInstance, raw: Sequence[object]
) -> tuple[list[dg.RunRequest], str]:
    """The run that scans ask for whose last run did not succeed, an hour after it; or why there is none."""
    failed = unsuccessful(instance, job)
    if failed is None or under_way(instance, job):
        return [], "nothing in data/raw has changed since the last look"
    left_s = (failed.end_time or 0.0) + RETRY_S - time.time()
    if left_s > 0:
        return [], f"{ending(failed)}; one more run in {left_s / 60:.0f} minutes, or when data/raw changes"
    return _requests(
        project, [*raw, failed.dagster_run.run_id]
    ), "dvc.lock says that ingest has read what data/raw holds"


def _event(name: str, verdict: IngestVerdict) -> dg.AssetMaterialization | dg.AssetObservation:
    """The materialization of one scan's partition; of a scan in quarantine an observation, so that it is not green."""
    metadata: dict[str, Any] = dict(verdict.metadata)
    if verdict.volume is None:
        return dg.AssetObservation(SCAN, partition=name, description=verdict.metadata["message"], metadata=metadata)
    metadata["thumbnail"] = inline_picture(thumbnail(verdict.volume), name)
    return dg.AssetMaterialization(SCAN, partition=name, description=verdict.metadata["verdict"], metadata=metadata)
