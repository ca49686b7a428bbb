import io

from rich.console import Console

from ctinterp_dagster.training.loop import StepRecord
from ctinterp_dagster.training.progress_bar import progress_bar


def shown(*, terminal: bool) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with progress_bar("denoiser", 40, console) as on_step:
        on_step(StepRecord(step=10, loss=0.125, learning_rate=1e-3, grad_norm=1.0, val_loss=None))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_terminal_sees_loss_and_step() -> None:
    assert "denoiser loss=0.1250" in shown(terminal=True)
    assert "10/40" in shown(terminal=True)


def test_a_log_file_sees_no_bar() -> None:
    assert shown(terminal=False).strip() == ""
