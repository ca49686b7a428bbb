"""The cases of orthanc_cases.py, where nothing but the loopback can be reached."""

import subprocess
from pathlib import Path

import pytest

from tests.pacs.orthanc import in_namespace, missing

CASES = Path(__file__).with_name("orthanc_cases.py")


@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=missing() or "can run")
def test_every_command_works_with_a_real_archive() -> None:
    ran = in_namespace(["-m", "pytest", str(CASES)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert ran.returncode == 0, ran.stdout
