"""Any command of DVC, streamed into Dagster."""

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
from dagster_dvc import DvcCliResource, DvcProject, DvcProjectError


def run(project: DvcProject, instance: dg.DagsterInstance, *arguments: str) -> dict[str, dg.AssetMaterialization]:
    """Run a command in an op; the last materialization of each asset and partition."""

    @dg.op
    def command(context: dg.OpExecutionContext, dvc: DvcCliResource) -> Iterator[Any]:
        yield from dvc.cli(list(arguments), context=context).stream()
        yield dg.Output(None)

    @dg.job(resource_defs={"dvc": DvcCliResource(project_dir=str(project.root))})
    def commands() -> None:
        command()

    result = commands.execute_in_process(instance=instance)
    made = [event.event_specific_data.materialization for event in result.get_asset_materialization_events()]
    return {f"{m.asset_key.to_user_string()}{'@' + m.partition if m.partition else ''}": m for m in made}


def test_repro_gives_an_event_with_the_version_of_each_stage(started: DvcProject, instance: dg.DagsterInstance) -> None:
    made = run(started, instance, "repro", "evaluate")
    stages = started.read().stages
    assert set(made) == {*stages, "data/data.csv"}
    for target, stage in stages.items():
        assert made[target].tags["dagster/data_version"] == stage.data_version
    assert made["evaluate"].metadata["best"].value > 0
    assert run(started, instance, "repro") == {}


def test_pull_gives_what_it_brought(started: DvcProject, instance: dg.DagsterInstance) -> None:
    run(started, instance, "status")
    (started.root / "data" / "data.csv").unlink()
    (started.root / "data" / "prepared.csv").unlink()
    run(started, instance, "status")
    brought = run(started, instance, "pull", "--force")
    assert set(brought) == {
        "data/data.csv",
        "featurize@root",
        "featurize@square",
    }  # these were stale without their file
    assert (started.root / "data" / "prepared.csv").is_file()


def test_an_experiment_gives_what_it_made(started: DvcProject, instance: dg.DagsterInstance) -> None:
    run(started, instance, "status")
    made = run(started, instance, "exp", "run", "-S", "featurize.root.power=0.25")
    assert {"featurize@root", "train@root-1", "train@root-2", "evaluate"} <= set(made)
    assert "prepare" not in made


def test_push_works_outside_dagster_and_a_command_that_fails_says_why(started: DvcProject) -> None:
    dvc = DvcCliResource(project_dir=str(started.root))
    dvc.cli(["push"]).wait()
    with pytest.raises(dg.Failure, match="nowhere failed: ERROR: "):
        dvc.cli(["push", "-r", "nowhere"]).wait()
    with pytest.raises(DvcProjectError, match=r"call dvc\.cli\(arguments, context=context\)"):
        next(dvc.cli(["push"]).stream())
