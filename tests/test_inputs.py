"""Clips, composed items and references, without a model."""

import dataclasses
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alm2vec_integrations import AudioClip, AudioText, InputError

paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
    lambda path: "://" not in path and not path.startswith("audio:")
)
seconds = st.floats(0, 1e7, allow_nan=False)


@given(paths, st.none() | seconds, st.none() | seconds)
def test_a_reference_reads_back_exactly(path, start, end):
    """Any path and any times, digit for digit."""
    if end is not None and end <= (start or 0):
        start, end = end, None
    clip = AudioClip(path, start_seconds=start, end_seconds=end)
    back = AudioClip.from_reference(clip.reference(digest=False))
    assert (back.path, back.start_seconds, back.end_seconds) == (path, start, end)
    assert back.is_reference
    assert not clip.is_reference


@pytest.mark.parametrize(
    "path", ["a b.wav", "a#b.wav", "100%.wav", "a&v=1.wav", "å/雨.flac", "C:\\x\\y.wav", "\udcff.wav"]
)
def test_awkward_paths(path):
    """Characters that mean something in a URI are only characters."""
    reference = AudioClip(path, start_seconds=12, end_seconds=20.5).reference(digest=False)
    assert reference.isascii()
    assert reference.endswith("#t=12,20.5")
    assert AudioClip.from_reference(reference).path == path


def test_the_documented_form(clips):
    """`audio:<uri>#t=<start>,<end>&v=<digest>`, each part only if there is one."""
    import hashlib

    digest = hashlib.sha256(clips[0].read_bytes()).hexdigest()[:16]
    assert AudioClip(clips[0]).reference() == f"audio:{clips[0]}#v={digest}"
    assert AudioClip(clips[0], end_seconds=2).reference() == f"audio:{clips[0]}#t=,2&v={digest}"
    assert AudioClip("a.wav", start_seconds=1).reference(digest=False) == "audio:a.wav#t=1"
    assert AudioClip("a.wav").reference(digest=False) == "audio:a.wav"


@pytest.mark.parametrize(
    "cut",
    ["audio:", "audio:a.wav#", "audio:a.wav#t=", "audio:a.wav#t=1&", "audio:a.wav#t=1&v=", "audio:a.wav#v=12ab",
     "audio:a.wav#t=1,2,3", "audio:a.wav#t=1e3", "audio:a.wav#t=.", "audio:a.wav#&v=0123456789abcdef",
     "audio:a.wav#v=0123456789abcdef&t=1", "audio:a.wav#t=1v=0123456789abcdef", "audio:half \ud800.wav", "a.wav", ""],
)  # fmt: skip
def test_cut_and_malformed_references_are_refused(cut):
    """A text splitter may have cut it; half a reference is not another reference."""
    with pytest.raises(InputError):
        AudioClip.from_reference(cut)


@pytest.mark.parametrize("url", ["audio:https://example.org/a.wav", "audio:file:///etc/passwd", "audio:s3%3A//b/k.wav"])
def test_references_to_urls_are_refused(url):
    """Nothing is fetched."""
    with pytest.raises(InputError, match="download"):
        AudioClip.from_reference(url)


@pytest.mark.parametrize("text", ["audio: a dog barks", "audio:\tx", "Audio:a.wav", "the audio:a.wav"])
def test_texts_about_audio_are_texts(text):
    """Only the scheme followed by something that is no space has a reference's form."""
    assert not AudioClip.looks_like_reference(text)


def test_numpy_numbers_are_numbers():
    """Times and rates often come out of arrays."""
    import numpy as np

    clip = AudioClip(np.zeros(99, np.float32), sampling_rate=np.int64(16_000), start_seconds=np.float32(0.5))
    assert (type(clip.sampling_rate), type(clip.start_seconds)) == (int, float)


def test_numpys_strings_are_paths():
    """As they come out of an array of file names."""
    import numpy as np

    assert AudioClip(np.array(["a.wav"])[0]).path == "a.wav"


def test_only_paths_have_references():
    """Bytes have no name to be found by."""
    with pytest.raises(InputError, match="write it to a file"):
        AudioClip(b"RIFF").reference()


