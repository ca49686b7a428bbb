"""Commands that are run by hand, long after what they import has moved."""

from importlib import import_module

import pytest

from tests.conftest import ROOT

COMMANDS = [path for path in sorted((ROOT / "benchmarks").glob("**/*.py")) if not path.stem.startswith("__")]


@pytest.mark.parametrize("module", [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in COMMANDS])
def test_a_benchmark_finds_all_that_it_imports(module: str) -> None:
    import_module(module)
