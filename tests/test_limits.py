"""Every limit on recordings, and what bad ones say."""

import io
import warnings
from pathlib import Path

import bad_inputs
import numpy as np
import pytest
import recordings
import soundfile
import sounds

from alm2vec_integrations import ALM2VecEncoder, ALM2VecWarning, AudioClip, AudioError
from alm2vec_integrations.audio import limits
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()
PAGE = Path(__file__).parents[1] / "docs" / "audio.md"


def heard(clip):
    return decode(clip, NO_ROOTS) / 32768.0


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


@pytest.mark.parametrize("when", ["open", "decode"])
def test_memory_that_runs_out_in_ffmpeg(monkeypatch, when):
    """Is no fault of the file's; PyAV's error is one of FFmpeg's kind too."""
    av = pytest.importorskip("av")
    from alm2vec_integrations.audio import ffmpeg

    clip = AudioClip(recordings.encode("m4a", 1.0))

    def fails(*_, **__):
        raise av.error.MemoryError(12, "Cannot allocate memory")

    if when == "open":
        monkeypatch.setattr(av, "open", fails)
    else:
        monkeypatch.setattr(ffmpeg.FFmpegRecording, "_packets", fails)
    with pytest.raises(MemoryError):
        decode(clip, AccessPolicy())
