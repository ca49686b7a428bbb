"""Run a command in a process group of its own, and end the whole group when standard input closes.

`python guard.py <grace seconds> <command> ...`. Whoever starts the guard holds the other end of its standard input: it
closes that end to stop the command, and the system closes it when the holder dies, however it dies. So no training
outlives the run that started it. SIGTERM first, since DVC ignores SIGINT while a stage runs; SIGKILL after the grace.

Standard library only, and run by path: it starts in milliseconds.
"""

import os
import signal
import subprocess
import sys
import threading
import time

_POLL_S = 0.05


def main(grace_s: float, command: list[str]) -> int:
    """Run a command in a process group of its own, and end the group when standard input closes.

    Args:
        grace_s: seconds from SIGTERM to SIGKILL.
        command: the program and its arguments.

    Returns:
        Its exit code, or 128 + the number of the signal that ended it.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # whoever started us may ignore it, and the command would too
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    ending = threading.Event()
    watcher = threading.Thread(target=_end_on_close, args=(child, grace_s, ending), daemon=True)
    watcher.start()
    code = child.wait()
    if ending.is_set():  # what the command started may outlive it
        watcher.join()
    return code if code >= 0 else 128 - code


def _end_on_close(child: subprocess.Popen[bytes], grace_s: float, ending: threading.Event) -> None:
    """Wait until standard input closes, then end every process of the child's group."""
    os.read(sys.stdin.fileno(), 1)  # unbuffered: nothing holds a lock when the interpreter ends
    ending.set()
    deadline = time.monotonic() + grace_s
    try:
        os.killpg(child.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            child.poll()
            os.killpg(child.pid, 0)
            time.sleep(_POLL_S)
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return  # the group is empty


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
