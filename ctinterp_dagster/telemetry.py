"""What a running stage says to whoever watches: Dagster shows it at once, without Dagster nothing happens."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dagster_pipes import DAGSTER_PIPES_CONTEXT_ENV_VAR, PipesContext, open_dagster_pipes

Shown = float | int | str


@contextmanager
def session() -> Iterator[None]:
    """Connect to Dagster for the length of the block, if Dagster started this process.

    Of the processes that a launcher started only the first connects.
    """
    if DAGSTER_PIPES_CONTEXT_ENV_VAR not in os.environ or os.environ.get("RANK", "0") != "0":
        yield
        return
    with open_dagster_pipes():
        yield


def show(**values: Shown) -> None:
    """Show numbers, texts and paths of PNG files; print a line afterwards, with which Dagster takes them in."""
    if PipesContext.is_initialized():
        PipesContext.get().report_custom_message(values)


def result(**values: Shown | Mapping[str, str]) -> None:
    """Show what came of a stage on its page, for as long as the result stands; a text may be `markdown` or a `link`."""
    if PipesContext.is_initialized():
        PipesContext.get().report_asset_materialization(metadata=values)


def markdown(text: str) -> Mapping[str, str]:
    """A text that Dagster shows as Markdown."""
    return {"type": "md", "raw_value": text}


def link(url: str) -> Mapping[str, str]:
    """A text that Dagster shows as a link."""
    return {"type": "url", "raw_value": url}
