"""Several GPUs of one host behind one call: sentence-transformers' pool, with a process for each device.

    python tests/benchmarks/several_gpus.py FOLDER [--clips 1024] [--devices cuda:0,cuda:1] [--json FILE] [--rehearse]

The checkpoint and the corpus are those of `throughput.py`. A pool of one process and a pool of all devices embed the
same files, each with a question; it stops with an error unless they give the same vectors.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import sentence_transformers
import torch
from throughput import QUESTION, Bench, arguments_of, bench_of, kept

from alm2vec_integrations.sentence_transformers import load

CHUNK = 256
"""Inputs that a process, and its encoder, gets at a time: enough to put near-equal lengths side by side."""


def measured(bench: Bench, devices: list[str]) -> tuple[dict[str, Any], np.ndarray]:
    """One pool: the best of three rounds, after one that loads the model."""
    inputs = [{"audio": str(path), "text": QUESTION} for path in bench.files]
    model = load(bench.checkpoint, trust_remote_code=True, device=devices[0], verify="fast")
    pool = model.start_multi_process_pool(devices)
    try:
        began = time.perf_counter()
        model.encode_query(inputs[: 64 * len(devices)], pool=pool, chunk_size=64, batch_size=64)
        first = time.perf_counter() - began
        rounds = []
        for _ in range(3):
            began = time.perf_counter()
            rows = model.encode_query(inputs, pool=pool, chunk_size=CHUNK, batch_size=CHUNK)
            rounds.append(time.perf_counter() - began)
    finally:
        model.stop_multi_process_pool(pool)
    return {
        "devices": devices,
        "clips_per_second": round(len(inputs) / min(rounds), 1),
        "rounds": [round(one, 3) for one in rounds],
        "seconds_to_load_and_encode_64_each": round(first, 1),
    }, np.asarray(rows)


def main() -> None:
    """Measure and print."""
    parser = arguments_of(__doc__)
    parser.add_argument("--devices", default=",".join(f"cuda:{i}" for i in range(torch.cuda.device_count())))
    arguments = parser.parse_args()
    bench = bench_of(arguments)
    bench.results["versions"]["sentence_transformers"] = sentence_transformers.__version__
    devices = arguments.devices.split(",")
    with kept(arguments.json, bench.results):
        one, expected = measured(bench, devices[:1])
        bench.results["runs"]["one process"] = one
        print(json.dumps(one), flush=True)
        several, rows = measured(bench, devices)
        bench.results["runs"]["a process for each device"] = several
        print(json.dumps(several), flush=True)
        apart = float(1 - (expected * rows).sum(1).min())
        bench.results["largest 1 - cosine between the two"] = apart
        if not apart <= 1e-3:  # nor if it is no number
            raise SystemExit(f"the pools' vectors differ: 1 - cosine reaches {apart}")
        bench.results["ratio"] = round(several["clips_per_second"] / one["clips_per_second"], 2)
    print(json.dumps({"ratio": bench.results["ratio"]}))


if __name__ == "__main__":
    main()
