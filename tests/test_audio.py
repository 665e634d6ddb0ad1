"""From a recording to the samples that the model is handed."""

import io
import os
import struct
import wave
from pathlib import Path, PureWindowsPath

import fake_checkpoints
import numpy as np
import pytest
import soundfile
import sounds

from alm2vec_integrations import ALM2VecEncoder, AudioAccessError, AudioClip, AudioError, InputError
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import SAMPLING_RATE, decode, measure


def read_wav(path):
    with wave.open(str(path), "rb") as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")


@pytest.fixture
def handed_over(encoder):
    """A function from a clip to the samples in the file that the model was given."""

    def hand_over(clip):
        taken = []
        fake_checkpoints.on_encode = lambda model, keywords: taken.append(read_wav(keywords["audio"][0]))
        assert encoder.dim
        encoder.encode(clip, task="document")
        return taken[-1]

    def skip_text(model, keywords):
        if "audio" in keywords:
            return None
        return fake_checkpoints.vectors(keywords)

    assert encoder.dim
    fake_checkpoints.on_encode = skip_text
    return hand_over


def test_16_khz_mono_pcm16_passes_bit_for_bit(handed_over, tmp_path):
    """Nothing is done to what already has the form, full scale included."""
    samples = np.random.default_rng(0).integers(-32768, 32768, 8000).astype(np.int16)
    samples[:2] = -32768, 32767
    path = tmp_path / "exact.wav"
    soundfile.write(path, samples, 16_000, subtype="PCM_16")
    np.testing.assert_array_equal(handed_over(AudioClip(path)), samples)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_any_rate_and_channel_count(tmp_path, suffix, rate, channels):
    """A tone stays the same tone: as long, as loud and as high."""
    samples = np.repeat(sounds.tone(1.0, 440.0, rate)[:, None], channels, axis=1)
    path = sounds.write(tmp_path / f"tone.{suffix}", samples, rate)
    decoded = decode(AudioClip(path), AccessPolicy()) / 32768.0
    assert len(decoded) == pytest.approx(16_000, abs=2)
    middle = slice(2000, 14000)
    np.testing.assert_allclose(decoded[middle], sounds.tone(1.0, 440.0, 16_000)[middle], atol=2e-3)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE"])
def test_any_sample_format(tmp_path, subtype):
    """Integers and floats of any width mean the same sound."""
    path = sounds.write(tmp_path / "tone.wav", sounds.tone(0.5), subtype=subtype)
    expected = np.rint(sounds.tone(0.5) * 32768)
    np.testing.assert_allclose(
        decode(AudioClip(path), AccessPolicy()), expected, atol=257 if subtype == "PCM_U8" else 1
    )


def test_channels_are_averaged(tmp_path):
    """Down-mixing is the mean, so that opposite channels cancel."""
    samples = np.stack([sounds.tone(0.5), -sounds.tone(0.5)], axis=1)
    assert not decode(AudioClip(sounds.write(tmp_path / "x.wav", samples)), AccessPolicy()).any()


def test_the_cut_is_made_at_the_source_rate(handed_over, tmp_path):
    """A cut equals the same frames written to a file of their own, for every way to say it."""
    rate, samples = 44_100, sounds.noise(3.0, rate=44_100)
    whole = sounds.write(tmp_path / "whole.flac", samples, rate)
    cases = [((0.5, 1.75), slice(22050, 77175)), ((None, 1.0), slice(0, 44100)), ((2.2, None), slice(97020, None))]
    for (start, end), frames in cases:
        part = sounds.write(tmp_path / "part.flac", samples[frames], rate)
        cut = handed_over(AudioClip(whole, start_seconds=start, end_seconds=end))
        np.testing.assert_array_equal(cut, handed_over(AudioClip(part)))


def test_what_16_khz_cannot_hold_is_filtered_out(tmp_path):
    """A tone above 8 kHz must not come back as another tone."""
    path = sounds.write(tmp_path / "high.wav", sounds.tone(1.0, 12_000.0, 44_100), 44_100)
    decoded = decode(AudioClip(path), AccessPolicy())[2000:14000]
    assert np.abs(decoded).max() <= 2


