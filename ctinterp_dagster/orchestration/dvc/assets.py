"""A DVC project as Dagster assets: one for each stage, one external asset for each source."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster.components.resolved.core_models import OpSpec  # no public name; the `op` of Dagster's own components

from .asset_checks import check_results
from .invocation import asked_partitions
from .project import DvcProject
from .resource import DvcCliResource
from .stage import DvcIndex, DvcProjectError, DvcStage
from .translator import DvcTranslator

FORCE_TAG = "dvc/force"
REPRO = ("repro", "--single-item")

Execute = Callable[[dg.AssetExecutionContext, DvcCliResource, Sequence[DvcStage]], Iterator[Any]]
"""Runs stages, given in an order in which each comes after what it reads, and gives their events."""


def build_dvc_assets(
    project: DvcProject,
    translator: DvcTranslator | None = None,
    *,
    index: DvcIndex | None = None,
    op: OpSpec | None = None,
    single_step: bool = False,
    execute: Execute | None = None,
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """The assets of every selected stage, sorted by target, then their sources as external assets.

    They need a `DvcCliResource` under the key `dvc`. A run with the tag `dvc/force` set to `true` runs stages that did
    not change too. A stage's `meta.dagster` may hold `group`, `kinds`, `owners`, `tags`, `pool`, `retries`, `pipes`,
    `automation`, `freshness`, `partitions` (true: the items of its foreach or matrix are partitions of one asset),
    `checks` (thresholds of its metrics: `Threshold`), `table` (a CSV file among its outputs whose rows and columns
    Dagster shows) and `sources` (paths of its deps that are data though neither a stage nor `dvc add` makes them).

    Args:
        project: the project, with its selection.
        translator: how stages read in Dagster.
        index: the project as it is now, where it has been read already.
        op: tags, pool and backfill policy of every step; the name too of the single one.
        single_step: one step, and one `dvc repro a b c`, for all stages that have no partitions. It saves the start of
            DVC, about two seconds a stage; `pool`, `retries` and `pipes` of single stages have no effect in it.
        execute: how stages are run; `dvc repro --single-item` if it is not given.

    Returns:
        One assets definition a step, then a spec for each source.

    Raises:
        DvcProjectError: the project cannot be read, or a single step is to wait for a blocking check.
    """
    translator = translator or DvcTranslator()
    index = index or project.read()
    build = _Builder(project, translator, index.stages, op or OpSpec(), execute or repro(translator))
    assets: dict[dg.AssetKey, list[DvcStage]] = {}
    for stage in project.shown(index).values():
        assets.setdefault(translator.get_asset_key(stage), []).append(stage)
    alone = {key: made for key, made in assets.items() if not single_step or made[0].partition}
    together = {key: made for key, made in assets.items() if key not in alone}
    return [
        *(build.step({key: made}) for key, made in alone.items()),
        *([build.step(together, single=True)] if together else []),
        *(translator.get_source_spec(source) for source in project.shown_sources(index).values()),
    ]


def repro(translator: DvcTranslator, arguments: Sequence[str] = REPRO) -> Execute:
    """Runs stages by `dvc repro --single-item`, with `--force` in a run with the tag `dvc/force`.

    Where none has changed it does not start DVC, which would take most of a second to say so.

    Args:
        translator: the one that the assets were built with.
        arguments: of DVC, before the stages' targets.

    Returns:
        A function for the argument `execute` of `build_dvc_assets`.
    """

    def execute(context: dg.AssetExecutionContext, dvc: DvcCliResource, stages: Sequence[DvcStage]) -> Iterator[Any]:
        force = ["--force"] if context.run.tags.get(FORCE_TAG) == "true" else []
        command = ["--wait-for-lock", *arguments, *force, *(stage.target for stage in stages)]
        invocation = dvc.cli(command, context=context, translator=translator, stages=stages)
        now = invocation.project.read()
        if force or tuple(arguments) != REPRO or any(now.stages[stage.target].changed for stage in stages):
            yield from invocation.stream()
        else:
            yield from invocation.skip(now)

    return execute


class _Builder:
    """Makes the steps of a project."""

    def __init__(
        self,
        project: DvcProject,
        translator: DvcTranslator,
        stages: Mapping[str, DvcStage],
        op: OpSpec,
        execute: Execute,
    ) -> None:
        self.project, self.translator, self.stages, self.op, self.execute = project, translator, stages, op, execute

    def step(self, assets: Mapping[dg.AssetKey, Sequence[DvcStage]], *, single: bool = False) -> dg.AssetsDefinition:
        """One step that makes some assets.

        Args:
            assets: the stages that make each, partitions of one asset together.
            single: whether it is the one step of all of them.

        Returns:
            The definition, which runs the stages in the order of DVC.

        Raises:
            DvcProjectError: a blocking check in a single step.
        """
        key, first = next((key, made[0]) for key, made in assets.items())
        checks = [spec for made in assets.values() for spec in self.translator.get_check_specs(made[0])]
        if single and (blocking := [spec.name for spec in checks if spec.blocking]):
            raise DvcProjectError(
                f"the blocking check {blocking[0]} needs steps of their own after it: "
                "leave single_step out, or set blocking: false"
            )
        retries = 0 if single else first.settings.get("retries", 0)
        order = _in_order({stage.target: stage for made in assets.values() for stage in made}, self.stages)

        @dg.multi_asset(
            name=(self.op.name or "dvc_repro") if single else re.sub(r"\W", "_", "__".join(key.path)),
            specs=[self._spec(made[0]) for made in assets.values()],
            check_specs=checks,
            op_tags=self.op.tags,
            backfill_policy=self.op.backfill_policy,
            pool=self.op.pool if single else first.settings.get("pool", self.op.pool),
            can_subset=True,  # assets without their checks, or checks alone
        )
        def materialize(context: dg.AssetExecutionContext, dvc: DvcCliResource) -> Iterator[Any]:
            yield from self._run(context, dvc, order, retries)

        return materialize

    def _run(
        self, context: dg.AssetExecutionContext, dvc: DvcCliResource, order: Sequence[DvcStage], retries: int
    ) -> Iterator[Any]:
        """Run the stages that were asked for, then judge the checks whose assets were not.

        Args:
            context: Dagster's, with what was asked for.
            dvc: runs the stages.
            order: the stages of the step, makers first.
            retries: how often a failed step is tried again.

        Yields:
            Results of assets and of checks.

        Raises:
            RetryRequested: a stage failed, and tries are left.
            Failure: a stage failed.
        """
        keys = {stage.target: self.translator.get_asset_key(stage) for stage in order}
        partitions = asked_partitions(context)
        asked = [s for s in order if keys[s.target] in context.selected_asset_keys and s.partition in partitions]
        try:
            if asked:
                yield from self.execute(context, dvc, asked)
        except dg.Failure as failure:
            # Not a RetryPolicy: Dagster would apply it to a terminated run too, and start the stage again.
            if context.op_execution_context.retry_number < retries:
                raise dg.RetryRequested(max_retries=retries) from failure
            raise
        alone = {c for c in context.selected_asset_check_keys if c.asset_key not in context.selected_asset_keys}
        for key in {check.asset_key for check in alone}:
            for result in check_results([s for s in order if keys[s.target] == key], self.project.root):
                if dg.AssetCheckKey(key, str(result.check_name)) in alone:
                    yield result._replace(asset_key=key)

    def _spec(self, stage: DvcStage) -> dg.AssetSpec:
        """The asset of a stage, with the places of its code."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)
            references = self.translator.get_code_references(stage, self.project.root)
            where = dg.CodeReferencesMetadataValue(code_references=list(references))
            spec = self.translator.get_asset_spec(stage, self.stages)
            return spec.merge_attributes(metadata={"dagster/code_references": where})


def _in_order(chosen: Mapping[str, DvcStage], stages: Mapping[str, DvcStage]) -> list[DvcStage]:
    """Stages, each after those that it reads, directly or not."""
    order: dict[str, DvcStage] = {}
    visited: set[str] = set()

    def visit(target: str) -> None:
        if target not in visited:
            visited.add(target)
            for maker in stages[target].makers:
                visit(maker)
            if target in chosen:
                order[target] = chosen[target]

    for target in chosen:
        visit(target)
    return list(order.values())
