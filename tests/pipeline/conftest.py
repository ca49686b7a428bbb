"""All stages in their order."""

from collections.abc import Container, Iterator
from types import ModuleType

import pytest

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
from tests.phantoms import phantom

STAGES = [ingest, thicken, autoencoder, encode, expect, train, latent, generate, evaluate, promote, report]


@pytest.fixture(scope="module", autouse=True)
def _phantoms_are_drawn_once() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ingest, "phantom", phantom)
        yield


def run_all(layout: Layout, params: Params, but: Container[ModuleType] = ()) -> None:
    """Every stage but these."""
    for stage in STAGES:
        if stage not in but:
            stage.run(params, layout)
