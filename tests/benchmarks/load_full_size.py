"""Load a checkpoint of ALM2Vec's full size (stand-in code, random weights, float32) and say what that takes.

    python tests/benchmarks/load_full_size.py FOLDER

writes about 31 GB to FOLDER first (a memory-backed one, to leave the disk out of it) and prints JSON.
"""

import json
import sys
import threading
import time
from pathlib import Path

import torch
import transformers

from alm2vec_integrations import ALM2VecEncoder
from alm2vec_integrations.tiny.writer import FULL, write_checkpoint


def anonymous_bytes() -> int:
    """Memory of this process that is not backed by files."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) * 1024


def load(folder: Path, verify: str) -> dict:
    """Load once; seconds and bytes at the peak and after."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before, peak, done = anonymous_bytes(), 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.005):
            peak = max(peak, anonymous_bytes())

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    with ALM2VecEncoder(folder, trust_remote_code=True, verify=verify) as encoder:
        report = encoder.load_report
        seconds = time.perf_counter() - began
        done.set()
        watcher.join()
        result = {
            "verify": verify,
            "seconds": round(seconds, 1),
            "host_anonymous_peak_gib": round((peak - before) / 2**30, 2),
            "parameters": report.parameters,
            "model_gib": round(report.bytes / 2**30, 2),
            "dtype": report.dtype,
            "dtypes": report.dtypes,
            "drift": report.drift,
            "checks": report.checks,
            "warnings": report.warnings,
        }
        if device == "cuda":
            result["device_peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            result["device_resident_gib"] = round(torch.cuda.memory_allocated() / 2**30, 2)
    if device == "cuda":
        result["device_after_close_gib"] = round(torch.cuda.memory_allocated() / 2**30, 2)
    return result


def main() -> None:
    """Write, load with full and with fast verification, print."""
    folder = Path(sys.argv[1])
    on_gpu = torch.cuda.is_available()
    began = time.perf_counter()
    write_checkpoint(folder, FULL, device="cuda" if on_gpu else "cpu")
    written = time.perf_counter() - began
    loads = [load(folder, verify) for verify in ("full", "fast")]
    machine = torch.cuda.get_device_name() if on_gpu else "CPU"
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    print(json.dumps({"machine": machine, **versions, "seconds_to_write": round(written, 1), "loads": loads}, indent=1))


if __name__ == "__main__":
    main()
