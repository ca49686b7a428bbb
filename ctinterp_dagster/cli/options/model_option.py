"""The option --model."""

from pathlib import Path
from typing import Any

import click

LATENT = "latent"


class ModelType(click.Path):
    """A model's file, or the name of the released latent diffusion."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as it was given; a bare word that is neither file nor name is refused."""
        path = Path(value)
        if str(path) != LATENT and path.name == str(value) and not path.suffix and not path.exists():
            self.fail(
                f"{value!r} is neither a file nor a released model: give a model's file, {LATENT!r} for the released "
                "latent diffusion, or leave it out for the released model",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)
