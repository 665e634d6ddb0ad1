"""Damage recordings of every format and see that nothing comes out but samples or an error of ours.

    python tests/fuzz_audio.py --seconds 600
    python tests/fuzz_audio.py --only mp3 --case 17      # one case again, in this process

Every case is made from its format and its number alone. Cases run in a process of their own, which is watched: one
that dies, or that works on a case for longer than it may, is counted and replaced. Prints JSON; the exit status is 1
if anything was found.
"""

import argparse
import io
import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent / "support"))

import recordings

MOST_SECONDS_A_CASE = 20.0

FORMS = ("path", "bytes", "file object")
PARTS: tuple[dict[str, float], ...] = (
    {},
    {"start_seconds": 0.2, "end_seconds": 0.5},
    {},
    {"start_seconds": 0.4},
    {"end_seconds": 0.3},
)
"""What is asked for of a file; every form that it is given in meets each."""


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bits, runs of bytes, cuts, repeats; half of them near the beginning, where headers are."""
    damaged = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not damaged:
            break
        end = len(damaged) if rng.random() < 0.5 else min(len(damaged), 256)
        place, length = int(rng.integers(end)), int(rng.integers(1, 64))
        kind = rng.integers(7)
        if kind == 0:
            damaged[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            damaged[place : place + length] = rng.bytes(length)
        elif kind == 2:
            damaged[place : place + 4] = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\x80\0\0\0"][
                place % 4
            ]
        elif kind == 3:
            del damaged[place : place + length]
        elif kind == 4:
            damaged[place:place] = damaged[place : place + length]
        elif kind == 5:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            damaged[place : place + 2] = rng.bytes(2)
    return bytes(damaged)


def case(name: str, number: int) -> bytes:
    """A damaged file."""
    seed = [number, *name.encode()]
    return damage(_whole(name), np.random.default_rng(seed))


def _whole(name: str) -> bytes:
    if name not in _files:
        made = recordings.ROUNDABOUT.get(name)
        _files[name] = made(0.7) if made else recordings.encode(name, seconds=0.7, channels=1 + len(name) % 2)
    return _files[name]


_files: dict[str, bytes] = {}


def run(name: str, number: int) -> str:
    """What comes of a case: "decoded", "refused", or what should not be."""
    from alm2vec_integrations import AudioClip, InputError
    from alm2vec_integrations.audio.access import AccessPolicy
    from alm2vec_integrations.audio.decoding import decode, measure

    data, policy, part = case(name, number), AccessPolicy(), PARTS[number // len(FORMS) % len(PARTS)]
    with tempfile.TemporaryDirectory() as folder:
        try:
            clip = AudioClip(_source(data, FORMS[number % len(FORMS)], Path(folder)), **part)
            measure(clip, policy)
            samples = decode(clip, policy)
        except InputError as error:
            return "refused" if error.source and len(error.reason) > 10 else f"says nothing: {error!r}"
        except BaseException as error:  # what else comes out is what is looked for
            return f"raises {type(error).__name__}: {error}"
    most = 3600.0 if clip.end_seconds is None else clip.end_seconds - (clip.start_seconds or 0.0)
    sound = samples.dtype == np.int16 and samples.ndim == 1 and 3_200 <= len(samples) <= max(most * 16_000 + 16, 3_200)
    return "decoded" if sound else f"gives {samples.dtype} {samples.shape}"


def _source(data: bytes, form: str, folder: Path) -> Any:
    """A file as it may be given: libsndfile reads one by itself, and bytes and file objects through us."""
    if form == "path":
        (folder / "x").write_bytes(data)
        return folder / "x"
    return data if form == "bytes" else Sparing(data)


class Sparing(io.BytesIO):
    """A file object that never gives more than a few bytes at once, as those on the network."""

    def read(self, count: int | None = -1) -> bytes:
        """Up to 997 bytes."""
        return super().read(997 if count is None or count < 0 else min(count, 997))


def work() -> None:
    """Read cases from standard input, one on a line, and answer each with a line."""
    for line in sys.stdin:
        name, number = json.loads(line)
        print(json.dumps(run(name, number)), flush=True)  # noqa: T201


class Watched:
    """A process that runs cases, replaced when it dies or hangs."""

    command = (sys.executable, __file__, "--work")

    def __init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin afresh."""
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, args=(self.process, self.answers), daemon=True).start()

    @staticmethod
    def _listen(process: subprocess.Popen, answers: queue.Queue) -> None:
        for line in process.stdout:
            answers.put(line)
        answers.put("")

    def run(self, name: str, number: int) -> str:
        """As the function, but also "crashes" and "hangs"."""
        self.process.stdin.write(json.dumps([name, number]) + "\n")
        self.process.stdin.flush()
        try:
            # The first answer of a process waits for its imports too.
            answer = self.answers.get(timeout=MOST_SECONDS_A_CASE)
        except queue.Empty:
            answer, found = "", f"hangs for more than {MOST_SECONDS_A_CASE:.0f} s"
        else:
            found = f"crashes with status {self.process.wait()}" if not answer else json.loads(answer)
        if not answer:
            self.stop()
            self.start()
        return found

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


def fuzz(names: list[str], seconds: float, most: int, first: int) -> dict:
    """Run cases of each format in turn until time or numbers are up."""
    found: dict[str, list] = {}
    counts = {name: {"decoded": 0, "refused": 0} for name in names}
    began, number, watched = time.monotonic(), first, Watched()
    while time.monotonic() - began < seconds and number - first < most:
        for name in names:
            result = watched.run(name, number)
            if result in counts[name]:
                counts[name][result] += 1
            else:
                found.setdefault(name, []).append({"case": number, "result": result})
        number += 1
    watched.stop()
    cases = sum(sum(count.values()) for count in counts.values()) + sum(map(len, found.values()))
    return {
        "cases": cases,
        "seconds": round(time.monotonic() - began, 1),
        "by_format": counts,
        "found": found,
    }


def main() -> int:
    """Parse arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--cases", type=int, default=10**9, help="of each format, at most")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", help="one format")
    parser.add_argument("--case", type=int, help="run one case of --only in this process")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return 0
    if options.case is not None:
        print(run(options.only, options.case))  # noqa: T201
        return 0
    names = [options.only] if options.only else [*recordings.OF_LIBSNDFILE]
    if not options.only:
        try:
            import av  # noqa: F401
        except ImportError:
            pass
        else:
            names += [*recordings.OF_FFMPEG, *recordings.ROUNDABOUT]
    result = fuzz(names, options.seconds, options.cases, options.first)
    print(json.dumps(result, indent=1))  # noqa: T201
    return 1 if result["found"] else 0


if __name__ == "__main__":
    sys.exit(main())
