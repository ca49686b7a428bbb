"""What commands do once their options are right: a module a command, imported when its work begins."""

from importlib import import_module


def begin(command: str, *given: object, **options: object) -> None:
    """Do the work of a command: `run` of the module of its name, which loads torch and what reads scans.

    The options of a command stand above, so that `--help` and mistakes in them wait for none of that.
    """
    import_module(f"{__name__}.{command}").run(*given, **options)
