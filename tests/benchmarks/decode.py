"""How fast one core makes 16 kHz mono PCM16 of recordings, beside what libsndfile and soxr take by themselves.

    python tests/benchmarks/decode.py

For each format, one file of a minute of stereo noise and tones is decoded over and over by one thread: by
`audio.decoding.decode`, which opens, checks, cuts, mixes, resamples and rounds; and by soundfile's read and soxr's
resample alone (PyAV's decoder and soxr for the formats that libsndfile does not read). Both in turn, the best of
several rounds each. Prints a table in Markdown: seconds of audio per second, and the ratio.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.update({"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"})
sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import numpy as np
import recordings
import soundfile
import soxr

from alm2vec_integrations import AudioClip
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode

SECONDS, ROUNDS = 60.0, 15


def alone(path: Path) -> np.ndarray:
    """Libsndfile and soxr, as one would write it by hand."""
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return soxr.resample(mixed_down(samples), rate, 16_000, quality="HQ")


def mixed_down(samples: np.ndarray) -> np.ndarray:
    """Two channels to one; numpy's `mean(axis=1)` would take longer than all the rest."""
    return (samples[:, 0] + samples[:, 1]) * np.float32(0.5)


def alone_with_ffmpeg(path: Path) -> np.ndarray:
    """PyAV and soxr."""
    import av

    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        stream.codec_context.thread_count = 1
        plain = av.AudioResampler(format="flt")
        blocks = [one.to_ndarray() for frame in container.decode(stream) for one in plain.resample(frame)]
        samples = np.concatenate(blocks, axis=1).reshape(-1, stream.codec_context.channels)
        return soxr.resample(mixed_down(samples), stream.codec_context.sample_rate, 16_000, quality="HQ")


def best(work, path: Path, times: list[float]) -> None:
    """Time one call."""
    began = time.perf_counter()
    work(path)
    times.append(time.perf_counter() - began)


def main() -> None:
    """Write the files, time both ways in turn, print."""
    policy = AccessPolicy()
    print(
        f"soundfile {soundfile.__version__} ({soundfile.__libsndfile_version__}), soxr {soxr.__version__}, one thread"
    )
    print("\n| format | rate | here | by themselves | ratio |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as place:
        for name in [*recordings.OF_LIBSNDFILE, *recordings.OF_FFMPEG]:
            path = recordings.write(Path(place) / "x", name, SECONDS)
            other = alone if name in recordings.OF_LIBSNDFILE else alone_with_ffmpeg
            ours: list[float] = []
            theirs: list[float] = []
            for _ in range(ROUNDS):
                best(lambda p: decode(AudioClip(p), policy), path, ours)
                best(other, path, theirs)
            here, there = SECONDS / min(ours), SECONDS / min(theirs)
            print(
                f"| {name} | {recordings.rate_of(name)} | {here:,.0f} | {there:,.0f} | {here / there:.2f} |", flush=True
            )


if __name__ == "__main__":
    main()
