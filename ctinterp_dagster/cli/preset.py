"""Presets: files of overrides that are written into params.yaml, whose comments stay."""

from io import StringIO
from pathlib import Path
from typing import Any

import click
from ruamel.yaml import YAML

from ctinterp_dagster.errors import MissingInputError
from ctinterp_dagster.layout import Layout
from ctinterp_dagster.params import load_params
from ctinterp_dagster.records import whole_file

PRESETS = Path(__file__).parent.parent / "presets"


def override(into: Any, values: Any) -> None:
    """Set every leaf of `values` in the nested mapping `into`."""
    for key, value in values.items():
        if isinstance(value, dict):
            override(into[key], value)
        else:
            into[key] = value


@click.command
@click.argument("name", type=click.Choice(sorted(path.stem for path in PRESETS.glob("*.yaml"))))
def command(name: str) -> None:
    """Write the preset NAME into params.yaml of the current folder; `dvc repro` then uses it.

    \b
    cpu    real scans on a laptop: a narrow autoencoder and denoiser, an hour on two cores
    gpu    real scans on GPUs: MAISI's own width and checkpoint, mixed precision
    smoke  the built-in phantoms in about a minute, for tests
    demo   the built-in phantoms in minutes: what the repository has committed
    """  # noqa: D301 (click's mark against rewrapping)
    path = Layout(Path()).params
    if not path.exists():
        raise MissingInputError(f"{path} is missing: run in the project's root, the folder of dvc.yaml")
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 200
    params = yaml.load(path.read_text(encoding="utf-8"))
    override(params, YAML(typ="safe").load((PRESETS / f"{name}.yaml").read_text(encoding="utf-8")))
    text = StringIO()
    yaml.dump(params, text)
    with whole_file(path) as partial:
        partial.write_text(text.getvalue(), encoding="utf-8")
    load_params(path)
    click.echo(f"params.yaml now has the values of the preset {name}; `dvc repro` runs the pipeline with them")
