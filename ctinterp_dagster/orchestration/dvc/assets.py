"""A DVC project as Dagster assets: one for each stage, one external asset for each source."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from .checks import check_results, check_specs
from .project import DvcProject
from .resource import DvcCliResource
from .stage import DvcIndex, DvcStage
from .translator import DvcTranslator

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
        name=re.sub(r"\W", "_", "__".join(key.path)),
        specs=[translator.get_asset_spec(stage, stages)],
        check_specs=check_specs(stage, key),
        pool=stage.settings.get("pool"),
        can_subset=True,  # the asset without its checks, or checks alone
    )
    def materialize(context: dg.AssetExecutionContext, dvc: DvcCliResource) -> Iterator[Any]:
        if not context.selected_asset_keys:
            chosen = {check.name for check in context.selected_asset_check_keys}
            yield from (c for c in check_results([stage], project.root) if c.check_name in chosen)
            return
        try:
            yield from dvc.cli(repro_arguments([stage], context), context=context, translator=translator).stream()
        except dg.Failure as failure:
            # Not a RetryPolicy: Dagster would apply it to a terminated run too, and start the stage again.
            if context.op_execution_context.retry_number < retries:
                raise dg.RetryRequested(max_retries=retries) from failure
            raise

    return materialize


def repro_arguments(stages: Sequence[DvcStage], context: dg.AssetExecutionContext) -> list[str]:
    """`dvc --wait-for-lock repro --single-item <stages>`, with `--force` in a run with the tag `dvc/force`."""
    force = ["--force"] if context.run.tags.get(FORCE_TAG) == "true" else []
    return ["--wait-for-lock", "repro", "--single-item", *force, *(stage.target for stage in stages)]
