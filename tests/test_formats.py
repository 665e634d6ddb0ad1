"""Every format that a recording comes in, whole and in parts."""

import io

import numpy as np
import pytest
import recordings
import soundfile
import sounds

from alm2vec_integrations import AudioClip, AudioError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()


def heard(clip):
    return decode(clip, NO_ROOTS) / 32768.0


def apart(one, other, slack=400):
    """Largest difference, not counting the edges, where lossy formats and resampling ring."""
    length = min(len(one), len(other))
    return np.abs(one[slack : length - slack] - other[slack : length - slack]).max()


class TestFormats:
    @pytest.mark.parametrize("name", recordings.OF_LIBSNDFILE)
    @pytest.mark.parametrize("as_", ["path", "bytes", "file object"])
    def test_what_libsndfile_reads(self, tmp_path, name, as_):
        """The same sound in every format, from a file, from bytes, and from a file object."""
        path = recordings.write(tmp_path / f"x.{recordings.OF_LIBSNDFILE[name][0]}", name)
        data = path.read_bytes()
        source = {"path": path, "bytes": data, "file object": io.BytesIO(data)}[as_]
        clip = AudioClip(source)
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(3.0, abs=0.06)
        assert apart(heard(clip), recordings.chirp(3.0, 16_000)[:, 0]) < (0.08 if name in recordings.LOSSY else 2e-3)

    @pytest.mark.parametrize("name", recordings.OF_FFMPEG)
    @pytest.mark.parametrize("as_", ["path", "bytes", "file object"])
    def test_what_ffmpeg_reads(self, tmp_path, name, as_):
        """With PyAV: aac, webm, and the sound of videos."""
        pytest.importorskip("av")
        path = recordings.write(tmp_path / f"x.{recordings.OF_FFMPEG[name][0]}", name)
        data = path.read_bytes()
        clip = AudioClip({"path": path, "bytes": data, "file object": io.BytesIO(data)}[as_])
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(3.0, abs=0.06)
        samples = heard(clip)
        if name == "aac":  # has no header to say how long its encoder's delay was
            samples = samples[round(1024 / 44_100 * 16_000) :]
        assert apart(samples, recordings.chirp(3.0, 16_000)[:, 0]) < (0.08 if name in recordings.LOSSY else 2e-3)

    @pytest.mark.parametrize("name", [*recordings.OF_LIBSNDFILE, *recordings.OF_FFMPEG])
    def test_a_part_is_the_same_as_in_the_whole(self, tmp_path, name):
        """Seeking in a compressed file lands on the right sample; in WebM and Matroska, on the right millisecond."""
        if name in recordings.OF_FFMPEG:
            pytest.importorskip("av")
        path = recordings.write(tmp_path / "x", name, seconds=12.0)
        whole = heard(AudioClip(path))
        for start, end in ((0.0, 1.0), (0.1, 0.5), (5.0, 7.25), (9.5, 11.0)):
            part = heard(AudioClip(path, start_seconds=start, end_seconds=end))
            assert len(part) == round((end - start) * 16_000)
            place = whole[round(start * 16_000) :][: len(part)]
            shifts = range(-16, 17) if name in ("webm", "mka") else (0,)
            assert min(apart(part[16:-16], np.roll(place, shift)[16:-16]) for shift in shifts) < 1e-2
            if name not in recordings.LOSSY and not list(shifts)[1:]:
                assert apart(part, place) < 1e-4

    def test_a_part_of_a_long_file_costs_what_it_lasts(self, tmp_path, monkeypatch):
        """An hour of silence in a few hundred kB: a second of it decodes a second, the whole exactly an hour."""
        path = tmp_path / "hour.flac"
        with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
            for _ in range(60):
                file.write(np.zeros(60 * 16_000, np.int16))
        assert path.stat().st_size < 600_000
        read, real = [], soundfile.SoundFile.read

        def count(self, frames=-1, *args, **keywords):
            block = real(self, frames, *args, **keywords)
            read.append(len(block))
            return block

        monkeypatch.setattr(soundfile.SoundFile, "read", count)
        assert len(heard(AudioClip(path, start_seconds=1800, end_seconds=1801))) == 16_000
        assert sum(read) == 16_000
        read.clear()
        assert measure(AudioClip(path), NO_ROOTS).seconds == 3600
        assert read == []
        assert len(decode(AudioClip(path), NO_ROOTS)) == 3600 * 16_000
        assert sum(read) == 3600 * 16_000
        assert max(read) <= 2**16

    def test_past_an_hour_nothing_is_decoded(self, tmp_path, monkeypatch):
        """The header says so."""
        path = tmp_path / "long.flac"
        with soundfile.SoundFile(path, "w", 16_000, 1, "PCM_16") as file:
            for _ in range(61):
                file.write(np.zeros(60 * 16_000, np.int16))
        monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
        with pytest.raises(AudioError, match=r"lasts 3660 s, and 3600 s is the most.*segment\(\)"):
            decode(AudioClip(path), NO_ROOTS)

    def test_without_pyav_the_command_is_named(self, monkeypatch, tmp_path):
        """One line."""
        monkeypatch.setattr("alm2vec_integrations._extras.has", lambda module: False)
        (tmp_path / "x.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(100))
        with pytest.raises(AudioError, match=r"pip install 'alm2vec-integrations\[av\]'") as caught:
            decode(AudioClip(tmp_path / "x.m4a"), NO_ROOTS)
        assert "\n" not in str(caught.value)

    def test_a_film_without_sound(self, tmp_path):
        """Says so."""
        av = pytest.importorskip("av")
        path = tmp_path / "silent.mp4"
        with av.open(str(path), "w") as file:
            video = file.add_stream("mpeg4", rate=10)
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
            file.mux(video.encode(None))
        with pytest.raises(AudioError, match="holds no sound"):
            decode(AudioClip(path), NO_ROOTS)

    @pytest.mark.parametrize("channels", [1, 2, 6, 9, 32])
    def test_many_channels_through_ffmpeg(self, channels):
        """More than eight planes crash PyAV; interleaved they do not."""
        av = pytest.importorskip("av")
        samples = np.stack([sounds.noise(0.5, seed=seed) for seed in range(channels)], axis=1)
        file, layout = io.BytesIO(), f"{channels} channels"
        with av.open(file, "w", format="matroska") as output:
            stream = output.add_stream("pcm_f32le", rate=16_000, layout=layout)
            frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout=layout)
            frame.sample_rate = 16_000
            output.mux(stream.encode(frame))
        expected = heard(AudioClip(samples, sampling_rate=16_000, channels="last"))
        assert np.abs(heard(AudioClip(file.getvalue())) - expected).max() <= 1 / 32768

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("x.m4a", "ffconcat version 1.0\nfile secret.aac\n"),
            ("x.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:3,\nsecret.aac\n#EXT-X-ENDLIST\n"),
        ],
    )
    def test_playlists_are_not_followed(self, tmp_path, monkeypatch, name, text):
        """FFmpeg opens what they name, left to itself, also on the network."""
        av = pytest.importorskip("av")
        monkeypatch.chdir(tmp_path)
        recordings.write(tmp_path / "secret.aac", "aac")
        (tmp_path / name).write_text(text)
        with av.open(name) as followed:
            assert next(followed.decode(audio=0)).samples > 0
        for source in (tmp_path / name, (tmp_path / name).read_bytes()):
            with pytest.raises(AudioError, match="is not audio of a kind that is taken"):
                decode(AudioClip(source), NO_ROOTS)

    def test_a_truncated_film(self, tmp_path):
        """Shorter than its header says."""
        pytest.importorskip("av")
        path = recordings.write(tmp_path / "x.webm", "webm", seconds=10.0)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(AudioError, match=r"is (cut short|damaged)"):
            decode(AudioClip(path), NO_ROOTS)


