"""The command group. Commands are imported when they are called, so that `--help` does not wait for torch."""

import gc
import io
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from types import FrameType

import click

from ctinterp_dagster.errors import CtinterpError, disk_problem

COMMANDS = {
    "interpolate": "Turn a thick-slice CT into a thin-slice one.",
    "evaluate": "Score every method on thin scans that the model has not seen.",
    "view": "Look at a scan before and after, in a browser on this machine.",
    "pacs": "Find thick series in a PACS, restore them, and send the results back.",
    "scans": "Add, list and check scans.",
    "preset": "Write the parameters for real scans (cpu, gpu) or the demo into params.yaml.",
    "autoencoder": "Verify and import weights of MAISI's autoencoder.",
    "champion": "Show the champion and every challenger; go back to an earlier one.",
    "summary": "Print the metrics of the last pipeline run and where its report is.",
    "info": "Show versions, devices and the released model.",
}


class LazyGroup(click.Group):
    """A group whose commands live in modules of the same name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of a user's way."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"ctinterp_dagster.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or name the nearest one to what was mistyped.

        Args:
            ctx: click's context.
            args: the words after the program, the command first.

        Returns:
            Its name, the command, and the words after it.

        Raises:
            UsageError: there is no such command.
        """
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, n=1)):
            raise click.UsageError(f"there is no command {args[0]!r}: did you mean {near[0]!r}?", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `ctinterp interpolate thick.nii.gz -o thin.nii.gz`. Research use only, not a medical device.",
)
@click.version_option(package_name="ctinterp")
def group() -> None:
    """Thick-slice CT (about 5 mm) to thin-slice CT (about 1 mm)."""


def end_in_order() -> None:
    """Let a closed terminal and `kill` end the process as Ctrl-C does: what it wrote beside a place is removed."""

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores it
            signal.signal(number, end)


def main() -> None:
    """Run the command line: exit 0, 1 for an error of ours in one line, 2 for wrong usage.

    Raises:
        OSError: one that is neither of the disk nor of a path.
    """
    end_in_order()
    gc.set_threshold(50_000)  # a tenth of the time that torch takes to import went into looking for circles
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr does, where a name has letters it cannot write
    try:
        sys.exit(group.main(standalone_mode=False))
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(1)
    except CtinterpError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        problem = disk_problem(error) or (error.filename and f"{error.strerror} ({error.filename}): give another path")
        if not problem:
            raise
        click.echo(f"error: {problem}", err=True)
        sys.exit(1)
