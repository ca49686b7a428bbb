"""How a DVC stage reads in Dagster. Subclass `DvcTranslator` to rename or regroup."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._check import CheckError  # no public name; what a bad cron string raises

from .asset_checks import thresholds
from .stage import DvcProjectError, DvcSource, DvcStage

AUTOMATION = {"eager": dg.AutomationCondition.eager, "on_missing": dg.AutomationCondition.on_missing}


class DvcTranslator:
    """Turns stages and sources into asset specs; each method can be overridden alone."""

    def get_asset_key(self, stage: DvcStage) -> dg.AssetKey:
        """`train` is `train`, `fit@a` is `fit/a` or a partition of `fit`, `train` in `sub/dvc.yaml` is `sub/train`."""
        words = stage.name.split("@", maxsplit=1)[: 1 if stage.partition else 2]
        return dg.AssetKey([*(stage.folder.split("/") if stage.folder else []), *words])

    def get_source_key(self, path: str) -> dg.AssetKey:
        """The key of a source, its path's parts: `data/raw` is `data/raw`."""
        return dg.AssetKey(path.split("/"))

    def get_description(self, stage: DvcStage) -> str | None:
        """The stage's `desc`."""
        return stage.description

    def get_group_name(self, stage: DvcStage) -> str | None:
        """The asset's group, `meta.dagster.group`; Dagster's default where there is none."""
        return stage.settings.get("group")

    def get_kinds(self, stage: DvcStage) -> set[str]:
        """The asset's kinds: `dvc` and those of `meta.dagster.kinds`."""
        return {"dvc", *stage.settings.get("kinds", [])}

    def get_owners(self, stage: DvcStage) -> list[str]:
        """The asset's owners, `meta.dagster.owners`: addresses of mail, or `team:...`."""
        return list(stage.settings.get("owners", []))

    def get_tags(self, stage: DvcStage) -> dict[str, str]:
        """The asset's tags, `meta.dagster.tags`."""
        return dict(stage.settings.get("tags", {}))

    def get_metadata(self, stage: DvcStage) -> Mapping[str, Any]:
        """The command, the outputs, and the parameters as they were when the definitions were loaded."""
        return {
            "dvc/target": stage.target,
            "dvc/command": dg.MetadataValue.md(f"```\n{stage.command}\n```"),
            "dvc/outputs": dg.MetadataValue.json([out.path for out in stage.outputs]),
            "dvc/recipe": dg.MetadataValue.json(dict(stage.recipe)),
        }

    def get_automation_condition(self, stage: DvcStage) -> dg.AutomationCondition[Any] | None:
        """`meta.dagster.automation`: `eager`, `on_missing`, or a cron string.

        Args:
            stage: of a dvc.yaml.

        Returns:
            The condition; None where the stage declares none.

        Raises:
            DvcProjectError: it is none of them.
        """
        wish = stage.settings.get("automation")
        if wish is None or wish in AUTOMATION:
            return AUTOMATION[wish]() if wish else None
        try:
            return dg.AutomationCondition.on_cron(str(wish))
        except (CheckError, ValueError) as error:
            raise DvcProjectError(
                f"{stage.file}: {stage.name}: meta.dagster.automation: got {wish!r}, "
                f"expected {', '.join(AUTOMATION)} or a cron string such as '0 6 * * *'"
            ) from error

    def get_freshness_policy(self, stage: DvcStage) -> dg.FreshnessPolicy | None:
        """`meta.dagster.freshness`: `fail_hours`, and `warn_hours` if it is to warn before.

        Args:
            stage: of a dvc.yaml.

        Returns:
            A policy in time windows; None where the stage declares none.

        Raises:
            DvcProjectError: it has no `fail_hours`, or something else.
        """
        wish = stage.settings.get("freshness")
        if wish is None:
            return None
        if not isinstance(wish, Mapping) or not {"fail_hours"} <= set(wish) <= {"fail_hours", "warn_hours"}:
            raise DvcProjectError(
                f"{stage.file}: {stage.name}: meta.dagster.freshness: got {wish}, expected fail_hours, and warn_hours"
            )
        windows = {name.replace("hours", "window"): timedelta(hours=float(hours)) for name, hours in wish.items()}
        return dg.FreshnessPolicy.time_window(**windows)

    def get_partitions_def(
        self, stage: DvcStage, stages: Mapping[str, DvcStage]
    ) -> dg.PartitionsDefinition[Any] | None:
        """The items of a foreach or matrix whose `meta.dagster.partitions` is true."""
        return (
            dg.StaticPartitionsDefinition([str(s.partition) for s in siblings(stage, stages)])
            if stage.partition
            else None
        )

    def get_partition_mapping(
        self, stage: DvcStage, maker: DvcStage, stages: Mapping[str, DvcStage]
    ) -> dg.PartitionMapping | None:
        """Which partitions of a maker's asset each partition of a stage's asset reads: those whose files it names.

        Args:
            stage: that reads.
            maker: that is read.
            stages: all of the project, by target.

        Returns:
            The mapping; None where the maker's asset has no partitions.
        """
        if maker.partition is None:
            return None
        reads = {
            reader.partition: sorted(str(m.partition) for m in siblings(maker, stages) if m.target in reader.makers)
            for reader in siblings(stage, stages)
        }
        if stage.partition is None:
            return dg.SpecificPartitionsPartitionMapping(reads[None])
        readers: dict[str, set[str]] = {}
        for partition, made in reads.items():
            for one in made:
                readers.setdefault(one, set()).add(str(partition))
        return dg.StaticPartitionMapping(readers)

    def get_check_specs(self, stage: DvcStage) -> list[dg.AssetCheckSpec]:
        """The thresholds of `meta.dagster.checks`."""
        key = self.get_asset_key(stage)
        return [
            dg.AssetCheckSpec(t.name, asset=key, blocking=t.blocking, description=t.description)
            for t in thresholds(stage)
        ]

    def get_code_references(self, stage: DvcStage, root: Path) -> list[dg.LocalFileCodeReference]:
        """Its dvc.yaml and the files of code that it depends on; folders have no page of their own."""
        files = [stage.file, *(path for path in stage.recipe if (root / path).is_file() and path != "params.yaml")]
        return [dg.LocalFileCodeReference(file_path=str(root / file), label=file) for file in files]

    def get_code_version(self, stage: DvcStage) -> str:
        """A hash of command, parameters and code; one word where each partition has its own, which its record tells."""
        return stage.code_version if stage.partition is None else "of each partition"

    def get_deps(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> list[dg.AssetDep]:
        """The assets of the stages and sources that it reads, or that its partitions read.

        Args:
            stage: of a dvc.yaml.
            stages: all of the project, by target.

        Returns:
            A dependency for each asset, once.

        Raises:
            DvcProjectError: partitions of one asset read each other.
        """
        deps: dict[dg.AssetKey, dg.AssetDep] = {}
        for reader in siblings(stage, stages):
            for maker in (stages[target] for target in reader.makers):
                key = self.get_asset_key(maker)
                if key == self.get_asset_key(stage):
                    raise DvcProjectError(
                        f"{stage.file}: {reader.name} reads {maker.name}: stages that read each other cannot be "
                        "partitions of one asset; leave meta.dagster.partitions out"
                    )
                deps[key] = dg.AssetDep(key, partition_mapping=self.get_partition_mapping(stage, maker, stages))
            deps |= {k: dg.AssetDep(k) for k in (self.get_source_key(source.path) for source in reader.sources)}
        return list(deps.values())

    def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
        """The asset of a stage; `stages` are all of the project, by target."""
        return dg.AssetSpec(
            self.get_asset_key(stage),
            deps=self.get_deps(stage, stages),
            description=self.get_description(stage),
            metadata=self.get_metadata(stage),
            group_name=self.get_group_name(stage),
            code_version=self.get_code_version(stage),
            owners=self.get_owners(stage),
            tags=self.get_tags(stage),
            kinds=self.get_kinds(stage),
            automation_condition=self.get_automation_condition(stage),
            freshness_policy=self.get_freshness_policy(stage),
            partitions_def=self.get_partitions_def(stage, stages),
        )

    def get_source_spec(self, source: DvcSource) -> dg.AssetSpec:
        """The external asset of data that no stage makes."""
        return dg.AssetSpec(
            self.get_source_key(source.path),
            description=source.description or f"`{source.path}`: data that no stage makes.",
            group_name="sources",
            kinds={"dvc"},
            metadata={"dvc/origin": source.origin} if source.origin else None,
        )


def siblings(stage: DvcStage, stages: Mapping[str, DvcStage]) -> list[DvcStage]:
    """The stages of one asset: the items of a foreach or matrix that are partitions; else the stage alone."""
    if stage.partition is None:
        return [stage]
    name = stage.name.partition("@")[0]
    return [s for s in stages.values() if s.folder == stage.folder and s.name.partition("@")[0] == name]
