"""What `ctinterp view` is given."""

from dataclasses import dataclass
from pathlib import Path

import click

PAGES = (".html", ".htm")


@dataclass(frozen=True)
class Options:
    """What the command is given; each field is the argument or option of its name, or of the name beside it."""

    thick: Path
    thin: Path
    std: Path | None
    series: str | None
    truth: Path | None
    html: Path | None
    force: bool
    port: int
    opens: bool  # --open

    def __post_init__(self) -> None:
        """Refuse a page that is not called .html.

        Raises:
            UsageError: it is not.
        """
        if self.html and self.html.suffix.lower() not in PAGES:
            raise click.UsageError(f"--html writes a page: give a name that ends in .html, not {self.html}")
