"""The `ctinterp` command."""

from ctinterp_dagster.cli.main import main

__all__ = ["main"]
