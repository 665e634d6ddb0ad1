"""Every form that a recording comes in, and every limit on it."""

import io
import types
import warnings
from pathlib import Path

import bad_inputs
import numpy as np
import pytest
import recordings
import soundfile
import sounds
import torch

from alm2vec_integrations import ALM2VecEncoder, ALM2VecWarning, AudioClip, AudioError, InputError, segment
from alm2vec_integrations.audio import limits
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()
PAGE = Path(__file__).parents[1] / "docs" / "audio.md"


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


class TestSamples:
    @pytest.mark.parametrize("kind", ["numpy", "torch"])
    @pytest.mark.parametrize("channels", ["first", "last"])
    def test_two_dimensions(self, kind, channels):
        """Which axis holds the channels is said, and they are averaged."""
        samples = np.stack([sounds.tone(0.5, 440.0), sounds.noise(0.5)])
        source = samples if channels == "first" else np.ascontiguousarray(samples.T)
        if kind == "torch":
            source = torch.from_numpy(source)
        expected = heard(AudioClip(samples.mean(axis=0), sampling_rate=16_000))
        np.testing.assert_array_equal(heard(AudioClip(source, sampling_rate=16_000, channels=channels)), expected)

    @pytest.mark.parametrize(
        ("shape", "channels", "message"),
        [
            ((2, 100), None, 'need channels="first" or "last"'),
            ((100,), "first", "belongs to two-dimensional"),
            ((2, 2, 100), "first", "one axis, or two"),
            ((2, 100), "middle", 'must be "first", "last" or None'),
        ],
    )
    def test_what_is_not_said_is_not_guessed(self, shape, channels, message):
        """At once."""
        with pytest.raises(InputError, match=message):
            AudioClip(np.zeros(shape, np.float32), sampling_rate=16_000, channels=channels)

    def test_the_wrong_axis_is_too_many_channels(self):
        """Ten thousand of them."""
        with pytest.raises(AudioError, match="has 10000 channels, and 32 is the most"):
            heard(AudioClip(np.zeros((2, 10_000), np.float32), sampling_rate=16_000, channels="last"))

    def test_rows_of_datasets(self, tmp_path):
        """Decoded or not, with a path, bytes, or both."""
        samples = sounds.noise(0.5)
        path = sounds.write(tmp_path / "a.wav", samples, subtype="FLOAT")
        expected = heard(AudioClip(path))
        rows = [
            {"path": str(path), "bytes": None},
            {"path": "elsewhere/a.wav", "bytes": path.read_bytes()},
            {"bytes": path.read_bytes(), "path": None},
            {"path": str(path), "array": samples, "sampling_rate": 16_000},
            {"array": samples, "sampling_rate": 16_000},
        ]
        for row in rows:
            np.testing.assert_array_equal(heard(AudioClip(row)), expected)
        assert AudioClip(rows[1]).name == "elsewhere/a.wav"
        assert AudioClip(samples, sampling_rate=16_000, label="call 7").name == "call 7"

    @pytest.mark.parametrize(
        "rate", [np.array(16_000), np.int64(16_000), torch.tensor(16_000), np.array(16_000, np.uint16)], ids=repr
    )
    def test_rates_as_datasets_formats_them(self, rate):
        """A row "with_format" numpy or torch has an array or tensor without axes."""
        samples = sounds.noise(0.5)
        expected = heard(AudioClip(samples, sampling_rate=16_000))
        for clip in (
            AudioClip({"array": samples, "sampling_rate": rate}),
            AudioClip({"array": torch.from_numpy(samples), "sampling_rate": rate, "path": "x.wav"}),
            AudioClip({"array": samples, "sampling_rate": rate}, sampling_rate=16_000),
            AudioClip(samples, sampling_rate=rate),
        ):
            assert type(clip.sampling_rate) is int
            np.testing.assert_array_equal(heard(clip), expected)
        with pytest.raises(InputError, match="sampling_rate=8000, but the dict says"):
            AudioClip({"array": samples, "sampling_rate": rate}, sampling_rate=8_000)

    @pytest.mark.parametrize(
        "rate",
        [np.array([16_000]), torch.tensor([16_000]), np.array(16_000.0), torch.tensor(16_000.0), np.array(True),
         torch.tensor(True), np.True_, np.array("16000"), torch.tensor(1, device="meta")],
        ids=repr,
    )  # fmt: skip
    def test_rates_that_are_none(self, rate):
        """Of several, of a fraction, of truth."""
        with pytest.raises(InputError, match="samples need sampling_rate, a whole number of Hz"):
            AudioClip(sounds.noise(0.5), sampling_rate=rate)

    @pytest.mark.filterwarnings("ignore")  # of torch's own for sparse and quantized tensors
    @pytest.mark.parametrize(
        ("make", "message"),
        [
            (lambda x: x.to("meta"), "meta device, which holds shapes and no values: load them first"),
            (lambda x: x.to_sparse(), r"layout torch.sparse_coo, .*: pass x\.to_dense\(\)"),
            (lambda x: x[None].to_sparse_csr(), r"layout torch.sparse_csr, .*: pass x\.to_dense\(\)"),
            (lambda x: torch.quantize_per_tensor(x, 0.01, 0, torch.qint8), r"quantized: pass x\.dequantize\(\)"),
            (lambda x: (x + 1j * x).conj(), r"samples are torch.complex64, and sound is real: pass x\.real"),
            (lambda x: (x + 1j * x).numpy(), r"samples are complex64, and sound is real: pass x\.real"),
        ],
    )
    def test_tensors_without_samples_to_read(self, make, message):
        """Are named, at once, with what to do."""
        source = make(torch.from_numpy(sounds.noise(0.5)))
        channels = "first" if source.ndim == 2 else None
        with pytest.raises(InputError, match=message):
            AudioClip(source, sampling_rate=16_000, channels=channels)

    def test_views_of_tensors(self):
        """What is negated when it is read is read negated."""
        spectrum = torch.complex(torch.from_numpy(sounds.noise(0.5)), torch.from_numpy(sounds.tone(0.5)))
        view = spectrum.conj().imag
        assert view.is_neg()
        np.testing.assert_array_equal(
            heard(AudioClip(view, sampling_rate=16_000)), heard(AudioClip(-sounds.tone(0.5), sampling_rate=16_000))
        )

    def test_masked_samples(self):
        """Say nothing of what is heard where they are."""
        samples = np.ma.masked_array(sounds.noise(0.5), mask=True)
        with pytest.raises(InputError, match=r"are masked, .*: fill them, x\.filled\(0\)"):
            AudioClip(samples, sampling_rate=16_000)
        assert not heard(AudioClip(samples.filled(0), sampling_rate=16_000)).any()

    @pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
    @pytest.mark.parametrize("shape", [3, ("a",), None, (2.5,), "nested", "raises"])
    def test_shapes_that_are_none(self, shape):
        """Of torch's nested tensors, and of other classes."""

        class Odd:
            dtype, ndim = np.dtype(np.float32), 1

            @property
            def shape(self):
                return shape if shape != "raises" else 1 / 0

        source = torch.nested.nested_tensor([torch.zeros(3), torch.zeros(4)]) if shape == "nested" else Odd()
        with pytest.raises(InputError, match="without a shape of whole numbers: pass each recording in it by itself"):
            AudioClip(source, sampling_rate=16_000)

    @pytest.mark.parametrize("rate", [2**31, 10**400], ids=["2**31", "10**400"])
    def test_rates_past_all_measure(self, rate):
        """Are no float, and fill no line."""
        with pytest.raises(AudioError, match=r"has (2.*e\+09|far too many) samples a second, and 1000 to 500000 are"):
            heard(AudioClip(np.zeros(9, np.float32), sampling_rate=rate))

    @pytest.mark.parametrize(
        "row",
        [
            {},
            {"path": None, "bytes": None},
            {"path": None, "bytes": "x.wav"},
            {"path": "x.wav", "bytes": 3},
            {"array": [0.0]},
            {"audio": "x.wav"},
            {"path": "x", "rate": 1},
        ],
    )
    def test_other_dicts(self, row):
        """Are refused."""
        with pytest.raises(InputError):
            AudioClip(row)

    def test_a_decoder(self, monkeypatch):
        """By what it does: torchcodec's cannot be had everywhere."""
        samples = np.stack([sounds.noise(2.0, rate=8_000), sounds.tone(2.0, 440.0, 8_000)])

        class Decoder:
            metadata = types.SimpleNamespace(
                sample_rate=8_000, num_channels=2, duration_seconds=None, duration_seconds_from_header=2.0,
                begin_stream_seconds=None,
            )  # fmt: skip

            def __init__(self):
                self.asked = []

            def get_samples_played_in_range(self, start_seconds=0.0, stop_seconds=None):
                self.asked.append((start_seconds, stop_seconds))
                data = samples[:, round(start_seconds * 8_000) : round(stop_seconds * 8_000)]
                return types.SimpleNamespace(data=torch.from_numpy(data), sample_rate=8_000)

        decoder = Decoder()
        clip = AudioClip(decoder, start_seconds=0.5, end_seconds=1.5)
        assert measure(clip, NO_ROOTS).seconds == 1.0
        expected = heard(AudioClip(samples[:, 4_000:12_000], sampling_rate=8_000, channels="first"))
        np.testing.assert_array_equal(heard(clip), expected)
        assert decoder.asked == [(0.5, 1.5)]
        whole = heard(AudioClip(Decoder()))
        monkeypatch.setattr("alm2vec_integrations.audio.samples._MOST_VALUES", 2**13)
        monkeypatch.setattr("alm2vec_integrations.audio.samples.BLOCK_FRAMES", 2**12)
        decoder.asked.clear()
        np.testing.assert_array_equal(heard(AudioClip(decoder)), whole)
        assert decoder.asked == [(0.0, 0.512), (0.512, 1.024), (1.024, 1.536), (1.536, 2.0)]
        decoder.metadata = types.SimpleNamespace(sample_rate=None)
        with pytest.raises(AudioError, match="does not say its rate"):
            heard(clip)


