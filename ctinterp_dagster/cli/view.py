"""Look at a scan before and after, in a browser on this machine: the options."""

from pathlib import Path
from typing import Any

import click

from ctinterp_dagster.cli.options.view import Options


@click.command(epilog="Example: ctinterp view thick.nii.gz thin.nii.gz std.nii.gz --html look.html")
@click.argument("thick", type=click.Path(path_type=Path))
@click.argument("thin", type=click.Path(path_type=Path))
@click.argument("std", required=False, type=click.Path(path_type=Path))
@click.option("--series", help="which scan of several in THICK: its name, UID, description, date or number")
@click.option("--truth", type=click.Path(path_type=Path), help="a real thin scan with the slices and pixels of THIN")
@click.option("--html", type=click.Path(path_type=Path), help="write the page to this file instead of showing it")
@click.option("--force", is_flag=True, help="replace a page that exists")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="of the page; 0 takes a free one"
)
@click.option("--open/--no-open", "opens", default=True, show_default=True, help="open a browser")
def command(**given: Any) -> None:
    """Show THICK beside THIN: linked planes, windows, and a slider from one to the other.

    STD, or the difference of the two, lies over them where you ask for it. The page is served to this machine only,
    until Ctrl-C; --html writes it as one file that needs no network. It holds the scans: keep it as you keep them.
    Research use only, not a medical device.
    """
    options = Options(**given)
    from ctinterp_dagster.cli.actions.view import run

    run(options)