def test_a_digest_that_is_known_is_kept(tmp_path):
    """In the reference too: the file may have changed since."""
    (tmp_path / "a.wav").write_bytes(b"changed")
    clip = AudioClip(tmp_path / "a.wav", digest="0123456789abcdef")
    assert clip.reference().endswith("#v=0123456789abcdef")
    assert AudioClip.from_reference(clip.reference()).digest == clip.digest


@pytest.mark.parametrize("wrong", ["no", 1, None])
def test_whether_it_is_a_reference_is_true_or_false(wrong):
    """Since the access policy goes by it."""
    with pytest.raises(InputError, match="is_reference must be True or False"):
        AudioClip("a.wav", is_reference=wrong)


def test_a_changed_copy_stays_a_reference():
    """`dataclasses.replace` does not lift the access policy."""
    clip = AudioClip.from_reference("audio:a.wav#v=0123456789abcdef")
    later = dataclasses.replace(clip, start_seconds=1.0)
    assert later.is_reference
    assert later.digest == "0123456789abcdef"


def test_equal_clips_are_equal():
    """By path and times; arrays and file objects by identity."""
    import numpy as np

    assert AudioClip("a.wav", start_seconds=1) == AudioClip("a.wav", start_seconds=1)
    assert AudioClip("a.wav") != AudioClip("a.wav", start_seconds=1)
    assert AudioClip("a.wav") != "a.wav"
    assert len({AudioClip("a.wav"), AudioClip("a.wav"), AudioClip(b"RIFF"), AudioClip(b"RIFF")}) == 2
    samples = np.zeros(10, np.float32)
    assert AudioClip(samples, sampling_rate=10) == AudioClip(samples, sampling_rate=10)
    assert AudioClip(samples, sampling_rate=10) != AudioClip(samples.copy(), sampling_rate=10)


@pytest.mark.parametrize(
    ("text", "audio"), [("", AudioClip("a")), (" ", AudioClip("a")), (3, AudioClip("a")), ("q", "a")]
)
def test_composed_items_need_both_parts(text, audio):
    """A path has to be said to be audio here too."""
    with pytest.raises(InputError):
        AudioText(text, audio)


def test_errors_survive_a_pickle():
    """Pools send them between processes."""
    error = pickle.loads(pickle.dumps(InputError("reason", index=3, source="a.wav")))
    assert (str(error), error.index, error.source, error.reason) == ("item 3, a.wav: reason", 3, "a.wav", "reason")


@pytest.mark.parametrize(
    "keywords", [{"start_seconds": 10**400}, {"end_seconds": float("inf")}, {"start_seconds": 1e10}]
)
def test_times_that_no_recording_has(keywords):
    """Our error, whatever the number."""
    with pytest.raises(InputError, match="number of seconds"):
        AudioClip("x.wav", **keywords)


def test_zero_has_no_sign():
    """In a reference."""
    clip = AudioClip("x.wav", start_seconds=-0.0, end_seconds=1)
    assert AudioClip.from_reference(clip.reference(digest=False)) == AudioClip.from_reference("audio:x.wav#t=0,1")


def test_half_a_character_in_a_path():
    """Cannot be a file's name."""
    with pytest.raises(InputError, match="half a character"):
        AudioClip("a\ud800.wav")


def test_a_rate_given_twice():
    """Has to be the same, of whatever type it is."""
    import numpy as np

    row = {"array": np.zeros(100, np.float32), "sampling_rate": np.array([1, 2])}
    with pytest.raises(InputError, match="sampling_rate"):
        AudioClip(row, sampling_rate=3)


def test_bytes_of_any_kind_have_an_id():
    """Also a view that skips."""
    assert AudioClip(memoryview(b"a-b-c")[::2]).id == AudioClip(b"abc").id


def test_a_reference_of_a_reference_opens_nothing():
    """A stored string does not decide which file is read: its digest is the one it brought."""
    text = "audio:/etc/hostname#t=1&v=0123456789abcdef"
    assert AudioClip.from_reference(text).reference() == text
    with pytest.raises(InputError, match="without a digest"):
        AudioClip.from_reference("audio:/etc/hostname").reference()
