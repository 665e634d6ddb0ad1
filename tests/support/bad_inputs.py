"""Bad inputs of every kind, and what the encoder says of each."""

import io
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import recordings
import soundfile
import sounds
import torch

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText, InputError


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _claims_two_gigabytes(folder: Path) -> Path:
    data = bytearray(sounds.write(folder / "claims.wav", sounds.noise(1.0)).read_bytes())
    data[4:8], data[40:44] = struct.pack("<I", 2_000_000_036), struct.pack("<I", 2_000_000_000)
    return _write(folder / "claims.wav", data)


def _silence(folder: Path, minutes: int) -> Path:
    with soundfile.SoundFile(folder / "night.flac", "w", 16_000, 1, "PCM_16") as file:
        for _ in range(minutes):
            file.write(np.zeros(60 * 16_000, np.int16))
    return folder / "night.flac"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.wav")
    return folder / "pipe.wav"


def _reference(path: Path, **parts: Any) -> AudioClip:
    return AudioClip.from_reference(AudioClip(path, **parts).reference(digest=False))


def _changed(folder: Path) -> AudioClip:
    path = sounds.write(folder / "inside" / "changed.wav", sounds.noise(1.0))
    reference = AudioClip(path).reference()
    sounds.write(path, sounds.noise(1.0, seed=1))
    return AudioClip.from_reference(reference)


def _link_out(folder: Path) -> AudioClip:
    link = folder / "inside" / "link.wav"
    link.symlink_to(sounds.write(folder / "outside.wav", sounds.noise(1.0)))
    return _reference(link)


def _nan(folder: Path) -> Path:
    samples = sounds.noise(1.0)
    samples[100] = np.nan
    return sounds.write(folder / "nan.wav", samples, subtype="FLOAT")


def _cut(folder: Path, name: str, file: str, share: float) -> Path:
    data = recordings.encode(name, seconds=5.0)
    return _write(folder / file, data[: int(len(data) * share)])


def _good(folder: Path) -> Path:
    return sounds.write(folder / "good.wav", sounds.noise(1.0))


def _sphere(folder: Path) -> Path:
    soundfile.write(folder / "call.sph", sounds.noise(1.0), 16_000, "PCM_16", format="NIST")
    return folder / "call.sph"


class _TooMuch(io.BytesIO):
    """Gives more than it is asked for."""

    def read(self, count: int | None = -1) -> bytes:
        return super().read(count) + bytes(2**20)


CASES: dict[str, Callable[[Path], Any]] = {
    "no such file": lambda f: AudioClip(f / "missing.wav"),
    "a folder": lambda f: AudioClip(f),
    "a text named .wav": lambda f: AudioClip(_write(f / "notes.wav", b"not a recording")),
    "an empty file": lambda f: AudioClip(_write(f / "empty.wav", b"")),
    "NIST SPHERE": lambda f: AudioClip(_sphere(f)),
    "a WAV without samples": lambda f: AudioClip(sounds.write(f / "none.wav", np.zeros(0, np.float32))),
    "a FLAC cut in the middle": lambda f: AudioClip(_cut(f, "flac 16", "cut.flac", 0.5)),
    "a WAV cut in the middle": lambda f: AudioClip(_cut(f, "wav 16", "cut.wav", 0.5)),
    "a header that claims 2 GB": lambda f: AudioClip(_claims_two_gigabytes(f)),
    "4 samples a second": lambda f: AudioClip(sounds.write(f / "slow.wav", np.zeros(99, np.float32), 4)),
    "768 kHz": lambda f: AudioClip(sounds.write(f / "fast.wav", np.zeros(9999, np.float32), 768_000)),
    "64 channels": lambda f: AudioClip(sounds.write(f / "many.wav", np.zeros((4000, 64), np.float32))),
    "a sample that is NaN": lambda f: AudioClip(_nan(f)),
    "61 minutes of silence in 560 kB": lambda f: AudioClip(_silence(f, 61)),
    "an hour of silence in 546 kB": lambda f: AudioClip(_silence(f, 60)),
    "a second of an hour of silence": lambda f: AudioClip(_silence(f, 60), start_seconds=1800, end_seconds=1801),
    "a part past the end": lambda f: AudioClip(_good(f), start_seconds=0.5, end_seconds=9),
    "a part that begins after the end": lambda f: AudioClip(_good(f), start_seconds=5),
    "a part that ends before it begins": lambda f: AudioClip("x.wav", start_seconds=5, end_seconds=2),
    "a FIFO": lambda f: AudioClip(_fifo(f)),
    "a reference, no roots given for it": lambda f: _reference(sounds.write(f / "outside.wav", sounds.noise(1.0))),
    "a reference through ..": lambda f: _reference(f / "inside" / ".." / "good.wav"),
    "a link out of the root": _link_out,
    "a file that changed since": _changed,
    "a reference that was cut off": lambda f: AudioClip.from_reference("audio:x.wav#t=1,2&v=0123"),
    "http://": lambda f: AudioClip("http://example.org/x.wav"),
    "file://": lambda f: AudioClip("file:///etc/passwd"),
    "http:// in a Path": lambda f: AudioClip(Path("http://example.org/x.wav")),
    "a file object that gives too much": lambda f: AudioClip(_TooMuch(_good(f).read_bytes()), label="my upload"),
    "None as a clip": lambda f: AudioClip(None),
    "zero bytes": lambda f: AudioClip(b""),
    "samples without a rate": lambda f: AudioClip(np.zeros(100, np.float32)),
    "samples of two axes": lambda f: AudioClip(np.zeros((2, 100), np.float32), sampling_rate=16_000),
    "samples of whole numbers of 64 bits": lambda f: AudioClip(np.zeros(4000, np.int64), sampling_rate=16_000),
    "samples in a sparse tensor": lambda f: AudioClip(torch.zeros(4000).to_sparse(), sampling_rate=16_000),
    "a path as an item": lambda f: f / "good.wav",
    "bytes as an item": lambda f: b"RIFF",
    "a dict as an item": lambda f: {"array": [0.0], "sampling_rate": 16_000},
    "a number as an item": lambda f: 3,
    "None as an item": lambda f: None,
    "a list as an item": lambda f: ["text"],
    "an empty text": lambda f: " ",
    "a path with a question": lambda f: AudioText("what?", "x.wav"),
}


def said(folder: Path, encoder: ALM2VecEncoder, name: str) -> str:
    """What is said of a case: where it is made, or by `encode`, second in a list. The folder is shown as `…`.

    Of what is embedded, how many frames libsndfile decoded for it.
    """
    (folder / "inside").mkdir(exist_ok=True)
    _good(folder)
    try:
        item = CASES[name](folder)
    except InputError as error:
        return f"at once: {_plain(error, folder)}"
    decoded: list[int] = []
    with _counted(decoded):
        try:
            encoder.encode(["a good text", item], task="document")
        except InputError as error:
            return _plain(error, folder)
    return f"nothing: {sum(decoded):,} frames are decoded, {max(decoded, default=0):,} at once at most"


@contextmanager
def _counted(decoded: list[int]) -> Iterator[None]:
    real = soundfile.SoundFile.read

    def read(self: Any, *args: Any, **keywords: Any) -> Any:
        block = real(self, *args, **keywords)
        decoded.append(len(block))
        return block

    with mock.patch.object(soundfile.SoundFile, "read", read):
        yield


def _plain(error: InputError, folder: Path) -> str:
    return str(error).replace(str(folder), "…").replace("|", "\\|")
