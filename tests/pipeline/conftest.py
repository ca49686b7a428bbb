"""All stages in their order."""

from collections.abc import Container
from types import ModuleType

from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import Params
from ctinterp_dagster.pipeline import (
    autoencoder,
    encode,
    evaluate,
    expect,
    generate,
    ingest,
    latent,
    promote,
    report,
    thicken,
    train,
)

STAGES = [ingest, thicken, autoencoder, encode, expect, train, latent, generate, evaluate, promote, report]


def run_all(layout: Layout, params: Params, but: Container[ModuleType] = ()) -> None:
    """Every stage but these."""
    for stage in STAGES:
        if stage not in but:
            stage.run(params, layout)
