"""A recording is heard to its end, or refused with what to do: nothing of it is left out in silence."""

import io
import struct

import numpy as np
import pytest
import recordings
import soundfile
import sounds

from alm2vec_integrations import AudioClip, AudioError, segment
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()
RATE = 44_100


def seconds_heard(data):
    """How long it is found to be, and how much comes out."""
    clip = AudioClip(data)
    return measure(clip, NO_ROOTS).seconds, len(decode(clip, NO_ROOTS)) / 16_000


def refused(data, match):
    with pytest.raises(AudioError, match=match):
        seconds_heard(data)
    with pytest.raises(AudioError, match=match):
        list(segment(AudioClip(data)))


def flac(samples, *, told=True, rate=RATE):
    """A FLAC, or one whose header leaves its length open, as where it was written to a pipe."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    data = bytearray(file.getvalue())
    if not told:
        data[21] &= 0xF0
        data[22:26] = bytes(4)
    return bytes(data)


def wav(seconds=1.0, *, riff=None, data=None):
    """A WAV at 16 kHz that says other lengths than its own."""
    file = io.BytesIO()
    soundfile.write(file, sounds.noise(seconds), 16_000, format="WAV", subtype="PCM_16")
    written = bytearray(file.getvalue())
    for place, value in ((4, riff), (40, data)):
        if value is not None:
            written[place : place + 4] = struct.pack("<I", value)
    return bytes(written)


class TestMatroska:
    QUIET = np.concatenate([sounds.noise(3.0, rate=48_000), np.zeros(37 * 48_000, np.float32)])

    @pytest.mark.parametrize("codec", ["libopus", "aac", "flac", "libmp3lame", "pcm_s16le"])
    def test_live_recordings(self, codec):
        """Whose header does not say how long they are; a bit rate would be a guess, and milliseconds do not add up."""
        pytest.importorskip("av")
        data = recordings.of_ffmpeg(self.QUIET, 48_000, "matroska", codec, live="1")
        measured, heard = seconds_heard(data)
        assert measured == pytest.approx(40.0, abs=0.04)
        assert heard == pytest.approx(40.0, abs=0.03)
        assert heard >= 40.0 - 1e-3

    @pytest.mark.parametrize("codec", ["wavpack", "alac"])
    @pytest.mark.parametrize("live", ["0", "1"])
    def test_packets_that_do_not_say_how_long_they_are(self, codec, live):
        """Of which the last would be left out."""
        pytest.importorskip("av")
        data = recordings.of_ffmpeg(sounds.noise(3.0, rate=48_000), 48_000, "matroska", codec, live=live)
        assert seconds_heard(data) == (pytest.approx(3.0, abs=0.0015), 3.0)

    @pytest.mark.parametrize("name", ["webm", "mka"])
    @pytest.mark.parametrize("tag", [b"00:00:02.500000000", b"00:00:00.000000000", b"no time at all 123"])
    def test_a_header_that_counts_too_little(self, name, tag):
        """Of the file, or of the stream, or of both: what there is is heard."""
        pytest.importorskip("av")
        data = recordings.encode(name, 5.0)
        for both in (True, False):
            changed = bytearray(data)
            place = changed.index(b"\x44\x89\x88") + 3
            changed[place : place + 8] = struct.pack(">d", 2500.0)
            if both:
                place = changed.index(b"00:00:05.0")
                changed[place : place + 18] = tag
            assert seconds_heard(bytes(changed)) == (pytest.approx(5.0, abs=0.01), pytest.approx(5.0, abs=0.001))

    def test_live_recordings_that_were_joined(self):
        """Their clock begins again."""
        pytest.importorskip("av")
        one, other = (
            recordings.of_ffmpeg(sounds.noise(s, rate=48_000), 48_000, "webm", "libopus", live="1") for s in (2.0, 3.0)
        )
        refused(one + other, "has a clock that goes back.*convert it to WAV or FLAC first")
        refused(other + one, "has a clock that goes back")

    @pytest.mark.parametrize("name", ["webm", "mka", "m4a", "mp4 with pictures", "mov, lossless"])
    def test_a_byte_less(self, name):
        """Is seen, however little of the sound it is."""
        pytest.importorskip("av")
        data = recordings.encode(name, 5.0)
        for length in (len(data) - 1, len(data) - 100, int(0.99 * len(data)), int(0.95 * len(data)), len(data) // 2):
            refused(data[:length], "is cut short: its header promises")

    @pytest.mark.parametrize("name", ["webm", "mka", "m4a", "mp4 with pictures"])
    def test_joined(self, name):
        """FFmpeg hears the first."""
        pytest.importorskip("av")
        refused(recordings.encode(name, 2.0) + recordings.encode(name, 3.0), "convert it to WAV or FLAC first")


class TestOpus:
    """Whose decoder gives 48 kHz, whatever was encoded."""

    @pytest.mark.parametrize("container", ["webm", "matroska", "mp4", "ogg"])
    @pytest.mark.parametrize("rate", [8_000, 16_000, 24_000, 48_000])
    def test_opus_of_recordings_at_other_rates(self, rate, container):
        """Begins where it began."""
        pytest.importorskip("av")
        samples = np.zeros(2 * rate, np.float32)
        samples[: rate // 25] = samples[rate : rate + rate // 25] = sounds.noise(0.04, rate=rate)
        data = recordings.of_ffmpeg(samples, rate, container, "libopus")
        heard = np.abs(decode(AudioClip(data), NO_ROOTS).astype(float)) > 1500
        assert len(heard) == pytest.approx(32_000, abs=32)
        assert np.argmax(heard) < 100
        assert np.argmax(heard[8_000:]) == pytest.approx(8_000, abs=100)


class TestMP4:
    @pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "dash"])
    def test_fragments(self, flags):
        """As streaming has them: the header does not say how long all of it is."""
        pytest.importorskip("av")
        samples = sounds.noise(12.0, rate=RATE)
        data = recordings.of_ffmpeg(samples, RATE, "mp4", "aac", movflags=flags, frag_duration="1000000")
        assert seconds_heard(data) == pytest.approx((12.0, 12.0), abs=0.06)

    @pytest.mark.parametrize("name", ["m4a", "mov, lossless", "mp4 with pictures"])
    @pytest.mark.parametrize("duration", [0, 1, 100_000, 0xFFFFFFFF])
    def test_a_header_that_counts_wrongly(self, name, duration):
        """Beside tables that count right: what they count is heard."""
        pytest.importorskip("av")
        data = bytearray(recordings.encode(name, 5.0))
        place = data.index(b"mdhd")
        while place > 0:
            data[place + 20 : place + 24] = struct.pack(">I", duration)
            place = data.find(b"mdhd", place + 1)
        assert seconds_heard(bytes(data)) == (5.0, 5.0)

    @pytest.mark.parametrize("flags", ["frag_keyframe+empty_moov", "dash", None])
    def test_a_part_of_opus(self, flags):
        """Begins where it does in the whole, though in fragments the codec's delay is on the clock."""
        pytest.importorskip("av")
        samples = recordings.chirp(12.0, 48_000, 1)[:, 0]
        options = {"movflags": flags, "frag_duration": "1000000"} if flags else {}
        data = recordings.of_ffmpeg(samples, 48_000, "mp4", "libopus", **options)
        assert seconds_heard(data) == (12.0, 12.0)
        whole = decode(AudioClip(data), NO_ROOTS) / 32768
        expected = recordings.chirp(12.0, 16_000, 1)[:, 0]
        assert np.abs(whole - expected)[400:-400].max() < 0.08
        for part in segment(AudioClip(data), segment_seconds=2.5):
            place = whole[round(part.start_seconds * 16_000) :]
            heard = decode(part, NO_ROOTS) / 32768
            assert np.abs(heard - place[: len(heard)])[200:-200].max() < 1e-2

    @pytest.mark.parametrize("container", ["mp4", "webm", "matroska"])
    def test_a_part_of_a_film_whose_sound_begins_late(self, container):
        """Is the same as in the whole."""
        pytest.importorskip("av")
        data = recordings.film(container, recordings.chirp(6.0, 48_000, 1)[:, 0], 8.0, 2.0)
        whole = decode(AudioClip(data), NO_ROOTS) / 32768
        part = decode(AudioClip(data, start_seconds=3, end_seconds=5), NO_ROOTS) / 32768
        shifts = (0,) if container == "mp4" else range(-16, 17)
        places = [whole[48_000 + shift :][:32_000] for shift in shifts]
        assert min(np.abs(part - place)[200:-200].max() for place in places) < 1e-2

    def test_an_index_of_more_than_there_is(self, monkeypatch):
        """Is refused before FFmpeg makes room for it."""
        av = pytest.importorskip("av")
        data = bytearray(recordings.encode("m4a", 1.0))
        place = data.index(b"stsz")
        data[place + 8 : place + 16] = struct.pack(">II", 1, 30_000_000)
        monkeypatch.setattr(av, "open", lambda *_, **__: pytest.fail("opened"))
        refused(bytes(data), "its index counts 30000000 bytes of samples, and it has")


