"""Which files of the package does a module run? What DVC has to know of, and what work that is kept is known by."""

import ast
import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent
NEUTRAL = (
    "__init__.py",
    "errors.py",
    "import_closure.py",
    "stage_inputs.py",
    "layout.py",
    "telemetry.py",
    "params.py",
    "provenance.py",
)
"""Files of the package's root that change no result: messages, paths, types of parameters, what is shown."""


def imported_files(module: Path, package: Path = PACKAGE) -> set[Path]:
    """The package's files that importing and running `module` runs: those that it imports, and itself.

    The files of the packages that they lie in count, and imports within functions. Those that change no result do not,
    nor do empty ones, nor imports for type checkers.

    Args:
        module: a file, of the package or not.
        package: the package's folder.

    Returns:
        Paths below `package`, and `module`.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            names = imported_names(file.read_text(encoding="utf-8"))
            waiting += [path for name in names for path in _files(name, package)]
    return found


def code_version(module: Path, package: Path = PACKAGE) -> str:
    """SHA-256, in hexadecimal, of the code of the package that a module of it runs; libraries do not count.

    Args:
        module: file of the module.
        package: its folder.

    Returns:
        64 digits; the same for the same files, wherever the package lies.
    """
    digest = hashlib.sha256()
    for file in sorted(imported_files(module, package)):
        digest.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


@cache
def imported_names(source: str) -> frozenset[str]:
    """The dotted names that a module's imports may mean: `from a.b import c` means a.b, and a.b.c if it is a module."""
    return frozenset(_imported_by(ast.parse(source)))


def _imported_by(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    if isinstance(node, ast.ImportFrom) and node.module:
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imported_by(child)


def _files(name: str, package: Path) -> Iterator[Path]:
    """The files with code that importing a dotted name runs: each package on the way, and the module."""
    words = name.split(".")
    if words[0] != package.name:
        return
    for count in range(1, len(words) + 1):
        path = package.parent.joinpath(*words[:count])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            neutral = file.parent == package and file.name in NEUTRAL
            if not neutral and file.exists() and file.stat().st_size:
                yield file
