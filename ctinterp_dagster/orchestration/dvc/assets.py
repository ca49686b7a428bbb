"""A DVC project as Dagster assets: one for each stage, one external asset for each source."""

import re
from collections.abc import Iterator, Mapping

import dagster as dg

from ctinterp_dagster.orchestration.dvc.checks import check_results, check_specs
from ctinterp_dagster.orchestration.dvc.metadata import stage_metadata
from ctinterp_dagster.orchestration.dvc.project import DvcProject
from ctinterp_dagster.orchestration.dvc.provenance import provenance_tags, source_events, superseded_events
from ctinterp_dagster.orchestration.dvc.resource import DvcCliResource
from ctinterp_dagster.orchestration.dvc.stage import DvcIndex, DvcStage
from ctinterp_dagster.orchestration.dvc.translator import DvcTranslator

FORCE_TAG = "dvc/force"


def build_dvc_assets(
    project: DvcProject, translator: DvcTranslator | None = None, *, index: DvcIndex | None = None
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of every stage, sorted by target, then the sources as external assets.

    They need a `DvcCliResource` under the key `dvc`. A run with the tag `dvc/force` set to `true` runs stages that did
    not change too. A stage's `meta.dagster` may hold `group`, `kinds`, `owners`, `tags`, `pool`, `retries`, `pipes`,
    `checks` (thresholds of its metrics, see `Threshold`) and `sources` (paths of its deps that are data though neither
    a stage nor `dvc add` makes them).

    Args:
        project: the project.
        translator: how stages read in Dagster.
        index: the project as it is now, where it has been read already.

    Raises:
        DvcProjectError: the project cannot be read.
    """
    translator = translator or DvcTranslator()
    index = index or project.read()
    return [
        *(_stage_asset(stage, index.stages, project, translator) for stage in index.stages.values()),
        *(translator.get_source_spec(source) for source in index.sources.values()),
    ]


def _stage_asset(
    stage: DvcStage, stages: Mapping[str, DvcStage], project: DvcProject, translator: DvcTranslator
) -> dg.AssetsDefinition:
    """The asset that runs one stage."""
    key = translator.get_asset_key(stage)
    retries = stage.settings.get("retries", 0)

    @dg.multi_asset(
        name="dvc__" + re.sub(r"\W", "_", stage.target),
        specs=[translator.get_asset_spec(stage, stages)],
        check_specs=check_specs(stage, key),
        pool=stage.settings.get("pool"),
    )
    def materialize(context: dg.AssetExecutionContext, dvc: DvcCliResource) -> Iterator[dg.MaterializeResult]:  # type: ignore[type-arg]
        try:
            run = dvc.repro(context, stage, key, force=context.run.tags.get(FORCE_TAG) == "true")
        except dg.Failure as failure:
            # Not a RetryPolicy: Dagster would apply it to a terminated run too, and start the stage again.
            if context.op_execution_context.retry_number < retries:
                raise dg.RetryRequested(max_retries=retries) from failure
            raise
        after = project.read()
        for event in (
            *source_events(after, translator, context.instance),
            *superseded_events(after, project, translator, context.instance),
        ):
            context.instance.report_runless_asset_event(event)
        made = after.stages[stage.target]
        yield dg.MaterializeResult(
            asset_key=key,
            tags=provenance_tags(made, after.stages, translator),
            check_results=list(check_results(made, project.root)),
            metadata={
                **stage_metadata(made, project.root),
                **run.metadata,
                "dvc/ran": run.ran,
                "dvc/duration_s": round(run.duration_s, 2),
            },
        )

    return materialize
