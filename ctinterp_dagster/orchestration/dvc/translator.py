"""How a DVC stage reads in Dagster. Subclass `DvcTranslator` to rename or regroup."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from .stage import DvcSource, DvcStage


class DvcTranslator:
    """Turns stages and sources into asset specs; each method can be overridden alone."""

    def get_asset_key(self, stage: DvcStage) -> dg.AssetKey:
        """`train` is `train`, `fit@a` is `fit/a`, `train` in `sub/dvc.yaml` is `sub/train`."""
        return dg.AssetKey([*(stage.folder.split("/") if stage.folder else []), *stage.name.split("@", maxsplit=1)])

    def get_source_key(self, path: str) -> dg.AssetKey:
        """`data/raw` is `data/raw`."""
        return dg.AssetKey(path.split("/"))

    def get_description(self, stage: DvcStage) -> str | None:
        """The stage's `desc`."""
        return stage.description

    def get_group_name(self, stage: DvcStage) -> str | None:
        """`meta.dagster.group`."""
        return stage.settings.get("group")

    def get_kinds(self, stage: DvcStage) -> set[str]:
        """`dvc` and `meta.dagster.kinds`."""
        return {"dvc", *stage.settings.get("kinds", [])}

    def get_owners(self, stage: DvcStage) -> list[str]:
        """`meta.dagster.owners`."""
        return list(stage.settings.get("owners", []))

    def get_tags(self, stage: DvcStage) -> dict[str, str]:
        """`meta.dagster.tags`."""
        return dict(stage.settings.get("tags", {}))

    def get_metadata(self, stage: DvcStage) -> Mapping[str, Any]:
        """The command, the outputs, and the parameters as they were when the definitions were loaded."""
        return {
            "dvc/target": stage.target,
            "dvc/command": dg.MetadataValue.md(f"```\n{stage.command}\n```"),
            "dvc/outputs": dg.MetadataValue.json([out.path for out in stage.outputs]),
            "dvc/recipe": dg.MetadataValue.json(dict(stage.recipe)),
        }

    def get_asset_spec(self, stage: DvcStage, stages: Mapping[str, DvcStage]) -> dg.AssetSpec:
        """The asset of a stage; `stages` are all of the project, by target."""
        upstream = [self.get_asset_key(stages[target]) for target in stage.makers]
        return dg.AssetSpec(
            self.get_asset_key(stage),
            deps=[*upstream, *(self.get_source_key(source.path) for source in stage.sources)],
            description=self.get_description(stage),
            metadata=self.get_metadata(stage),
            group_name=self.get_group_name(stage),
            code_version=stage.code_version,
            owners=self.get_owners(stage),
            tags=self.get_tags(stage),
            kinds=self.get_kinds(stage),
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