def test_a_file_name_that_is_not_text(encoder, tmp_path):
    """Bytes that are no UTF-8, as old archives have them."""
    path = sounds.write(tmp_path / "x.wav", sounds.noise(0.5))
    strange = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    expected = encoder.encode(AudioClip(path), task="document")
    path.rename(strange)
    clip = AudioClip.from_reference(AudioClip(strange).reference())
    with ALM2VecEncoder(encoder.model, trust_remote_code=True, allowed_audio_roots=[tmp_path]) as opened:
        np.testing.assert_array_equal(opened.encode(clip, task="document"), expected)


def test_loud_float_samples_are_clipped(tmp_path):
    """Beyond full scale is full scale, and never wraps around."""
    path = sounds.write(tmp_path / "loud.wav", 4 * sounds.tone(0.5), subtype="FLOAT")
    decoded = decode(AudioClip(path), AccessPolicy())
    assert (decoded.max(), decoded.min()) == (32767, -32768)
    assert decoded[np.argmax(sounds.tone(0.5))] == 32767


def test_short_clips_are_padded_with_silence(handed_over, tmp_path):
    """Under 0.2 s the model has nothing to hear."""
    path = sounds.write(tmp_path / "short.wav", sounds.tone(0.05))
    samples = handed_over(AudioClip(path))
    assert len(samples) == 3200
    assert samples[:800].any()
    assert not samples[800:].any()


class TestSources:
    def test_every_source_gives_the_same_samples(self, handed_over, tmp_path):
        """Path, text path, bytes, file object, array and tensor."""
        import torch

        path = sounds.write(tmp_path / "x.wav", sounds.noise(0.7, rate=22_050), 22_050)
        samples, rate = soundfile.read(path, dtype="float32")
        expected = handed_over(AudioClip(path))
        with path.open("rb") as file:
            file.read(100)  # the position does not matter
            for source in (str(path), path.read_bytes(), bytearray(path.read_bytes()), file):
                np.testing.assert_array_equal(handed_over(AudioClip(source)), expected)
        pcm16 = soundfile.read(path, dtype="int16")[0]
        for source in (
            samples,
            samples.astype(np.float64),
            torch.from_numpy(samples),
            pcm16,
            torch.from_numpy(samples).double(),
        ):
            np.testing.assert_array_equal(handed_over(AudioClip(source, sampling_rate=rate)), expected)

    def test_the_length_is_known_from_the_header(self, tmp_path):
        """Seconds of the part, at the source's rate."""
        path = sounds.write(tmp_path / "x.wav", sounds.noise(2.0, rate=8_000), 8_000)
        assert measure(AudioClip(path), AccessPolicy()).seconds == 2.0
        assert measure(AudioClip(path, start_seconds=0.5), AccessPolicy()).seconds == 1.5
        assert measure(AudioClip(np.zeros(2000, np.float32), sampling_rate=1000), AccessPolicy()).seconds == 2.0

    @pytest.mark.parametrize(
        ("source", "keywords", "message"),
        [
            ("", {}, "non-empty path"),
            (None, {}, "NoneType"),
            (3, {}, "int"),
            (["a.wav"], {}, "list"),
            (io.StringIO("RIFF....WAVE"), {}, "opened as text"),
            (b"", {}, "zero bytes"),
            ("https://example.org/a.wav", {}, "download"),
            ("file:///etc/passwd", {}, "download"),
            ("audio:a.wav", {}, "from_reference"),
            ("a\0.wav", {}, "NUL"),
            ("a.wav", {"sampling_rate": 16_000}, "sampling_rate"),
            (np.zeros(10, np.float32), {}, "sampling_rate"),
            (np.zeros(10, np.float32), {"sampling_rate": 0}, "sampling_rate"),
            (np.zeros(10, np.float32), {"sampling_rate": 16000.0}, "sampling_rate"),
            (np.zeros((2, 10), np.float32), {"sampling_rate": 16_000}, "which axis holds them is not guessed"),
            ("a.wav", {"start_seconds": -1}, "start_seconds"),
            ("a.wav", {"start_seconds": "1"}, "start_seconds"),
            ("a.wav", {"start_seconds": True}, "start_seconds"),
            ("a.wav", {"end_seconds": float("nan")}, "end_seconds"),
            ("a.wav", {"end_seconds": float("inf")}, "end_seconds"),
            ("a.wav", {"start_seconds": 2, "end_seconds": 2}, "greater"),
            ("a.wav", {"end_seconds": 0}, "greater"),
        ],
    )
    def test_what_is_wrong_at_once_is_said_at_once(self, source, keywords, message):
        """Before any file is opened."""
        with pytest.raises(InputError, match=message):
            AudioClip(source, **keywords)


