"""What would a thick-slice scan have seen? Thin volumes to synthetic thick ones."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from ctinterp_dagster.import_closure import code_version
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params, ThickTask
from ctinterp_dagster.physics.grids import thicken
from ctinterp_dagster.pipeline.common.cases import read_cases
from ctinterp_dagster.records import CaseFolder, CaseJob
from ctinterp_dagster.scan.io import read_scan, write_volume


def run(params: Params, layout: Layout) -> Mapping[str, float]:
    """Write `data/thicken/<task>/<case>.nii` for every ingested case and task.

    Slices at the far end that do not fill a thick one are left out, as in evaluation.

    Args:
        params: of all stages.
        layout: where things are.

    Returns:
        How many thick scans there are, and how many were made now.

    Raises:
        MissingInputError: an ingested volume is not there.
    """
    folder = CaseFolder(layout.thicken, {"code": code_version(Path(__file__))})
    done = folder.make_all(jobs(params, layout))
    folder.keep_only(done.cases)
    return {"cases": len(done.cases), "made": done.made}


def jobs(params: Params, layout: Layout) -> Iterator[CaseJob]:
    """Every ingested case, thickened for every task; a job makes `<task>/<case>.nii`.

    Args:
        params: of all stages.
        layout: where things are.

    Yields:
        A job for each case and task.

    Raises:
        MissingInputError: ingest has not run.
    """
    for case in read_cases(layout):
        thin = case.thin(layout)
        for task in params.thicken.tasks:
            name, about = f"{task.name}/{case.case}", f"case={case.case} task={task.name}"
            yield CaseJob(name, [thin], [f"{name}.nii"], partial(write_thick, thin, task), about)


def write_thick(thin: Path, task: ThickTask, paths: list[Path]) -> None:
    """Thicken a thin volume, as `CaseJob.action`.

    Args:
        thin: the volume's file.
        task: factor and profile.
        paths: of the one volume.
    """
    write_volume(thicken(read_scan(thin).volume, task.factor, task.profile), paths[0])
