"""Recordings as arrays, tensors, rows of datasets and decoders."""

import types

import numpy as np
import pytest
import sounds
import torch

from alm2vec_integrations import AudioClip, AudioError, InputError
from alm2vec_integrations.audio.access import AccessPolicy
from alm2vec_integrations.audio.decoding import decode, measure

NO_ROOTS = AccessPolicy()


def heard(clip):
    return decode(clip, NO_ROOTS) / 32768.0


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
