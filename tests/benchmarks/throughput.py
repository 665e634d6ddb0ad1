"""From files to vectors: the card's call, `ALM2VecEncoder`, and the floor, in one run on one device.

    python tests/benchmarks/throughput.py FOLDER [--clips 1024] [--json FILE] [--rehearse]

FOLDER should be backed by memory: it gets a checkpoint of ALM2Vec's full size (31 GB, random weights; the code is this
package's stand-in for ALM2Vec's) and a corpus of compressed files. Measured on the same files, each embedded with a
question as the model card shows:

(a) the card's call, float32, four files at a time, each read and resampled when it is needed;
(b) `ALM2VecEncoder` with its defaults, from the files;
(c) the floor: the model of (b), called without the encoder, on noise in WAV files, in groups of one length;
(d) the same on the micro-batches that (b) makes, decoded beforehand.

It stops with an error unless (b) in float32 gives the vectors of (a), clip by clip. --rehearse is for a machine without
a GPU: the same with a small model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import platform
import shutil
import subprocess
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import arithmetic
import corpus
import numpy as np
import soundfile
import soxr
import torch
import transformers
from tokenizers import Tokenizer
from watching import ON_GPU, Watch, own_time, percentiles, timed, turns

from alm2vec_integrations import QUERY_INSTRUCTION, QUESTIONS, ALM2VecEncoder, AudioClip, AudioText
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode_all
from alm2vec_integrations.handover import Handover
from alm2vec_integrations.planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Entry, Limits, plan
from alm2vec_integrations.tiny import FOLDER as TINY
from alm2vec_integrations.tiny.writer import BUNDLED, FULL, write_checkpoint

QUESTION = QUESTIONS["background"]
CARDS_BATCH = 4
FLOOR_BATCH = 32
DEVICE = "cuda" if ON_GPU else "cpu"


class Bench:
    """One machine's run."""

    def __init__(self, folder: Path, count: int, *, rehearse: bool) -> None:
        self.shape = BUNDLED if rehearse else FULL
        self.checkpoint = folder / "checkpoint"
        began = time.perf_counter()
        kind, done = "rehearsal" if rehearse else "full size, random weights", folder / "written"
        if not done.exists() or done.read_text() != kind:
            write_checkpoint(self.checkpoint, self.shape, device=DEVICE)
            # The bundled tokenizer joins letters; the writer's spells every text byte by byte.
            shutil.copyfile(TINY / "tokenizer.json", self.checkpoint / "tokenizer.json")
            done.write_text(kind)
        written = time.perf_counter()
        self.recordings, digest = corpus.make(folder / "corpus", count)
        self.files = [recording.path for recording in self.recordings]
        self.lengths = [recording.seconds for recording in self.recordings]
        encode = Tokenizer.from_file(str(self.checkpoint / "tokenizer.json")).encode
        self.text_tokens = 3 + sum(len(encode(text).ids) for text in (QUERY_INSTRUCTION, QUESTION))
        self.peak = arithmetic.matmul_peak()
        self.work = folder / "work"
        self.work.mkdir(exist_ok=True)
        self.results: dict[str, Any] = {
            "machine": torch.cuda.get_device_name() if ON_GPU else platform.processor() or "CPU",
            "cores": torch.get_num_threads() if not ON_GPU else len(os.sched_getaffinity(0)),
            "commit": commit(),
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "soundfile": soundfile.__version__,
                "soxr": soxr.__version__,
            },
            "remote_code": "stand-in",
            "model": kind,
            "matmul_peak_tflops": round(self.peak / 1e12, 1),
            "corpus": {
                "files": count,
                "sha256": digest,
                "seconds": round(sum(self.lengths), 1),
                "bytes": sum(path.stat().st_size for path in self.files),
                "text_tokens": self.text_tokens,
                "tera_operations": round(arithmetic.total(self.shape, self.lengths, self.text_tokens) / 1e12, 1),
            },
            "seconds_to_write_checkpoint": round(written - began, 1),
            "seconds_to_write_corpus": round(time.perf_counter() - written, 1),
            "runs": {},
        }

    def note(self, name: str, watch: Watch, lengths: list[float], **more: Any) -> None:
        """Keep a run, with its rates."""
        seconds = watch.seconds
        done = arithmetic.total(self.shape, lengths, self.text_tokens)
        self.results["runs"][name] = {
            "clips_per_second": round(len(lengths) / seconds, 2),
            "audio_seconds_per_second": round(sum(lengths) / seconds, 1),
            "share_of_matmul_peak": round(done / seconds / self.peak, 4),
            "clips": len(lengths),
            **watch.report(),
            **more,
        }
        print(name, json.dumps(self.results["runs"][name]), flush=True)

    # (a)

    def card(self) -> np.ndarray:
        """The card's call as written; the stand-in reads WAV alone, so each file is made one when it is needed."""
        began = time.perf_counter()
        model = transformers.AutoModel.from_pretrained(
            self.checkpoint, trust_remote_code=True, dtype=torch.float32
        ).to(DEVICE).eval()  # fmt: skip
        loaded = time.perf_counter() - began
        self._card_rows(model, self.files[: 2 * CARDS_BATCH])
        with Watch() as watch:
            rows = self._card_rows(model, self.files)
        self.note("a: the card's call, float32, four at a time", watch, self.lengths, load_seconds=round(loaded, 1))
        del model
        release()
        return rows

    def _card_rows(self, model: Any, files: list[Path]) -> np.ndarray:
        found = []
        for start in range(0, len(files), CARDS_BATCH):
            paths = [self._as_wav(path, self.work / f"{i}.wav") for i, path in enumerate(files[start : start + 4])]
            found.append(call(model, paths).float().cpu().numpy())
        return np.concatenate(found)

    def _as_wav(self, path: Path, target: Path) -> str:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        mono = soxr.resample(samples.mean(axis=1), rate, 16_000, quality="HQ")
        soundfile.write(target, mono, 16_000, subtype="PCM_16")
        return str(target)

    # (b)

    def items(self) -> list[AudioText]:
        """The corpus, as it is given to the encoder."""
        return [AudioText(QUESTION, AudioClip(path)) for path in self.files]

    def encoder(self, name: str, repeats: int = 3, **settings: Any) -> np.ndarray:
        """`ALM2VecEncoder` on the files; the best of some rounds, of which the first also warms up."""
        began = time.perf_counter()
        with ALM2VecEncoder(self.checkpoint, trust_remote_code=True, **settings) as encoder:
            report = encoder.load_report
            loaded = time.perf_counter() - began
            resident = torch.cuda.memory_allocated() / 2**30 if ON_GPU else 0.0
            encoder.encode_query(self.items()[:64])
            rounds = []
            with own_time(encoder.module, "encode") as spent, own_time(Handover, "path") as waited:
                for _ in range(repeats):
                    with Watch() as watch:
                        rows = encoder.encode_query(self.items())
                    rounds.append((watch.seconds, watch, spent.pop(), waited.pop()))
            best = min(rounds, key=lambda one: one[0])
            self.note(
                name, best[1], self.lengths,
                load_seconds=round(loaded, 1), resident_gib=round(resident, 2), dtype=report.dtype, drift=report.drift,
                seconds_in_the_models_code=round(best[2], 3), seconds_waiting_for_audio=round(best[3], 3),
                rounds=[round(one[0], 3) for one in rounds],
            )  # fmt: skip
        release()
        return rows

    # (c) and (d)

    def groups(self) -> tuple[list[list[str]], list[float]]:
        """Noise in groups of one length, the mean of as many clips'; and the lengths of all."""
        order = np.argsort(self.lengths)
        groups, lengths = [], []
        for start in range(0, len(order), FLOOR_BATCH):
            members = order[start : start + FLOOR_BATCH]
            frames = round(16_000 * float(np.mean([self.lengths[i] for i in members])))
            paths = []
            for place in members:
                path = self.work / f"floor{place}.wav"
                rng = np.random.default_rng(place)
                soundfile.write(path, 0.1 * rng.standard_normal(frames).astype(np.float32), 16_000, subtype="PCM_16")
                paths.append(str(path))
            groups.append(paths)
            lengths += [frames / 16_000] * len(members)
        return groups, lengths

    def batches(self) -> tuple[list[list[str]], list[float]]:
        """The micro-batches of (b), with each clip's file decoded beforehand; and the lengths of all."""
        clips = [AudioClip(path) for path in self.files]
        entries = [Entry(i, clip, "audio", "-", self.lengths[i], 0) for i, clip in enumerate(clips)]
        planned = plan(entries, Limits(DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS))
        paths = [str(self.work / f"batched{i}.wav") for i in range(len(clips))]
        with ThreadPoolExecutor() as threads:
            errors = threads.map(lambda one: decode_all([one], AccessPolicy(())), zip(clips, paths, strict=True))
            assert not any(error for answer in errors for error in answer)
        groups = [[entry.position for entry in batch.entries] for batch in planned]
        lengths = [self.lengths[position] for group in groups for position in group]
        return [[paths[position] for position in group] for group in groups], lengths

    def floor(self, module: Any, name: str, groups: list[list[str]], lengths: list[float]) -> None:
        """Groups straight into the model."""
        for paths in groups[:: max(1, len(groups) // 4)]:
            call(module, paths)
        rounds = []
        with own_time(module, "encode") as spent:
            for _ in range(3):
                with Watch() as watch:
                    for paths in groups:
                        call(module, paths).float().cpu()
                rounds.append((watch.seconds, watch, spent.pop()))
        best = min(rounds, key=lambda one: one[0])
        self.note(
            name, best[1], lengths,
            seconds_in_the_models_code=round(best[2], 3), rounds=[round(one[0], 3) for one in rounds],
        )  # fmt: skip

    # Other work

    def others(self, encoder: ALM2VecEncoder) -> None:
        """Texts, clips alone, latency, memory that runs out; the encoder is warm."""
        count = 4096 if ON_GPU else 64
        texts = [f"recording number {i} of a street with {i % 7} cars and {i % 5} birds" for i in range(count)]
        for name, work in {
            "texts alone": lambda: encoder.encode_document(texts),
            "clips alone": lambda: encoder.encode_document([AudioClip(path) for path in self.files]),
        }.items():
            work()
            with Watch() as watch:
                work()
            done = len(texts) if name.startswith("texts") else len(self.files)
            self.results["runs"][name] = {"items_per_second": round(done / watch.seconds, 1), **watch.report()}
            print(name, json.dumps(self.results["runs"][name]), flush=True)
        self._latency(encoder)

    def _latency(self, encoder: ALM2VecEncoder) -> None:
        module, query = encoder.module, "a dog barking while it rains"

        def forward() -> None:
            with torch.no_grad():
                module.encode(text=[query], task="query", instruction=QUERY_INSTRUCTION, normalize=True, device=DEVICE)
                if ON_GPU:
                    torch.cuda.synchronize()

        alone, bare = timed(lambda: encoder.encode_query(query)), timed(forward)
        stop = threading.Event()

        def index() -> None:
            while not stop.is_set():
                encoder.encode_query(self.items())

        batches = []
        for start in range(0, 8 * FLOOR_BATCH, FLOOR_BATCH):  # a micro-batch at its longest, for comparison
            longest = [self.files[i] for i in np.argsort(self.lengths)[::-1][start : start + FLOOR_BATCH]]
            began = time.perf_counter()
            encoder.encode_query([AudioText(QUESTION, AudioClip(path)) for path in longest])
            batches.append(time.perf_counter() - began)
        thread = threading.Thread(target=index)
        thread.start()
        time.sleep(1.0)
        question = AudioText(QUESTION, AudioClip(self.files[int(np.argsort(self.lengths)[len(self.lengths) // 2])]))
        with turns() as seen:
            beside = timed(lambda: (encoder.encode_query(query), time.sleep(0.02))[0], pause=0.02)
        heard = timed(lambda: (encoder.encode_query(question), time.sleep(0.02))[0], pause=0.02)
        stop.set()
        thread.join()
        self.results["latency_ms"] = {
            "batch-1 forward, no encoder": percentiles(bare),
            "one text query": percentiles(alone),
            "one text query while files are indexed": percentiles(beside),
            "of that, waiting for its turn in the model": percentiles(seen.waits[threading.get_ident()]),
            "a turn of the indexing job": percentiles(seen.holds[thread.ident or 0]),
            "one recording with a question while files are indexed": percentiles(heard),
            "32 of the longest files by themselves": percentiles(batches),
        }
        print("latency", json.dumps(self.results["latency_ms"]), flush=True)

    def out_of_memory(self, encoder: ALM2VecEncoder) -> None:
        """Under a cap of 1 GiB above what is reserved, with batches that are too large for it: nothing is lost."""
        longest = [self.files[i] for i in np.argsort(self.lengths)[::-1][:256]]
        items = [AudioText(QUESTION, AudioClip(path)) for path in longest]
        expected, lines = encoder.encode_query(items), list[str]()
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("alm2vec_integrations").addHandler(handler)
        torch.cuda.empty_cache()
        cap = torch.cuda.memory_reserved() + 2**30
        torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.get_device_properties(0).total_memory)
        try:
            large = {"max_batch_items": 256, "max_batch_seconds": 9999.0}
            with ALM2VecEncoder(self.checkpoint, trust_remote_code=True, verify="fast", **large) as hungry:
                found = hungry.encode_query(items)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
            logging.getLogger("alm2vec_integrations").removeHandler(handler)
        self.results["out_of_memory"] = {
            "cap_above_what_was_reserved_gib": 1.0,
            "retries": lines,
            "rows": len(found),
            "largest_1_minus_cosine": float(1 - (found * expected).sum(1).min()),
        }
        print("out of memory", json.dumps(self.results["out_of_memory"]), flush=True)

    def profile(self, name: str, work: Callable[[], Any]) -> None:
        """Where the time goes: kernels by kind, and what is left of the clock."""
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CUDA if ON_GPU else ProfilerActivity.CPU]) as seen:
            began = time.perf_counter()
            work()
            wall = time.perf_counter() - began
        by_name: dict[str, float] = {}
        for event in seen.key_averages():
            if spent := getattr(event, "self_device_time_total", 0):
                by_name[event.key[:90]] = by_name.get(event.key[:90], 0) + spent / 1e6
        first = sorted(by_name.items(), key=lambda one: -one[1])[:14]
        self.results.setdefault("profiles", {})[name] = {
            "wall_seconds": round(wall, 3),
            "kernel_seconds": round(sum(by_name.values()), 3),
            "kernels": {key: round(spent, 4) for key, spent in first},
        }
        print("profile", name, json.dumps(self.results["profiles"][name], indent=1), flush=True)


def compile_blocks(module: torch.nn.Module) -> int:
    """Compile what the model repeats, in place: the members of its lists of four and more alike; how many they are."""
    found = [
        child
        for part in module.modules()
        if isinstance(part, torch.nn.ModuleList) and len(part) >= 4 and len({type(one) for one in part}) == 1
        for child in part
    ]
    for child in found:
        child.compile(dynamic=True)
    return len(found)


def call(model: Any, paths: list[str]) -> torch.Tensor:
    """The model card's call."""
    with torch.no_grad():
        found: torch.Tensor = model.encode(
            text=[QUESTION] * len(paths), audio=paths, task="query", instruction=QUERY_INSTRUCTION, normalize=True,
            device=DEVICE,
        )  # fmt: skip
    return found


def release() -> None:
    """Give the device's memory back."""
    import gc

    gc.collect()
    if ON_GPU:
        torch.cuda.empty_cache()


def commit() -> str:
    """As the variable COMMIT says, for machines with a copy of the checkout; else of the checkout that this is in."""
    asked = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return os.environ.get("COMMIT") or done.stdout.strip() or "unknown"


@contextlib.contextmanager
def kept(path: Path | None, results: dict[str, Any]) -> Iterator[None]:
    """Write the results, also those of a run that failed half way."""
    try:
        yield
    finally:
        if path:
            path.write_text(json.dumps(results, indent=1) + "\n")


def arguments_of(description: str) -> argparse.ArgumentParser:
    """The arguments that every such benchmark takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rehearse", action="store_true")
    return parser


def bench_of(arguments: argparse.Namespace) -> Bench:
    """Checkpoint and corpus, as the arguments ask for."""
    warnings.simplefilter("ignore")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    return Bench(arguments.folder, arguments.clips, rehearse=arguments.rehearse)


def main() -> None:
    """Measure and print."""
    arguments = arguments_of(__doc__).parse_args()
    bench = bench_of(arguments)
    print(json.dumps(bench.results), flush=True)
    with kept(arguments.json, bench.results):
        by_card = bench.card()
        ours = bench.encoder("b in float32", repeats=1, dtype="float32")
        apart = float(1 - (by_card * ours).sum(1).min())
        bench.results["b in float32 to a, largest 1 - cosine"] = apart
        print(json.dumps({"b in float32 to a, largest 1 - cosine": apart}), flush=True)
        if not apart <= 1e-3:  # nor if it is no number
            raise SystemExit(f"(b) in float32 is not (a): 1 - cosine reaches {apart}")
        low = bench.encoder("b: ALM2VecEncoder, its defaults")
        bench.results["b to a, 1 - cosine"] = {
            "mean": float(1 - (by_card * low).sum(1).mean()), "largest": float(1 - (by_card * low).sum(1).min()),
        }  # fmt: skip
        print(json.dumps({"b to a, 1 - cosine": bench.results["b to a, 1 - cosine"]}), flush=True)
        with ALM2VecEncoder(bench.checkpoint, trust_remote_code=True, verify="fast") as encoder:
            groups, lengths = bench.groups()
            bench.floor(encoder.module, "c: equal lengths, decoded, no encoder", groups, lengths)
            bench.floor(encoder.module, "d: the micro-batches of b, decoded, no encoder", *bench.batches())
            bench.others(encoder)
            some = bench.items()[:256]
            bench.profile("b", lambda: encoder.encode_query(some))
            bench.profile("c", lambda: [call(encoder.module, paths).float().cpu() for paths in groups[::3]])
            # These share the model that is loaded.
            bench.encoder("b with max_batch_items=64", verify="fast", max_batch_items=64, max_batch_seconds=960.0)
            os.environ["ALM2VEC_DECODING"] = "threads"
            bench.encoder("b, decoded in threads", verify="fast")
            del os.environ["ALM2VEC_DECODING"]
            if ON_GPU:
                compile_blocks(encoder.module)
                bench.floor(encoder.module, "c, compiled blocks", groups, lengths)
                bench.encoder("b, compiled blocks", verify="fast")
                bench.out_of_memory(encoder)
    runs = bench.results["runs"]
    a, b, c, d = (next(run for name, run in runs.items() if name.startswith(f"{letter}:")) for letter in "abcd")
    rate = "clips_per_second"
    bench.results["ratios"] = {
        f"b / {name}": round(b[rate] / run[rate], 3) for name, run in zip("acd", (a, c, d), strict=True)
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(bench.results, indent=1) + "\n")
    print(json.dumps(bench.results["ratios"]))


if __name__ == "__main__":
    main()
