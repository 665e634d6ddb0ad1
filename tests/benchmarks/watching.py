"""What the benchmarks look at their work with: the device, the host's time in one method, turns in the model."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from load_full_size import anonymous_bytes

from alm2vec_integrations.fair_lock import FairLock

ON_GPU = torch.cuda.is_available()


class Watch:
    """Peaks, and how busy the GPU is, while something runs."""

    def __enter__(self) -> Watch:
        self._done, self._busy, self._host = threading.Event(), list[int](), anonymous_bytes()
        self.host_peak = self._host
        if ON_GPU:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        if ON_GPU:
            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._began
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        nvml = None
        if ON_GPU:
            import pynvml as nvml

            nvml.nvmlInit()
            card = nvml.nvmlDeviceGetHandleByIndex(0)
        while not self._done.wait(0.05):
            self.host_peak = max(self.host_peak, anonymous_bytes())
            if nvml is not None:
                self._busy.append(nvml.nvmlDeviceGetUtilizationRates(card).gpu)

    def report(self) -> dict[str, Any]:
        """What was seen; the driver's busy share is the share of time in which any kernel ran."""
        found: dict[str, Any] = {
            "seconds": round(self.seconds, 3),
            "host_anonymous_added_gib": round((self.host_peak - self._host) / 2**30, 2),
        }
        if ON_GPU:
            found["device_peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            found["device_reserved_gib"] = round(torch.cuda.memory_reserved() / 2**30, 2)
        if self._busy:
            found["gpu_busy"] = round(statistics.mean(self._busy) / 100, 3)
        return found


class Spent:
    """Seconds, added up until they are taken."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def add(self, seconds: float) -> None:
        """Add."""
        self._seconds += seconds

    def pop(self) -> float:
        """Take."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds


@contextlib.contextmanager
def own_time(owner: Any, name: str) -> Iterator[Spent]:
    """The time that the host spends in a method; in a model's, it reads files and gives out the GPU's work."""
    spent, real = Spent(), getattr(owner, name)

    def clocked(*values: Any, **keywords: Any) -> Any:
        began = time.perf_counter()
        try:
            return real(*values, **keywords)
        finally:
            spent.add(time.perf_counter() - began)

    with patch.object(owner, name, clocked):
        yield spent


class Turns:
    """How long each thread waited for its turns in the model, and how long it kept them, in seconds."""

    def __init__(self) -> None:
        self.waits, self.holds = defaultdict[int, list[float]](list), defaultdict[int, list[float]](list)


@contextlib.contextmanager
def turns() -> Iterator[Turns]:
    """Those that are taken meanwhile."""
    seen, began = Turns(), dict[int, float]()
    enter, leave = FairLock.__enter__, FairLock.__exit__

    def entered(lock: FairLock) -> None:
        asked = time.perf_counter()
        enter(lock)
        began[threading.get_ident()] = time.perf_counter()
        seen.waits[threading.get_ident()].append(time.perf_counter() - asked)

    def left(lock: FairLock, *error: Any) -> None:
        if threading.get_ident() in began:
            seen.holds[threading.get_ident()].append(time.perf_counter() - began.pop(threading.get_ident()))
        leave(lock, *error)

    with patch.multiple(FairLock, __enter__=entered, __exit__=left):
        yield seen


def timed(work: Callable[[], Any], count: int = 100 if ON_GPU else 10, pause: float = 0.0) -> list[float]:
    """Seconds of each of many calls, less the pause after each."""
    for _ in range(5):
        work()
    found = []
    for _ in range(count):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began - pause)
    return found


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Milliseconds."""
    at = np.percentile(seconds, [50, 99, 100]) * 1000
    return dict(zip(("p50", "p99", "most"), (round(float(one), 2) for one in at), strict=True))
