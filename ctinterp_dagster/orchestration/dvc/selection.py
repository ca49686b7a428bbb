"""Selecting assets by what DVC calls their stages."""

import dagster as dg

from .stage import DvcIndex, DvcProjectError
from .translator import DvcTranslator


def select_stages(
    index: DvcIndex, *targets: str, translator: DvcTranslator | None = None, single_item: bool = False
) -> dg.AssetSelection:
    """The assets that `dvc repro <targets>` runs: the stages and what they are made from.

    Args:
        index: the project.
        targets: those of `dvc repro`: `train`, `fit@a`, `fit` for all of a foreach or matrix,
            `sub/dvc.yaml:train`, `sub/dvc.yaml` for all of a file.
        translator: the one that the assets were built with.
        single_item: without upstream stages, as `dvc repro --single-item`.

    Returns:
        A selection for jobs and schedules.

    Raises:
        DvcProjectError: a target is no stage of the project.
    """
    translator = translator or DvcTranslator()
    keys = []
    for target in targets:
        named = index.named(target)
        if not named:
            raise DvcProjectError(f"{target!r} is no stage of the project: expected one of {', '.join(index.stages)}")
        keys += [translator.get_asset_key(index.stages[name]) for name in named]
    selection = dg.AssetSelection.assets(*keys)
    return selection if single_item else selection.upstream()