class TestLimits:
    @pytest.mark.parametrize("rate", [4, 999, 768_000])
    def test_rates(self, tmp_path, rate):
        """Nothing is recorded at them; the header is wrong, or it is no sound."""
        path = sounds.write(tmp_path / "x.wav", np.zeros(1000, np.float32), rate)
        with pytest.raises(AudioError, match=f"has {rate} samples a second, and 1000 to 500000 are taken"):
            measure(AudioClip(path), NO_ROOTS)

    @pytest.mark.parametrize(("channels", "taken"), [(32, True), (33, False), (64, False)])
    def test_channels(self, tmp_path, channels, taken):
        """As many as microphone arrays have."""
        path = sounds.write(tmp_path / "x.wav", np.zeros((4000, channels), np.float32))
        if taken:
            assert not decode(AudioClip(path), NO_ROOTS).any()
        else:
            with pytest.raises(AudioError, match=f"has {channels} channels, and 32 is the most: mix it down"):
                measure(AudioClip(path), NO_ROOTS)

    def test_bytes(self, tmp_path):
        """Of a file that is mostly holes."""
        path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
        with path.open("r+b") as file:
            file.truncate(limits.MAX_BYTES + 1)
        with path.open("rb") as file:
            for work, source in ((measure, path), (decode, path), (measure, file), (decode, file)):
                with pytest.raises(AudioError, match=r"is 16\.0 GiB large, and 16 GiB is the most"):
                    work(AudioClip(source), NO_ROOTS)

    @pytest.mark.parametrize("step", [999, 1001, 4096])
    @pytest.mark.parametrize("name", ["wav 16", "flac 16", "ogg vorbis", "mp3", "m4a", "webm"])
    def test_file_objects_that_give_less_than_was_asked(self, name, step):
        """As raw ones may."""
        pytest.importorskip("av")

        class Raw(io.RawIOBase):
            def __init__(self, data):
                self._data = io.BytesIO(data)

            def readable(self):
                return True

            def seekable(self):
                return True

            def seek(self, *place):
                return self._data.seek(*place)

            def readinto(self, buffer):
                return self._data.readinto(memoryview(buffer)[:step])

        data = recordings.encode(name)
        np.testing.assert_array_equal(heard(AudioClip(Raw(data))), heard(AudioClip(data)))

    def test_the_name_of_a_file_object_is_no_format(self, tmp_path):
        """Soundfile would take one called x.raw for raw samples."""
        path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
        path.rename(tmp_path / "x.raw")
        with (tmp_path / "x.raw").open("rb") as file:
            assert len(heard(AudioClip(file))) == 16_000

    def test_a_header_that_claims_more(self, tmp_path):
        """Two gigabytes, of which a second is there."""
        import struct

        path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
        data = bytearray(path.read_bytes())
        data[4:8], data[40:44] = struct.pack("<I", 2_000_000_036), struct.pack("<I", 2_000_000_000)
        path.write_bytes(data)
        with pytest.raises(AudioError, match="is cut short: its header promises 2000000000 bytes"):
            decode(AudioClip(path), NO_ROOTS)

    def test_memory_does_not_follow_channels_and_rate(self, tmp_path):
        """Two minutes of 32 channels at 96 kHz are 1.5 GB of float32, and are never there at once."""
        import tracemalloc

        path = tmp_path / "wide.wav"
        with soundfile.SoundFile(path, "w", 96_000, 32, "PCM_U8", format="WAV") as file:
            for _ in range(120):
                file.write(np.zeros((96_000, 32), np.int16))
        tracemalloc.start()
        assert len(decode(AudioClip(path), NO_ROOTS)) == 120 * 16_000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 60_000_000

    def test_past_the_training_is_said_once(self, encoder, tmp_path):
        """With what to do; for each model once."""
        long = [AudioClip(sounds.write(tmp_path / f"{i}.wav", sounds.noise(31.0), subtype="PCM_U8")) for i in range(2)]
        with pytest.warns(ALM2VecWarning, match=r"lasts 31 s .* up to 30 s: cut .*segment") as caught:
            encoder.encode(long, task="document")
        assert len([w for w in caught if issubclass(w.category, ALM2VecWarning)]) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encoder.encode(long, task="document")

    @pytest.mark.filterwarnings("error")
    def test_thirty_seconds_are_no_remark(self, encoder, tmp_path):
        """Nothing is said of what the model was trained on."""
        encoder.encode(AudioClip(sounds.write(tmp_path / "x.wav", sounds.noise(30.0))), task="document")


