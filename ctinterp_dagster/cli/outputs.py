"""Where commands may write."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from ctinterp_dagster.errors import MissingInputError, ParamsError
from ctinterp_dagster.scan.io import check_overwriting


def check_files(inputs: Iterable[Path], files: Sequence[Path], *, force: bool) -> None:
    """Refuse, before the work, files that could not be written after it, or would replace an input or what is there.

    Raises:
        MissingInputError: the folder of a file is not there.
        ParamsError: see `check_overwriting`; also a file that is a folder.
    """
    for file in files:
        if file.is_dir():
            raise ParamsError(f"{file} is a folder: give a name for the file")
        if not file.absolute().parent.is_dir():
            raise MissingInputError(f"the folder {file.parent} does not exist: make it first")
    for source in filter(Path.exists, inputs):  # whoever reads it says what is missing
        check_overwriting(source, files, force=force)
