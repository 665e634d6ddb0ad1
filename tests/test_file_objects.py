"""File objects that do not keep what files promise."""

import io

import numpy as np
import pytest
import recordings

from alm2vec_integrations import AudioClip, AudioError, InputError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode

NO_ROOTS = AccessPolicy()
NAMES = ["wav 16", "flac 16", "ogg vorbis", "mp3", "m4a", "webm", "aac"]


class Odd(io.RawIOBase):
    """Bytes whose reads are changed from the `first` on."""

    def __init__(self, data, change, first=0):
        self._data, self._change, self._first, self.reads = io.BytesIO(data), change, first, 0

    def read(self, count=-1):
        self.reads += 1
        if self.reads <= self._first:
            return self._data.read(count)
        return self._change(self._data, count)

    def seek(self, *place):
        return self._data.seek(*place)

    def tell(self):
        return self._data.tell()


def broken(data, count):
    raise RuntimeError("the wire was cut")


ANSWERS = {
    "more": (
        lambda data, count: data.read(count) + bytes(count + 1),
        r"read\(\d+\) .* returned \d+ bytes, and must return no more",
    ),
    "str": (lambda data, count: data.read(count).decode("latin-1"), "returned str, and must return bytes: open it as"),
    "nothing": (lambda data, count: None, "returned NoneType, and must return bytes"),
    "a view": (lambda data, count: memoryview(data.read(count)), "returned memoryview, and must return bytes"),
    "error": (broken, "could not be read: RuntimeError: the wire was cut"),
}


@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("name", NAMES)
def test_reads_that_are_none(capfd, name, answer):
    """Said, whether the first or a later one, and whoever asked; a decoder is handed nothing of it."""
    pytest.importorskip("av")
    data, (change, message) = recordings.encode(name), ANSWERS[answer]
    good = Odd(data, change, first=10**9)
    decode(AudioClip(good), NO_ROOTS)
    for first in (0, 1, good.reads // 3, good.reads // 2, good.reads - 3):
        with pytest.raises(AudioError, match=message):
            decode(AudioClip(Odd(data, change, first)), NO_ROOTS)
    with pytest.raises(AudioError, match=message):
        list(segment(AudioClip(Odd(data, change))))
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", NAMES)
def test_a_bytearray_is_bytes(name):
    """Nothing else is needed of it."""
    pytest.importorskip("av")
    data = recordings.encode(name)
    odd = AudioClip(Odd(data, lambda inner, count: bytearray(inner.read(count))))
    np.testing.assert_array_equal(decode(odd, NO_ROOTS), decode(AudioClip(data), NO_ROOTS))


def test_a_seek_that_returns_nothing():
    """Is asked where it is; what does not say that either is refused."""

    class Silent(Odd):
        def seek(self, *place):
            self._data.seek(*place)

    class Lost(Silent):
        def tell(self):
            return "at the end"

    data = recordings.encode("wav 16")
    expected = decode(AudioClip(data), NO_ROOTS)
    np.testing.assert_array_equal(decode(AudioClip(Silent(data, None, 10**9)), NO_ROOTS), expected)
    with pytest.raises(AudioError, match=r"tell\(\) of the file object returned str at its end, .*pass the bytes"):
        decode(AudioClip(Lost(data, None, 10**9)), NO_ROOTS)


def test_a_name_that_fails():
    """Is none, in what is said of anything else."""

    class Nameless(Odd):
        @property
        def name(self):
            raise RuntimeError("there was one")

    data = recordings.encode("wav 16")
    assert len(decode(AudioClip(Nameless(data, None, 10**9)), NO_ROOTS))
    with pytest.raises(AudioError, match=r"^<Nameless>: read\(\) of the file object returned"):
        decode(AudioClip(Nameless(data, lambda inner, count: None)), NO_ROOTS)
    with pytest.raises(InputError, match=r"^<Nameless>: sampling_rate belongs to samples"):
        AudioClip(Nameless(data, None), sampling_rate=16_000)


def test_an_object_of_which_nothing_can_be_asked():
    """Is refused, not passed on."""

    class Hostile:
        def __getattr__(self, name):
            raise RuntimeError(name)

    with pytest.raises(InputError):
        AudioClip(Hostile())
