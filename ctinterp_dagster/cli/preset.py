"""Presets: files of overrides that are written into params.yaml, whose comments stay."""

from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from ctinterp_dagster.cli import prerequisites
from ctinterp_dagster.params import load_params
from ctinterp_dagster.records import whole_file

PRESETS = Path(__file__).parent.parent / "presets"
NAMES = sorted(path.stem for path in PRESETS.glob("*.yaml"))


def override(into: Any, values: Any) -> None:
    """Set every leaf of `values` in the nested mapping `into`; what is there already keeps its style."""
    for key, value in values.items():
        if isinstance(value, dict):
            override(into[key], value)
        elif key not in into:  # of a mapping whose keys are the user's, such as expect.weights
            into[key] = value
        elif into[key] != value and isinstance(value, list):
            into[key][:] = value
        elif into[key] != value:
            into[key] = value


def changes(into: Any, values: Any, where: str = "") -> Iterator[str]:
    """What `override` would change, a line a leaf."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from changes(into[key], value, f"{where}{key}.")
        elif into.get(key) != value:
            yield f"{where}{key}: {into.get(key)} -> {value}"


def read_preset(name: str) -> Any:
    """The overrides of a preset."""
    return YAML(typ="safe").load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8"))


@click.command
@click.argument("name", required=False, type=click.Choice(NAMES))
def command(name: str | None) -> None:
    """Write the preset NAME into params.yaml of the current folder; `dvc repro` then uses it.

    Without NAME it says which preset the file has.

    \b
    cpu    real scans on a laptop: a narrow autoencoder and denoiser, an hour on two cores
    gpu    real scans on GPUs: MAISI's own width and checkpoint, mixed precision
    smoke  the built-in phantoms in a few minutes, for tests
    demo   the built-in phantoms in minutes, from the released weights on: what the repository has committed
    """  # noqa: D301 (click's mark against rewrapping)
    path = prerequisites.project().params
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    params = yaml.load(path.read_text(encoding="utf-8"))
    if name is None:
        same = [name for name in NAMES if not any(changes(params, read_preset(name)))]
        click.echo(f"params.yaml has the values of {f'the preset {same[0]}' if same else 'no preset'}")
        return
    for line in changes(params, read_preset(name)):
        click.echo(line)
    override(params, read_preset(name))
    text = StringIO()
    yaml.dump(params, text)
    with whole_file(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    written = load_params(path)
    click.echo(f"params.yaml now has the values of the preset {name}; `dvc repro` runs the pipeline with them")
    if "gpu" in written.loop.launcher:
        click.echo(f"trainings start by `{written.loop.launcher}`; without a GPU set loop.launcher: python")
    checkpoint = written.autoencoder.checkpoint
    if checkpoint and not (path.parent / checkpoint).exists():
        click.echo(f'{checkpoint} is missing: `ctinterp autoencoder import`, or set autoencoder.checkpoint: ""')
