import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))  # for tiny, which torchrun starts as a script too


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Networks this small spend their time waiting for the second thread."""
    torch.set_num_threads(1)
