"""Which files libsndfile is asked for, whatever folder is the current one."""

import io
import subprocess
import sys

import numpy as np
import pytest
import recordings
import soundfile
import sounds

from alm2vec_integrations import AudioClip, AudioError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()


@pytest.mark.parametrize("fork", ["._", ".AppleDouble/"])
@pytest.mark.parametrize("name", [*recordings.OF_FFMPEG, "mp3, no length", *recordings.OF_LIBSNDFILE])
def test_forks_in_the_current_folder(tmp_path, monkeypatch, name, fork):
    """As macOS leaves them on other systems' disks; libsndfile takes them for part of what it does not know."""
    pytest.importorskip("av")
    data = recordings.ROUNDABOUT[name](2.0) if name in recordings.ROUNDABOUT else recordings.encode(name, 2.0)
    expected = decode(AudioClip(data), NO_ROOTS)
    monkeypatch.chdir(tmp_path)
    (tmp_path / fork).mkdir() if fork.endswith("/") else (tmp_path / fork).touch()
    (tmp_path / "x").write_bytes(data)
    for source in (data, tmp_path / "x", io.BytesIO(data)):
        np.testing.assert_array_equal(decode(AudioClip(source), NO_ROOTS), expected)


def of_libsndfile(container):
    """A second of noise in a container of libsndfile's, whole."""
    file = io.BytesIO()
    subtype = soundfile.default_subtype(container) or sorted(soundfile.available_subtypes(container))[0]
    soundfile.write(file, sounds.noise(1.0), 8_000 if container == "WVE" else 16_000, subtype, format=container)
    return file.getvalue()


TAKEN = {"WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3"}
NAMED = {
    "NIST": "NIST SPHERE", "MAT4": "MATLAB 4", "MAT5": "MATLAB", "SDS": "SDS", "VOC": "VOC", "SVX": "Amiga SVX",
    "PVF": "PVF", "WVE": "Psion WVE", "AVR": "AVR", "MPC2K": "Akai MPC", "PAF": "PAF", "IRCAM": "IRCAM", "XI": "XI",
}  # fmt: skip


@pytest.mark.parametrize("container", sorted(NAMED))
def test_containers_that_are_not_taken(container):
    """By name, cut or whole, and before libsndfile reads them."""
    data = of_libsndfile(container)
    for part in (data, data[: len(data) // 2]):
        for work in (measure, decode, lambda clip, _: list(segment(clip))):
            with pytest.raises(
                AudioError, match=rf"is .*{NAMED[container]}.*would not be noticed: convert it to WAV or FLAC first"
            ):
                work(AudioClip(part), NO_ROOTS)


def test_nothing_else_is_opened(tmp_path, monkeypatch):
    """Of all that this libsndfile knows, what has no mark of its own is no recording."""
    monkeypatch.chdir(tmp_path)  # where it leaves a file, "._"
    for container in set(soundfile.available_formats()) - TAKEN - set(NAMED):
        with pytest.raises(AudioError, match=r"is not audio"):
            decode(AudioClip(of_libsndfile(container)), NO_ROOTS)


@pytest.mark.parametrize("container", ["RIFF", "FORM", "OggS", "caff", ".snd"])
def test_behind_a_tag(container):
    """Where nothing of how long they are would be seen."""
    names = {"RIFF": "wav 16", "FORM": "aiff", "OggS": "ogg vorbis", "caff": "caf", ".snd": "au"}
    tag = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(1 << 7)
    with pytest.raises(AudioError, match="is not audio"):
        decode(AudioClip(tag + recordings.encode(names[container])), NO_ROOTS)


def test_an_au_of_the_other_order():
    """Is as whole as any."""
    file = io.BytesIO()
    soundfile.write(file, sounds.noise(1.0), 16_000, "PCM_16", "LITTLE", "AU")
    assert measure(AudioClip(file.getvalue()), NO_ROOTS).seconds == 1.0
    with pytest.raises(AudioError, match="is cut short"):
        measure(AudioClip(file.getvalue()[:-1000]), NO_ROOTS)


def test_nothing_is_printed():
    """Where a damaged file makes libsndfile print, and the answer of a command is on standard output."""
    code = (
        "import sys\nfrom alm2vec_integrations import AudioClip, segment\n"
        "try:\n    list(segment(AudioClip(sys.stdin.buffer.read())))\nexcept ValueError:\n    pass\n"
    )
    data = bytearray(of_libsndfile("SDS"))
    data[21 + 60] ^= 0xFF  # a checksum is then wrong
    done = subprocess.run([sys.executable, "-c", code], input=bytes(data), capture_output=True, check=True)
    assert done.stdout == b""