def test_the_digest_of_a_long_file_is_not_read_for_every_segment(tmp_path, monkeypatch):
    """Once it is known; and again when the file changes."""
    import os

    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import access, remembering

    path = sounds.write(tmp_path / "x.wav", sounds.noise(5.0))
    os.utime(path, (1_000_000_000, 1_000_000_000))
    monkeypatch.setattr(remembering, "_SETTLED_NS", -(10**18))  # ctime cannot be set back
    reference = AudioClip(path).reference()
    hashed, real = [], access.hashlib.sha256
    monkeypatch.setattr(access.hashlib, "sha256", lambda *data: hashed.append(1) or real(*data))
    policy = AccessPolicy(tmp_path)
    for clip in segment(AudioClip.from_reference(reference), segment_seconds=1, allowed_audio_roots=tmp_path):
        decode(clip, policy)
    assert hashed == []
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AudioAccessError, match="changed"):
        decode(AudioClip.from_reference(reference), policy)


class TestBadInputs:
    @pytest.mark.filterwarnings("ignore:.*is embedded whole")
    @pytest.mark.parametrize("name", bad_inputs.CASES)
    def test_what_it_says(self, tmp_path, fake, name):
        """What the table in docs/audio.md says that it says."""
        pytest.importorskip("av")  # without it, other words for two of them
        with ALM2VecEncoder(
            fake, trust_remote_code=True, device="cpu", allowed_audio_roots=tmp_path / "x" / "inside"
        ) as encoder:
            (tmp_path / "x").mkdir()
            said = bad_inputs.said(tmp_path / "x", encoder, name)
        assert f"| {name} | {said} |" in PAGE.read_text(encoding="utf-8").splitlines()

    def test_index_and_source_are_named(self):
        """In every line: where in the list, or that it was at once; and of what."""
        rows = [
            line.strip("| ").split(" | ", 1) for line in PAGE.read_text(encoding="utf-8").splitlines() if "|" in line
        ]
        table = {row[0]: row[1] for row in rows if row[0] in bad_inputs.CASES}
        assert set(table) == set(bad_inputs.CASES)
        assert all(
            said.startswith(("item 1, ", "item 1: an item is", "at once: ", "nothing: ")) for said in table.values()
        )


