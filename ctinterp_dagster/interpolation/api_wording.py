"""The words of a message: options of the command line, which a caller of the Python API knows as keywords."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ctinterp_dagster.errors import CtinterpError

# What an option of the command line is called here.
KEYWORDS = {
    "--spacing or --factor": "target_mm", "--thickness": "thickness_mm", "--profile": "profile", "--series": "series",
    "--force": "force=True", "--model": "model",
    "try --method cubic_projected, tv_projected or registration_projected": "try a method of physics.baselines.METHODS",
}  # fmt: skip


@contextmanager
def words_of_python() -> Iterator[Callable[[str], str]]:
    """Yield what puts the call's keywords in the place of options of the command line; errors get them too."""
    named = re.compile("|".join(re.escape(option) for option in sorted(KEYWORDS, key=len, reverse=True)))

    def say(sentence: str) -> str:
        return named.sub(lambda found: KEYWORDS[found[0]], sentence)

    try:
        yield say
    except CtinterpError as error:
        raise type(error)(say(str(error))) from error.__cause__