class TestURLs:
    @pytest.mark.parametrize(
        "path",
        [
            "http://e/x.wav", Path("http://e/x.wav"), Path("HTTPS://e/x.wav"), PureWindowsPath("http://e/x.wav"),
            Path("s3://bucket/x.wav"), Path("file:///etc/passwd"), "hf://datasets/x.wav", "zip://x.wav",
        ],
    )  # fmt: skip
    def test_are_refused(self, path):
        """Also those of which pathlib took a slash away."""
        with pytest.raises(InputError, match="URLs are not opened: download the file first and pass its path"):
            AudioClip(path)

    @pytest.mark.parametrize(
        "path",
        [
            "C://Users/x.wav", "C:/x.wav", "c:\\x.wav", PureWindowsPath("C:/x.wav"), "12:/x.wav", "http:x.wav",
            Path("Session 1:/x.wav"), Path("take:/x.wav"), Path("a/http:/x.wav"), "x://y.wav",
        ],
    )  # fmt: skip
    def test_are_told_from_paths(self, path):
        """One letter is a drive, and folders may have a colon."""
        assert AudioClip(path).path == os.fspath(path)


class TestBrokenAudio:
    def expect(self, encoder, clip, message):
        with pytest.raises(AudioError, match=message) as caught:
            encoder.encode(["fine", clip], task="document")
        assert caught.value.index == 1
        assert str(caught.value).startswith("item 1, ")
        assert caught.value.source == clip.name

    def test_missing(self, encoder, tmp_path):
        """Named, with the system's words."""
        self.expect(encoder, AudioClip(tmp_path / "missing.wav"), "No such file")

    def test_directory(self, encoder, tmp_path):
        """A folder is not a file."""
        self.expect(encoder, AudioClip(tmp_path), "directory")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
    def test_fifo(self, encoder, tmp_path):
        """Opening one would wait for a writer."""
        os.mkfifo(tmp_path / "fifo.wav")
        self.expect(encoder, AudioClip(tmp_path / "fifo.wav"), "regular file")

    def test_text_named_wav(self, encoder, tmp_path):
        """The suffix does not make it audio."""
        path = tmp_path / "text.wav"
        path.write_text("hello " * 100)
        self.expect(encoder, AudioClip(path), "not audio")

    def test_zero_bytes(self, encoder, tmp_path):
        """An empty file."""
        path = tmp_path / "empty.wav"
        path.touch()
        self.expect(encoder, AudioClip(path), "is empty")

    def test_no_samples(self, encoder, tmp_path):
        """A header and nothing after it."""
        path = sounds.write(tmp_path / "silent.wav", np.zeros(0, np.float32))
        self.expect(encoder, AudioClip(path), "no samples")

    def test_truncated_flac(self, encoder, tmp_path):
        """The header promises more than the file holds."""
        path = sounds.write(tmp_path / "cut.flac", sounds.noise(2.0))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        self.expect(encoder, AudioClip(path), r"cut short|damaged")

    @pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"])
    def test_truncated(self, encoder, tmp_path, form):
        """Libsndfile would read what is there without a word, from a path, from bytes and from a file object."""
        path = tmp_path / "whole"
        soundfile.write(path, sounds.noise(3.0), 16_000, format=form, subtype="PCM_16")
        data = path.read_bytes()
        assert encoder.encode(AudioClip(path), task="document").any()
        path.write_bytes(data[: len(data) // 2])
        self.expect(encoder, AudioClip(path), "cut short")
        self.expect(encoder, AudioClip(path.read_bytes()), "cut short")
        with path.open("rb") as file:
            self.expect(encoder, AudioClip(file), "cut short")

    @pytest.mark.parametrize("subtype", ["GSM610", "IMA_ADPCM", "ULAW", "ALAW"])
    def test_telephony(self, encoder, tmp_path, subtype):
        """Codecs of phone systems, one of which cannot seek; parts of them too."""
        path = sounds.write(tmp_path / "call.wav", sounds.tone(2.0, rate=8_000), 8_000, subtype)
        whole = decode(AudioClip(path), AccessPolicy())
        part = decode(AudioClip(path, start_seconds=0.5, end_seconds=1.5), AccessPolicy())
        assert len(whole) == pytest.approx(32_000, abs=800)
        assert len(part) == pytest.approx(16_000, abs=2)
        np.testing.assert_allclose(part[2000:14000] / 32768, whole[10_000:22_000] / 32768, atol=0.02)

    @pytest.mark.parametrize("length", [0, 0xFFFFFFFF])
    def test_a_wav_of_unknown_length_is_read_to_its_end(self, encoder, tmp_path, length):
        """Programs that write to a pipe leave the length open."""
        path = sounds.write(tmp_path / "pipe.wav", sounds.noise(1.0))
        data = bytearray(path.read_bytes())
        data[40:44] = struct.pack("<I", length)
        whole = encoder.encode(AudioClip(path), task="document")
        path.write_bytes(data)
        if length:
            np.testing.assert_array_equal(encoder.encode(AudioClip(path), task="document"), whole)
        else:
            self.expect(encoder, AudioClip(path), "32000 bytes behind the 0 bytes of samples that its header counts")

    def test_longer_than_an_hour(self, encoder, tmp_path):
        """Said from the header, before anything is decoded; a part of it is fine."""
        path = sounds.write(tmp_path / "long.wav", np.zeros(3_601_000, np.float32), 1000, "PCM_U8")
        self.expect(encoder, AudioClip(path), "3600 s is the most")
        assert encoder.encode(AudioClip(path, end_seconds=1.0), task="document").any()

    def test_not_a_number(self, encoder, tmp_path):
        """NaN and infinity are errors, in files and in arrays."""
        samples = sounds.noise(0.5)
        samples[100] = np.nan
        self.expect(encoder, AudioClip(sounds.write(tmp_path / "nan.wav", samples, subtype="FLOAT")), "NaN")
        self.expect(encoder, AudioClip(samples, sampling_rate=16_000), "NaN")

    def test_past_the_end(self, encoder, clips):
        """Times outside the recording are not moved inside it without a word."""
        self.expect(encoder, AudioClip(clips[0], start_seconds=10), "lasts 0.5 s")
        self.expect(encoder, AudioClip(clips[0], end_seconds=10), "leave end_seconds out")

    def test_rounded_times_are_forgiven(self, encoder, clips):
        """An end that was rounded up by less than 10 ms is the end."""
        whole = encoder.encode(AudioClip(clips[0]), task="document")
        np.testing.assert_array_equal(encoder.encode(AudioClip(clips[0], end_seconds=0.505), task="document"), whole)

    def test_integers_of_unknown_scale(self, encoder):
        """Only int16 has one meaning."""
        self.expect(encoder, AudioClip(np.zeros(4000, np.int64), sampling_rate=16_000), "int64")

    def test_nothing_is_loaded_for_a_list_with_a_broken_header(self, fake, tmp_path):
        """Headers are read before gigabytes of weights."""
        encoder = ALM2VecEncoder(fake, trust_remote_code=True)
        with pytest.raises(AudioError):
            encoder.encode(AudioClip(tmp_path / "missing.wav"), task="document")
        assert fake_checkpoints.loads == []


class TestAccess:
    def test_links_in_a_circle(self, tmp_path):
        """In a reference, or in a root."""
        (tmp_path / "a").symlink_to(tmp_path / "b")
        (tmp_path / "b").symlink_to(tmp_path / "a")
        good = sounds.write(tmp_path / "good.wav", sounds.noise(1.0))
        for path, root in ((tmp_path / "a", tmp_path), (good, tmp_path / "a")):
            clip = AudioClip.from_reference(AudioClip(path).reference(digest=False))
            with pytest.raises(InputError, match=r"check its symbolic links|check the path|points outside"):
                decode(clip, AccessPolicy(root))

    def test_a_reference_needs_a_root(self, fake, clips):
        """Closed by default; a clip passed directly is exempt."""
        reference = AudioClip(clips[0]).reference()
        with ALM2VecEncoder(fake, trust_remote_code=True) as encoder:
            with pytest.raises(AudioAccessError, match=r"item 0.*allowed_audio_roots"):
                encoder.encode([AudioClip.from_reference(reference)], task="document")
            direct = encoder.encode(AudioClip(clips[0]), task="document")
        with ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent) as encoder:
            resolved = encoder.encode(AudioClip.from_reference(reference), task="document")
        np.testing.assert_array_equal(resolved, direct)

    def test_outside_the_roots(self, fake, clips, tmp_path):
        """Neither by `..`, nor by a link, nor by a sibling whose name begins alike."""
        secret = sounds.write(tmp_path / "clips-secret" / "s.wav", sounds.noise(0.5))
        link = clips[0].parent / "link.wav"
        link.symlink_to(secret)
        with ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=[clips[0].parent]) as encoder:
            for path in (secret, link, clips[0].parent / ".." / "clips-secret" / "s.wav", "/etc/passwd"):
                reference = AudioClip(path).reference(digest=False)
                with pytest.raises(AudioAccessError, match="outside"):
                    encoder.encode(AudioClip.from_reference(reference), task="document")

    def test_a_link_that_changes_while_the_list_is_encoded(self, fake, clips, tmp_path, monkeypatch):
        """What was inside when the list was checked may be outside when it is decoded."""
        outside = sounds.write(tmp_path / "outside.wav", sounds.noise(0.5, seed=99))
        link = clips[0].parent / "link.wav"
        link.symlink_to(clips[0])

        def swap_and_decode(clip, policy):
            link.unlink(missing_ok=True)
            link.symlink_to(outside)
            return decode(clip, policy)

        monkeypatch.setattr("alm2vec_integrations.audio.decoding.decode", swap_and_decode)
        clip = AudioClip.from_reference(AudioClip(link).reference(digest=False))
        encoder = ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=[clips[0].parent])
        with encoder, pytest.raises(AudioAccessError, match="outside"):
            encoder.encode(clip, task="query")

    def test_bytes_have_digests_too(self, encoder, clips):
        """And samples have none."""
        digest = AudioClip(clips[0]).reference()[-16:]
        data = clips[0].read_bytes()
        for form in (bytes, io.BytesIO):
            encoder.encode(AudioClip(form(data), digest=digest), task="document")
            with pytest.raises(AudioAccessError, match="changed"):
                encoder.encode(AudioClip(form(data + b"\0"), digest=digest), task="document")
        with pytest.raises(InputError, match="samples have none"):
            AudioClip(np.zeros(4000, np.float32), sampling_rate=16_000, digest=digest)
        for bad in ("ABCDEF0123456789", "12", 5):
            with pytest.raises(InputError, match="16 lower-case hex"):
                AudioClip(data, digest=bad)

    def test_changed_bytes(self, fake, clips):
        """The digest fixes what was meant."""
        reference = AudioClip(clips[0]).reference()
        clips[0].write_bytes(clips[1].read_bytes())
        with ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=[clips[0].parent]) as encoder:
            with pytest.raises(AudioAccessError, match="changed"):
                encoder.encode(AudioClip.from_reference(reference), task="document")
            assert encoder.encode(AudioClip(clips[0]), task="document").any()


def test_the_documented_rate():
    """What the model card's architecture takes."""
    assert SAMPLING_RATE == 16_000