class TestUnknownLengths:
    """Files whose header does not say how long they are, where libsndfile would stop at its guess."""

    LOUD = np.concatenate([sounds.noise(6.0, seed=1, rate=44_100), np.zeros(6 * 44_100, np.float32)])

    @pytest.mark.parametrize("mode", ["VARIABLE", "CONSTANT"])
    @pytest.mark.parametrize("order", [1, -1])
    def test_an_mp3_without_a_xing_header(self, mode, order):
        """Is read to its end, whatever its beginning suggests; with one it is as long as it says."""
        pytest.importorskip("av")
        samples = self.LOUD[::order].copy()
        told = AudioClip(recordings.mp3(samples, xing=True, mode=mode))
        assert measure(told, NO_ROOTS).seconds == 12.0
        clip = AudioClip(recordings.mp3(samples, xing=False, mode=mode))
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(12.0, abs=0.06)
        assert len(heard(clip)) == pytest.approx(12 * 16_000, abs=1_000)
        assert [part.end_seconds for part in segment(clip, segment_seconds=5)][:2] == [5.0, 10.0]

    def test_joined_mp3s(self):
        """Both are heard, though the first one's header speaks of itself alone."""
        pytest.importorskip("av")
        one = recordings.mp3(self.LOUD, xing=True)
        clip = AudioClip(one + one)
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(24.0, abs=0.15)
        samples = heard(clip)
        assert np.abs(samples[round(12.5 * 16_000) : 17 * 16_000]).max() > 0.05

    def test_a_short_mp3_after_another(self):
        """Is no tag."""
        pytest.importorskip("av")
        short = recordings.mp3(self.LOUD[: 2 * 44_100], xing=True, mode="CONSTANT")
        assert len(short) < 2**16
        clip = AudioClip(recordings.mp3(self.LOUD, xing=True, mode="CONSTANT") + short)
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(14.0, abs=0.15)

    @pytest.mark.parametrize(
        "tag", [b"TAG" + bytes(125), b"", b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(1 << 7)]
    )
    def test_a_short_mp3_after_the_tag_of_another(self, tag):
        """Is heard."""
        pytest.importorskip("av")
        one, other = (recordings.mp3(self.LOUD[: s * 44_100], xing=True, mode="CONSTANT") for s in (5, 2))
        assert len(other) < 2**16
        assert measure(AudioClip(one + tag + other), NO_ROOTS).seconds == pytest.approx(7.0, abs=0.15)
        assert measure(AudioClip(one + tag), NO_ROOTS).seconds == 5.0

    def test_many_joined_opus_files(self):
        """Each of whose headers cuts something off: no segment past the end of what is left."""
        pytest.importorskip("av")
        clip = AudioClip(recordings.encode("opus", 0.5) * 60)
        parts = list(segment(clip, segment_seconds=10))
        assert [len(heard(part)) for part in parts] == [160_000] * 3

    def test_a_text_with_the_name_of_a_header(self):
        """Is a text."""
        with pytest.raises(AudioError, match="is not audio"):
            decode(AudioClip(b"Information"), NO_ROOTS)

    def test_many_joined_mp3s_with_tags(self):
        """A frame is lost at each; that is not "cut short"."""
        pytest.importorskip("av")
        tag = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(1 << 7)
        one = tag + recordings.mp3(self.LOUD[: 2 * 44_100], xing=True)
        clip = AudioClip(one * 30)
        assert len(heard(clip)) == pytest.approx(60 * 16_000, rel=0.03)

    @pytest.mark.parametrize("container", ["webm", "matroska", "mp4"])
    @pytest.mark.parametrize(("sound", "picture", "late"), [(3.0, 5.0, 0.0), (5.0, 3.0, 0.0), (3.0, 6.0, 2.0)])
    def test_pictures_longer_than_the_sound(self, container, sound, picture, late):
        """The sound's length counts, not the file's, and from where it begins."""
        pytest.importorskip("av")
        clip = AudioClip(recordings.film(container, sounds.noise(sound, rate=48_000), picture, late))
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(sound, abs=0.06)
        assert len(heard(clip)) == pytest.approx(sound * 16_000, abs=1_000)

    def test_the_length_of_a_long_file_is_not_counted_for_every_segment(self, tmp_path, monkeypatch):
        """Once it is known."""
        pytest.importorskip("av")
        from alm2vec_integrations.audio import ffmpeg, ogg, remembering

        monkeypatch.setattr(remembering, "_SETTLED_NS", -(10**18))  # a file's ctime cannot be set back
        counted, real = [], ffmpeg.FFmpegRecording._counted
        monkeypatch.setattr(ffmpeg.FFmpegRecording, "_counted", lambda self: counted.append(1) or real(self))
        walked, walk = [], ogg._comes_later
        monkeypatch.setattr(ogg, "_comes_later", lambda *args: walked.append(1) or walk(*args))
        for name, data in (
            ("x.mp3", recordings.mp3(self.LOUD, xing=False)),
            ("x.ogg", recordings.encode("ogg vorbis", 6.0) + b"trailing"),
        ):
            (tmp_path / name).write_bytes(data)
            for clip in segment(tmp_path / name, segment_seconds=2):
                assert len(heard(clip)) >= 32_000
        assert (len(counted), len(walked)) == (1, 1)

    def test_tags_before_and_after_an_mp3_are_not_audio(self):
        """ID3 at either end."""
        data = recordings.mp3(self.LOUD, xing=True)
        tag = b"ID3\x04\x00\x00" + bytes([0, 1, 0, 0]) + bytes(1 << 14)
        clip = AudioClip(tag + data + b"TAG" + bytes(125))
        assert measure(clip, NO_ROOTS).seconds == 12.0

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    def test_ogg_files_that_are_cut(self, name):
        """Their last page does not end the stream."""
        data = recordings.encode(name, seconds=10.0)
        for share in (0.3, 0.7, 0.99):
            with pytest.raises(AudioError, match="is cut short|is damaged"):  # noqa: RUF043
                decode(AudioClip(recordings.encode(name, 3.0) + data[: int(len(data) * share)]), NO_ROOTS)
            with pytest.raises(AudioError, match="is cut short|is damaged"):  # noqa: RUF043
                decode(AudioClip(data[: int(len(data) * share)]), NO_ROOTS)

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    def test_a_cut_ogg_file_before_a_whole_one(self, name):
        """Is refused, though it hides where the other begins."""
        one, other = recordings.encode(name, 5.0), recordings.encode(name, 3.0)
        with pytest.raises(AudioError, match="is damaged|is cut short"):  # noqa: RUF043
            decode(AudioClip(one[:-2000] + other), NO_ROOTS)

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    def test_what_follows_an_ogg_file_is_not_its_end(self, name):
        """Bytes of something else do not cut it short."""
        data = recordings.encode(name)
        np.testing.assert_array_equal(heard(AudioClip(data + bytes(200_000))), heard(AudioClip(data)))

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    @pytest.mark.parametrize("order", ["ab", "aa", "aba"])
    def test_ogg_files_one_after_the_other(self, name, order):
        """As internet radio has them, or with one twice: all of it is heard."""
        pytest.importorskip("av")
        files = {"a": recordings.encode(name, seconds=3.0), "b": recordings.encode(name, seconds=4.0)}
        seconds = sum({"a": 3, "b": 4}[one] for one in order)
        data = b"".join(files[one] for one in order)
        clip = AudioClip(data)
        assert measure(clip, NO_ROOTS).seconds == pytest.approx(seconds, abs=0.2)
        whole = heard(clip)
        assert len(whole) == pytest.approx(seconds * 16_000, abs=3_200)
        for start in (0.5, 2.5, 4.5):
            part = heard(AudioClip(data, start_seconds=start, end_seconds=start + 1))
            assert apart(part, whole[round(start * 16_000) :][:16_000]) < 1e-3

    def test_without_pyav_they_are_refused(self, monkeypatch):
        """With what it needs."""
        monkeypatch.setattr("alm2vec_integrations._extras.has", lambda module: False)
        with pytest.raises(AudioError, match=r"an MP3 without a Xing header .* needs PyAV, pip install"):
            decode(AudioClip(recordings.mp3(self.LOUD, xing=False)), NO_ROOTS)