def test_a_digest_is_not_kept_of_a_file_that_just_changed(tmp_path, monkeypatch):
    """Another change in the same tick of the clock would not show."""
    import time

    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import remembering

    path = sounds.write(tmp_path / "x.wav", sounds.noise(1.0))
    now = time.time_ns()
    monkeypatch.setattr(remembering, "_state", lambda file: (1, 2, 3, now, now))
    clip = AudioClip(path, digest=AudioClip(path).reference()[-16:])
    decode(clip, NO_ROOTS)
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(AudioAccessError, match="changed"):
        decode(clip, NO_ROOTS)


def test_a_file_that_is_exchanged_while_it_is_opened(tmp_path, monkeypatch):
    """What is open must be what was allowed."""
    from alm2vec_integrations import AudioAccessError
    from alm2vec_integrations.audio import access

    inside = sounds.write(tmp_path / "in" / "x.wav", sounds.noise(1.0))
    outside = sounds.write(tmp_path / "out.wav", sounds.noise(1.0))
    clip, policy, real = AudioClip.from_reference(f"audio:{inside}"), AccessPolicy(tmp_path / "in"), access.open_file
    decode(clip, policy)
    monkeypatch.setattr(access, "open_file", lambda path: real(str(outside)))
    with pytest.raises(AudioAccessError, match="changed while it was opened"):
        decode(clip, policy)
