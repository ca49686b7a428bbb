"""What every section of `benchmarks.gpu` is given: a device, a budget of seconds, and a place for its numbers."""

import contextlib
import json
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

GIB = 1 << 30
LINES = 6  # of a traceback
Numbers = Mapping[str, float | str | bool]
Part = Callable[[], Numbers]


@dataclass(frozen=True)
class Cost:
    """What a call took.

    Attributes:
        seconds: the fastest of its runs, the device's work included.
        peak_gib: the most that tensors took on the device beside what was there before; 0 on a CPU.
        reserved_gib: the most that torch held of the device's memory.
    """

    seconds: float
    peak_gib: float
    reserved_gib: float

    def row(self) -> dict[str, float]:
        """As numbers of a part."""
        return {"seconds": self.seconds, "peak_gib": self.peak_gib, "reserved_gib": self.reserved_gib}


@dataclass
class Context:
    """Runs parts of sections, prints and keeps what they say.

    Attributes:
        device: that is measured.
        small: tiny sizes, for a test of the benchmark itself.
        out: the folder of results.
        seconds: budget of a section; parts that come later are left out.
        kit: a folder that `benchmarks.kit` wrote, for trainings; None for phantoms.
        rows: all numbers so far, in results.json too.
    """

    device: torch.device
    small: bool
    out: Path
    seconds: float
    kit: Path | None = None
    rows: list[dict[str, float | str | bool]] = field(default_factory=list)
    section: str = ""
    started: float = 0.0

    @property
    def left_s(self) -> float:
        """Seconds left to the section."""
        return self.seconds - (time.perf_counter() - self.started)

    def run_section(self, name: str, section: Callable[["Context"], None]) -> None:
        """Run a section; what stops it is kept as the part `section`."""
        self.section, self.started = name, time.perf_counter()
        print(f"\n== {name}", flush=True)
        self._attempt("section", lambda: section(self) or {})
        release()
        print(f"== {name}: {time.perf_counter() - self.started:.1f} s", flush=True)

    def part(self, name: str, run: Part, **limits: float) -> None:
        """Run a part of a section, unless its time is over; print its numbers, or why there are none.

        Args:
            name: of the part.
            run: gives the numbers.
            limits: numbers above their limit count as failures.
        """
        if self.left_s <= 0:
            print(f"{name}: left out, the section's {self.seconds:g} s are over", flush=True)
            self._keep({"part": name, "skipped": True})
            return
        self._attempt(name, run, **limits)
        release()

    def _attempt(self, name: str, run: Part, **limits: float) -> None:
        start = time.perf_counter()
        try:
            numbers = dict(run())
        except Exception as error:  # noqa: BLE001 (whatever it is, the next part may do better)
            lines = "".join(traceback.format_exception(error)).rstrip().splitlines()
            self._keep({"part": name, "failed": "\n".join(lines[-LINES:])})
            print(f"{name}: FAILED\n" + "\n".join(f"    {line}" for line in lines[-LINES:]), flush=True)
            return
        if not numbers:
            return
        above = [f"{key} above {limit:g}" for key, limit in limits.items() if not float(numbers[key]) <= limit]
        self._keep({"part": name, **numbers, "wall_s": round(time.perf_counter() - start, 3)})
        if above:
            self.rows[-1]["failed"] = ", ".join(above)
        shown = " ".join(f"{key}={shortly(value)}" for key, value in numbers.items())
        print(f"{name}: {shown}{'  FAILED: ' + ', '.join(above) if above else ''}", flush=True)

    def _keep(self, row: dict[str, float | str | bool]) -> None:
        self.rows.append({"section": self.section, **row})
        text = json.dumps({"machine": machine(self.device), "rows": self.rows}, indent=1)
        (self.out / "results.json").write_text(text, encoding="utf-8")

    def cost(self, run: Callable[[], object], repeats: int = 1) -> Cost:
        """Time a call, and look at the device's memory meanwhile; the caller has warmed up."""
        cuda = self.device.type == "cuda"
        before = torch.cuda.memory_allocated() if cuda else 0
        seconds = []
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        for _ in range(repeats):
            self.wait()
            start = time.perf_counter()
            result = run()
            self.wait()
            seconds.append(time.perf_counter() - start)
            del result
        peak = torch.cuda.max_memory_allocated() - before if cuda else 0
        return Cost(min(seconds), peak / GIB, (torch.cuda.max_memory_reserved() if cuda else 0) / GIB)

    def wait(self) -> None:
        """Until the device has done what it was told."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def release() -> None:
    """Give the device's unused memory back, so that one part does not count for the next."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def float32(*, tf32: bool) -> Iterator[None]:
    """Whether products of float32 numbers may be rounded to 10 bits on the device."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


def shortly(value: object) -> str:
    """A number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def machine(device: torch.device) -> dict[str, str | float]:
    """What the numbers hold for."""
    about: dict[str, str | float] = {"torch": torch.__version__, "device": device.type}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        about |= {
            "name": properties.name,
            "memory_gib": properties.total_memory / GIB,
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),
        }
    return about
