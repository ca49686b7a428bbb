import errno

from ctinterp_dagster.errors import disk_problem


def test_a_full_disk_is_named_wherever_the_error_hides_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device", "data/train/model.safetensors")
    said = (
        "No space left on device (data/train/model.safetensors): make room, or give the permission back, and run again"
    )
    assert disk_problem(full) == said
    hidden = RuntimeError("unexpected pos 704 vs 598")
    hidden.__context__ = full
    assert disk_problem(hidden) == said
    text = Exception("Error while serializing: I/O error: No space left on device (os error 28)")
    assert str(disk_problem(text)).startswith("No space left on device: make room")


def test_an_error_that_is_not_of_the_disk_is_left_alone() -> None:
    assert disk_problem(FileNotFoundError(errno.ENOENT, "No such file", "a")) is None
    assert disk_problem(RuntimeError("shape mismatch")) is None