class TestWAV:
    @pytest.mark.parametrize(
        ("lengths", "left"),
        [
            ({"riff": 3236, "data": 3200}, 28_800),
            ({"data": 3200}, 28_800),
            ({"riff": 0, "data": 0}, 32_000),
            ({"riff": 8, "data": 0}, 32_000),
            ({"data": 0}, 32_000),
        ],
    )
    def test_a_header_that_counts_too_little(self, lengths, left):
        """Past 4 GiB 32 bits are too few; a recorder that dies leaves 0."""
        refused(wav(**lengths), rf"has {left} bytes behind the \d+ bytes of samples.*sox --ignore-length")

    def test_more_than_four_gigabytes(self, tmp_path):
        """Whose length is what is left of it in 32 bits."""
        path = tmp_path / "x.wav"
        count = 5_000_000_000
        path.write_bytes(wav(0.0, riff=(count + 36) % 2**32, data=count % 2**32))
        with path.open("r+b") as file:
            file.truncate(44 + count)
        refused(path, "has 4294967296 bytes behind the 705032704 bytes of samples")

    @pytest.mark.parametrize(
        "chunk", [b"", b"LIST\x04\0\0\0INFO", b"id3 \x03\0\0\0abc\0", b"bext\x02\0\0\0abJUNK\0\0\0\0"]
    )
    def test_chunks_behind_the_samples(self, chunk):
        """Are not samples."""
        assert seconds_heard(wav() + chunk) == (1.0, 1.0)

    @pytest.mark.parametrize("info", [26, 64])
    def test_samples_without_their_padding(self, info):
        """An odd number of bytes, and the next chunk right behind them, whatever the length of that looks like."""
        samples = io.BytesIO()
        soundfile.write(samples, sounds.noise(1.0)[:15_999], 16_000, format="WAV", subtype="PCM_U8")
        data = samples.getvalue()
        place = data.index(b"data") + 8
        assert int.from_bytes(data[place - 4 : place], "little") == 15_999
        chunk = b"LIST" + struct.pack("<I", info) + b"INFO" + bytes(info - 4)
        for padding in (b"", b"\0"):
            assert seconds_heard(data[: place + 15_999] + padding + chunk)[0] == 15_999 / 16_000
            refused(data[: place + 15_999] + padding + wav(), "bytes behind the 15999 bytes of samples")

    @pytest.mark.parametrize("name", ["wav 16", "wav u8", "rf64", "w64", "aiff", "au", "caf"])
    def test_zeros_behind_the_samples(self, name):
        """As where a block was filled up; but not where nothing or little is counted before them."""
        data = recordings.encode(name, 1.0)
        expected = decode(AudioClip(data), NO_ROOTS)
        for count in (8, 512, 2**16):
            np.testing.assert_array_equal(decode(AudioClip(data + bytes(count)), NO_ROOTS), expected)
        refused(data + bytes(2**16 + 1000), r"has \d+ bytes behind the")
        refused(data + bytes(511) + b"\1", "has 512 bytes behind the")

    @pytest.mark.parametrize("mark", [b"levl", b"fact", b"junk"])
    def test_chunks_behind_the_samples_of_a_w64(self, tmp_path, mark):
        """Which libsndfile takes for samples."""
        data = bytearray(recordings.encode("w64", 1.0))
        data += mark + b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a" + struct.pack("<Q", 40) + bytes(range(16))
        data[16:24] = struct.pack("<Q", len(data))
        (tmp_path / "x.w64").write_bytes(data)
        for source in (bytes(data), tmp_path / "x.w64"):
            assert seconds_heard(source) == (1.0, 1.0)

    def test_zeros_are_not_all_there_is(self):
        """A recorder that died before it wrote how long they are."""
        file = io.BytesIO()
        soundfile.write(file, np.zeros(16_000, np.float32), 16_000, format="WAV", subtype="PCM_16")
        data = bytearray(file.getvalue())
        data[40:44] = bytes(4)
        refused(bytes(data), "has 32000 bytes behind the 0 bytes of samples")

    @pytest.mark.parametrize("length", [0x7FFFF000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
    def test_from_a_pipe(self, length):
        """The largest numbers mean that the length was not known; what is there is all."""
        assert seconds_heard(wav(riff=length, data=length)) == (1.0, 1.0)

    @pytest.mark.parametrize("name", ["wav 16", "wav float", "rf64", "w64", "aiff", "au", "caf"])
    def test_joined(self, name):
        """The first one's header speaks of itself."""
        refused(recordings.encode(name, 1.0) + recordings.encode(name, 2.0), r"has \d+ bytes behind the")

    @pytest.mark.parametrize("name", ["wav 16", "rf64", "w64", "aiff", "au", "caf"])
    def test_a_frame_less(self, name):
        """Is seen."""
        data = recordings.encode(name, 1.0)
        refused(data[:-4] if name != "wav float" else data[:-8], r"is cut short: its header promises \d+ bytes|damaged")


class TestFLAC:
    LOUD, SILENT = sounds.noise(10.0, rate=RATE), np.zeros(10 * RATE, np.float32)

    @pytest.mark.parametrize("told", [True, False])
    def test_joined(self, told):
        """Whatever their lengths, and however little room one takes: libsndfile hears the first."""
        loud, silent, longer = (
            flac(self.LOUD, told=told),
            flac(self.SILENT, told=told),
            flac(sounds.noise(20.0, rate=RATE)),
        )
        for parts in (
            [loud, longer], [longer, loud], [loud] * 2, [loud] * 9, [silent, loud], [loud, silent], [silent] * 20,
        ):  # fmt: skip
            refused(b"".join(parts), "is several FLAC files joined")

    @pytest.mark.parametrize("samples", [LOUD, SILENT, LOUD[:3000], LOUD[: 3 * 4096], LOUD.reshape(-1, 2)])
    @pytest.mark.parametrize("told", [True, False])
    def test_alone(self, samples, told):
        """Heard whole, sample by sample, also in parts."""
        data, plain = flac(samples, told=told), AudioClip(flac(samples))
        seconds = len(samples) / RATE
        assert measure(AudioClip(data), NO_ROOTS).seconds == seconds
        np.testing.assert_array_equal(decode(AudioClip(data), NO_ROOTS), decode(plain, NO_ROOTS))
        parts = [decode(part, NO_ROOTS) for part in segment(AudioClip(data), segment_seconds=1)]
        plains = [decode(part, NO_ROOTS) for part in segment(plain, segment_seconds=1)]
        assert all(np.array_equal(one, other) for one, other in zip(parts, plains, strict=True))

    def test_from_ffmpeg(self):
        """Whose encoder has blocks of another length."""
        pytest.importorskip("av")
        data = recordings.of_ffmpeg(self.LOUD, RATE, "flac", "flac")
        assert seconds_heard(data) == (10.0, 10.0)
        refused(data * 20, "is several FLAC files joined")

    def test_tags(self):
        """Before and after it, and room for some in it."""
        tag = b"ID3\x04\x00\x00" + bytes([0, 0, 1, 0]) + bytes(1 << 7)
        data = flac(self.LOUD)
        room = b"\x01" + (200_000).to_bytes(3) + bytes(200_000)
        assert seconds_heard(tag + data + b"TAG" + bytes(125)) == (10.0, 10.0)
        assert seconds_heard(data[:42] + room + data[42:]) == (10.0, 10.0)

    @pytest.mark.parametrize("share", [0.3, 0.9, 0.98])
    def test_cut(self, share):
        """Is seen before anything is decoded."""
        data = flac(self.LOUD)
        refused(data[: int(share * len(data))], r"is cut short: its header promises 441000 frames, \d+ are there")


class TestOgg:
    def test_another_codec(self):
        """FLAC in Ogg, cut or not, takes another program."""
        pytest.importorskip("av")
        data = recordings.of_ffmpeg(sounds.noise(3.0, rate=RATE), RATE, "ogg", "flac")
        refused(data, "convert it to WAV or FLAC first")
        refused(data[: len(data) // 2], "is cut short")

    def test_a_part_in_the_last_page(self):
        """By itself libsndfile finds another place."""
        clip = AudioClip(recordings.encode("ogg vorbis", 3.0))
        whole = decode(clip, NO_ROOTS) / 32768
        part = decode(AudioClip(clip.source, start_seconds=2.25, end_seconds=3.0), NO_ROOTS) / 32768
        assert np.abs(part[100:-100] - whole[36_100:-100]).max() < 1e-3

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    def test_joined_ones_are_opened_where_a_part_lies(self, monkeypatch, name):
        """A second of many hours decodes a second, and what comes before its place in a page."""
        data = recordings.encode(name, 3.0) * 20
        read, real = [], soundfile.SoundFile.read

        def count(self, *args, **keywords):
            block = real(self, *args, **keywords)
            read.append(len(block))
            return block

        monkeypatch.setattr(soundfile.SoundFile, "read", count)
        assert measure(AudioClip(data), NO_ROOTS).seconds == 60.0
        assert read == []
        assert len(decode(AudioClip(data, start_seconds=31.0, end_seconds=32.0), NO_ROOTS)) == 16_000
        assert sum(read) < 3 * recordings.rate_of(name)

    @pytest.mark.parametrize("name", ["ogg vorbis", "opus"])
    def test_a_hole(self, name):
        """Pages that are missing, or something between them."""
        data = recordings.encode(name, 10.0)
        pages = [place for place in range(len(data)) if data[place : place + 4] == b"OggS"]
        middle = pages[len(pages) // 2]
        refused(data[:middle] + b"something else" + data[middle:], "is damaged")

    def test_joined_without_pyav(self, monkeypatch):
        """It is not needed."""
        monkeypatch.setattr("alm2vec_integrations._extras.has", lambda module: False)
        assert seconds_heard(recordings.encode("opus", 3.0) * 2) == (6.0, 6.0)

    def test_what_only_looks_like_pages(self, monkeypatch):
        """Ends the search: no more than a few reads for ten megabytes."""
        from alm2vec_integrations.audio import ogg

        class Counting(io.BytesIO):
            reads = 0

            def read(self, *count):
                self.reads += 1
                return super().read(*count)

        file = Counting(b"OggS" * 2_500_000)
        assert ogg.ogg_links(file, "x") == []
        file = Counting(recordings.encode("opus", 1.0) + b"OggS" * 2_500_000)
        assert len(ogg.ogg_links(file, "x")) == 1
        assert file.reads < 50


def slow_mp3(seconds):
    """Kilobytes for seconds."""
    return recordings.mp3(sounds.noise(seconds, rate=8_000), rate=8_000, xing=True, mode="CONSTANT")


class TestMP3:
    @pytest.mark.parametrize("between", [b"", bytes(500), b"LYRICSBEGIN" + b"x" * 100 + b"000120LYRICS200", b"x" * 300])
    @pytest.mark.parametrize("seconds", [1.0, 3.0])
    def test_joined_with_something_between(self, between, seconds):
        """However short the second is, it is heard, or all is refused."""
        pytest.importorskip("av")
        one, two = slow_mp3(10.0), slow_mp3(seconds)
        try:
            measured, heard = seconds_heard(one + between + two)
        except AudioError as error:
            assert "is damaged" in error.reason  # noqa: PT017
        else:
            assert min(measured, heard) >= 10.0 + seconds

    @pytest.mark.parametrize(
        "tag", [b"LYRICSBEGIN" + b"x" * 100 + b"000120LYRICS200", b"x" * 3000, b"TAG" + bytes(125)]
    )
    def test_something_behind(self, tag):
        """That is no other recording is passed over."""
        assert measure(AudioClip(slow_mp3(5.0) + tag), NO_ROOTS).seconds == 5.0


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mpegts", "aac"), ("mpegts", "mp2"), ("mpeg", "mp2"), ("flv", "libmp3lame"), ("avi", "mp2"), ("ac3", "ac3"),
        ("eac3", "eac3"), ("tta", "tta"), ("wv", "wavpack"), ("wav", "g722"), ("wav", "libmp3lame"), ("amr", None),
    ],
)  # fmt: skip
def test_formats_that_are_not_taken(container, codec):
    """FFmpeg would open them; how long they are it would guess."""
    pytest.importorskip("av")
    if codec is None:
        data = b"#!AMR\n" + (b"\x3c" + bytes(31)) * 500
    else:
        rate = 16_000 if codec == "g722" else RATE
        data = recordings.of_ffmpeg(sounds.noise(3.0, rate=rate), rate, container, codec)
    refused(data, "is not audio of a kind that is taken, or damaged: if it is audio, convert it to WAV or FLAC first")
