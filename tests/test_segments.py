"""`segment`: clips with times, from headers alone."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import sounds
from hypothesis import given, settings
from hypothesis import strategies as st

from alm2vec_integrations import ALM2VecEncoder, AudioAccessError, AudioClip, AudioError, InputError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure


def times(clips):
    return [(clip.start_seconds, clip.end_seconds) for clip in clips]


def silence(seconds, rate=1_000):
    return AudioClip(np.zeros(round(seconds * rate), np.float32), sampling_rate=rate)


@pytest.mark.parametrize(
    ("seconds", "keywords", "expected"),
    [
        (25, {"segment_seconds": 10}, [(0, 10), (10, 20), (20, 25)]),
        (20, {"segment_seconds": 10}, [(0, 10), (10, 20)]),
        (20.5, {"segment_seconds": 10}, [(0, 10), (10, 20.5)]),
        (20.5, {"segment_seconds": 10, "min_seconds": 0.2}, [(0, 10), (10, 20), (20, 20.5)]),
        (20, {"segment_seconds": 10, "hop_seconds": 5}, [(0, 10), (5, 15), (10, 20)]),
        (21, {"segment_seconds": 10, "hop_seconds": 5}, [(0, 10), (5, 15), (10, 20), (15, 21)]),
        (0.3, {"segment_seconds": 10}, [(0, 0.3)]),
        (65, {}, [(0, 30), (30, 60), (60, 65)]),
    ],
)
def test_where_the_cuts_are(seconds, keywords, expected):
    """Every hop until one reaches the end; a short rest lengthens the last."""
    assert times(segment(silence(seconds), **keywords)) == expected


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from([1_000, 8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 500_000]),
    st.one_of(st.floats(0.01, 60), st.sampled_from([0.01, 0.1, 0.3, 0.7, 1 / 3, 1.1, 2.3])),
    st.one_of(st.floats(0.01, 12), st.integers(1, 12)),
    st.integers(-2, 2),
    st.sampled_from([1.0, 0.5, 1 / 3, 0.1, 0.77]),
    st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1e-9, 1e-4])),
)
def test_nothing_is_left_out_and_nothing_is_too_long(rate, length, count, more, hop_share, rest_share):
    """Whatever the numbers: every frame from the beginning to the end, in order, in segments that can be read."""
    hop, shortest = max(length * hop_share, 0.01), length * rest_share
    frames = max(1, round(count * length * rate) + more)
    clip = AudioClip(np.broadcast_to(np.float32(0), (frames,)), sampling_rate=rate)
    parts = list(itertools.islice(segment(clip, segment_seconds=length, hop_seconds=hop, min_seconds=shortest), 2000))
    extents = [measure(part, AccessPolicy(), whole=True) for part in parts]
    assert extents[0].start == 0
    for one, other in itertools.pairwise(extents):
        assert one.start < other.start <= one.stop <= other.stop
    if len(parts) == 2000:
        return
    assert extents[-1].stop == frames
    assert all(extent.seconds <= length + max(shortest, 0.01) + 1 / rate + 1e-6 for extent in extents)
    assert all(extent.seconds >= min(max(shortest, 0.01), frames / rate) - 1 / rate - 1e-6 for extent in extents)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_no_rest_is_too_short_to_be_one(tmp_path, rate):
    """Three seconds in tenths are thirty segments, though three tenths are not 0.3 to a computer."""
    sounds.write(tmp_path / "a.wav", sounds.noise(3.0, rate=rate), rate)
    for length, count in ((0.1, 30), (0.3, 10)):
        assert len(list(segment(tmp_path, segment_seconds=length, min_seconds=0))) == count


def test_a_part_of_a_clip_is_cut_inside_it(tmp_path):
    """And what else the clip says stays."""
    path = sounds.write(tmp_path / "a.wav", sounds.noise(10.0))
    digest = AudioClip(path).reference()[-16:]
    clip = AudioClip(path, start_seconds=2, end_seconds=7, digest=digest)
    parts = list(segment(clip, segment_seconds=2))
    assert times(parts) == [(2, 4), (4, 6), (6, 7)]
    assert all(part.path == str(path) and part.digest == digest for part in parts)


def test_ids_are_the_same_in_every_run(tmp_path):
    """By path and times; not by contents, so that an index is updated in place; UUIDs, which all stores take."""
    import uuid

    path = sounds.write(tmp_path / "a.wav", sounds.noise(3.0))
    first = [clip.id for clip in segment(path, segment_seconds=1)]
    sounds.write(path, sounds.noise(3.0, seed=9))
    assert first == [clip.id for clip in segment(path, segment_seconds=1)]
    assert len(set(first)) == 3
    assert all(str(uuid.UUID(one)) == one for one in first)
    assert AudioClip("a.wav", start_seconds=1, end_seconds=2).id == "c170d8a1-3263-573f-a6fe-2a01b1b69559"
    assert AudioClip(b"abc").id == AudioClip(bytearray(b"abc")).id != AudioClip(b"abd").id
    with pytest.raises(InputError, match="path or bytes"):
        _ = silence(1).id


def test_a_segment_is_what_was_cut(tmp_path):
    """Decoded alone, it has the samples of the whole at its place."""
    samples = sounds.noise(5.0)
    path = sounds.write(tmp_path / "a.flac", samples)
    whole = decode(AudioClip(path), AccessPolicy())
    parts = [decode(clip, AccessPolicy()) for clip in segment(path, segment_seconds=1.7)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


class TestFolders:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("b/2.wav", "a.FLAC", "b/1.wav", "c.wav"):
            sounds.write(tmp_path / "x" / name, sounds.noise(2.5))
        (tmp_path / "x" / "b" / "notes.txt").write_text("not a recording")
        (tmp_path / "x" / ".hidden.wav").write_text("no")
        return tmp_path / "x"

    def test_all_recordings_in_the_order_of_names(self, folder):
        """With subfolders, without what is hidden or has another name."""
        found = [
            clip.path.removeprefix(str(folder) + "/") for clip in segment(folder, segment_seconds=1, min_seconds=0.1)
        ]
        assert found == [name for name in ("a.FLAC", "b/1.wav", "b/2.wav", "c.wav") for _ in range(3)]

    def test_one_file_is_opened_at_a_time(self, folder):
        """The next when its turn comes: a folder of any size begins at once."""
        stream = segment(folder, segment_seconds=1, min_seconds=0.1)
        next(stream)
        (folder / "c.wav").unlink()
        (folder / "b" / "2.wav").write_text("broken meanwhile")
        with pytest.raises(AudioError, match=r"2\.wav"):
            list(stream)

    def test_broken_ones_can_be_passed_over(self, folder):
        """By someone who is told."""
        (folder / "b" / "1.wav").write_text("not a recording")
        errors = []
        clips = list(segment(folder, segment_seconds=10, on_error=errors.append))
        assert [error.source for error in errors] == [str(folder / "b" / "1.wav")]
        assert len(clips) == 3

    @pytest.fixture
    def unlistable(self, folder, monkeypatch):
        """A subfolder, as without the permission to list it, which the superuser does not need."""
        real = os.scandir

        def refuse(path):
            if Path(path).name == "b":
                raise PermissionError(13, "Permission denied", path)
            return real(path)

        monkeypatch.setattr(os, "scandir", refuse)
        return folder / "b"

    def test_subfolders_that_cannot_be_listed(self, folder, unlistable):
        """Are told like recordings that cannot be read, and the rest is gone through; or they are raised."""
        errors = []
        clips = list(segment(folder, segment_seconds=10, on_error=errors.append))
        assert [Path(clip.path).name for clip in clips] == ["a.FLAC", "c.wav"]
        assert [error.source for error in errors] == [str(unlistable)]
        said = r"cannot be listed \(Permission denied\): check the folder and its permissions"
        assert all(isinstance(error, AudioError) for error in errors)
        with pytest.raises(AudioError, match=said):
            list(segment(folder, segment_seconds=10))
        errors.clear()
        assert list(segment(unlistable, on_error=errors.append)) == []
        assert [error.source for error in errors] == [str(unlistable)]

    def test_the_command_names_them(self, folder, unlistable, capsys):
        """And searches the others."""
        from alm2vec_integrations.cli import _measure_folder

        assert [Path(path).name for path in _measure_folder(folder)] == ["a.FLAC", "c.wav"]
        assert f"alm2vec: left out: {unlistable}: cannot be listed" in capsys.readouterr().err

    def test_folders_nested_deeper_than_calls(self, tmp_path, monkeypatch):
        """Are gone through, as far as the system has names for them; the rest is told."""
        sounds.write(tmp_path / "x" / "b.wav", sounds.noise(1.0))
        monkeypatch.chdir(tmp_path / "x")
        for depth in range(3000):
            if depth == 1200:
                sounds.write(Path("deep.wav"), sounds.noise(1.0))
            Path("a").mkdir()
            os.chdir("a")
        errors = []
        try:
            names = [Path(clip.path).name for clip in segment(tmp_path / "x", on_error=errors.append)]
        finally:  # what cleans up later would not get to the end of it
            for _ in range(3000):
                os.chdir("..")
                Path("a").rmdir()
                Path("deep.wav").unlink(missing_ok=True)
        assert names == ["deep.wav", "b.wav"]
        assert [error.reason.partition(" (")[0] for error in errors] == ["cannot be listed"]

    def test_a_file_named_like_a_reference(self, tmp_path, monkeypatch):
        """Is a file like any other."""
        sounds.write(tmp_path / "audio:x.wav", sounds.noise(3.0))
        sounds.write(tmp_path / "b.wav", sounds.noise(3.0))
        monkeypatch.chdir(tmp_path)
        clips = list(segment("."))
        assert [Path(clip.source).name for clip in clips] == ["audio:x.wav", "b.wav"]
        assert AudioClip.from_reference(clips[0].reference()).path == clips[0].path
        assert len(decode(clips[0], AccessPolicy())) == 48_000

    def test_links_to_folders_are_not_followed(self, folder):
        """They may lead in circles."""
        (folder / "circle").symlink_to(folder)
        assert len(list(segment(folder, segment_seconds=10))) == 4


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"segment_seconds": 0}, "segment_seconds must be"),
        ({"segment_seconds": float("nan")}, "segment_seconds must be"),
        ({"segment_seconds": "30"}, "segment_seconds must be"),
        ({"hop_seconds": -1}, "hop_seconds must be"),
        ({"segment_seconds": 10, "hop_seconds": 11}, "would leave gaps"),
        ({"segment_seconds": 0.5}, r"min_seconds \(1.0\) cannot be more"),
    ],
)
def test_lengths_that_make_no_sense(keywords, message):
    """Said at the call."""
    with pytest.raises(InputError, match=message):
        segment("x.wav", **keywords)


@pytest.mark.parametrize("source", [5, None, b"abc", "", ["x.wav"], {"path": "x.wav"}])
def test_what_cannot_be_cut(source):
    """Said at the call too."""
    with pytest.raises(InputError, match=r"segment takes an AudioClip, a file or a folder"):
        segment(source)


@pytest.mark.parametrize("seconds", [10**400, 1e-7, np.array([1.0, 2.0]), "1", True, float("nan")])
def test_seconds_that_are_none(seconds):
    """Said at the call."""
    with pytest.raises(InputError, match="must be a number of seconds"):
        segment("x.wav", segment_seconds=1, hop_seconds=seconds)


def test_numbers_of_numpy(tmp_path):
    """Are numbers."""
    path = sounds.write(tmp_path / "x.wav", sounds.noise(3.0))
    parts = list(segment(path, segment_seconds=np.float32(1.5)))
    assert [(part.start_seconds, part.end_seconds) for part in parts] == [(0.0, 1.5), (1.5, 3.0)]


def test_a_name_that_no_file_can_have():
    """Is an audio error, as for any file that cannot be opened."""
    with pytest.raises(AudioError, match="cannot be opened"):
        list(segment("a" * 5000))


def test_a_path_of_bytes(tmp_path):
    """Is not a path, wherever it comes from."""
    (tmp_path / "x.wav").touch()
    with os.scandir(os.fsencode(tmp_path)) as found:
        entry = next(found)
    for call in (segment, ALM2VecEncoder, AudioClip, lambda path: AccessPolicy([path])):
        with pytest.raises(InputError):
            call(entry)


def test_an_error_handler_is_called():
    """And so must be callable."""
    with pytest.raises(InputError, match="on_error must be a function"):
        segment("x", on_error=3)


def test_references_need_roots(tmp_path):
    """As everywhere."""
    path = sounds.write(tmp_path / "a.wav", sounds.noise(3.0))
    clip = AudioClip.from_reference(AudioClip(path).reference())
    with pytest.raises(AudioAccessError, match="allowed_audio_roots"):
        list(segment(clip, segment_seconds=1))
    parts = list(segment(clip, segment_seconds=1, allowed_audio_roots=tmp_path))
    assert all(part.is_reference for part in parts)


def test_longer_than_one_clip_may_be(tmp_path):
    """That is what it is for."""
    path = sounds.write(tmp_path / "long.wav", np.zeros(7_300_000, np.float32), 1000, "PCM_U8")
    assert len(list(segment(path, segment_seconds=60))) == 122
