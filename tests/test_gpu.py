"""The encoder on a CUDA device."""

import numpy as np
import pytest
import sounds

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText

pytestmark = pytest.mark.gpu


def test_vectors_are_those_of_the_cpu(tiny, tmp_path):
    """Mixed items, float32 on both sides."""
    clips = [AudioClip(sounds.write(tmp_path / f"{i}.wav", sounds.noise(0.5 + 2 * i, seed=i))) for i in range(8)]
    items = [*clips, *(f"text {i}" for i in range(8)), *(AudioText("what?", clip) for clip in clips)]
    with ALM2VecEncoder("alm2vec-tiny", dtype="float32") as encoder:
        assert encoder.load_report.device.startswith("cuda")
        on_gpu = encoder.encode(items, task="query")
        alone = np.stack([encoder.encode(item, task="query") for item in items])
    np.testing.assert_allclose(on_gpu, tiny.encode(items, task="query"), rtol=0, atol=1e-3)
    np.testing.assert_allclose(on_gpu, alone, rtol=0, atol=1e-4)


def test_bfloat16_by_default(tiny, tmp_path):
    """With the front-end in float32, and vectors close to those in float32."""
    import torch

    clips = [AudioClip(sounds.write(tmp_path / f"{i}.wav", sounds.noise(0.5 + 2 * i, seed=i))) for i in range(4)]
    items = [*clips, "text", *(AudioText("what?", clip) for clip in clips)]
    with ALM2VecEncoder("alm2vec-tiny") as encoder:
        report, model = encoder.load_report, encoder._acquire().loaded().model
        assert (report.dtype, report.warnings) == ("bfloat16", ())
        assert report.drift < 1e-3
        assert model.decoder.layers[0].mlp.up_proj.weight.dtype is torch.bfloat16
        assert {b.dtype for b in model.audio_encoder.front_end.buffers() if b.is_floating_point()} == {torch.float32}
        cosines = (encoder.encode(items, task="query") * tiny.encode(items, task="query")).sum(axis=1)
    assert 1 - cosines.min() < 1e-3


def test_many_files_are_decoded_apart(tmp_path, monkeypatch):
    """By themselves, to the same vectors as in threads."""
    from alm2vec_integrations.audio import apart

    paths = [sounds.write(tmp_path / f"{i}.wav", sounds.noise(0.5 + 0.01 * i, seed=i)) for i in range(130)]
    started, real = [], apart._Process
    monkeypatch.setattr(apart, "_Process", lambda: started.append(1) or real())
    with ALM2VecEncoder("alm2vec-tiny") as encoder:
        found = encoder.encode([AudioClip(path) for path in paths], task="document")
        assert started
        monkeypatch.setenv(apart.VARIABLE, "threads")
        expected = encoder.encode([AudioClip(path) for path in paths], task="document")
    np.testing.assert_array_equal(found, expected)


def test_closing_gives_the_memory_back(tmp_path):
    """All of it, without waiting for the garbage collector."""
    import torch

    from alm2vec_integrations.tiny.writer import BUNDLED, Shape, write_checkpoint

    text = {**BUNDLED.text_config, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
    folder = write_checkpoint(tmp_path / "larger", Shape(512, 8, 8, 2048, text))
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    encoder = ALM2VecEncoder(folder, trust_remote_code=True, device="cuda")
    encoder.encode(AudioClip(sounds.noise(5.0), sampling_rate=16_000), task="query")
    assert torch.cuda.memory_allocated() - before > 100_000_000
    encoder.close()
    assert torch.cuda.memory_allocated() - before < 20_000_000


def test_memory_that_really_runs_out(tmp_path, caplog):
    """Under a cap on the device's memory: nothing is lost, and what was tried is in the log."""
    import torch

    from alm2vec_integrations.tiny.writer import BUNDLED, Shape, write_checkpoint

    text = {
        **BUNDLED.text_config,
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_hidden_layers": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
    }
    folder = write_checkpoint(tmp_path / "larger", Shape(512, 8, 8, 2048, text))
    clips = [AudioClip(sounds.noise(25.0, seed=i), sampling_rate=16_000) for i in range(64)]
    keywords = {"trust_remote_code": True, "device": "cuda", "dtype": "float32", "max_batch_seconds": 9999}
    with ALM2VecEncoder(folder, max_batch_items=64, **keywords) as encoder:
        alone = np.stack([encoder.encode(clip, task="document") for clip in clips])
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        encoder.encode(clips[:8], task="document")
        cap = 1.5 * torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(cap / torch.cuda.get_device_properties(0).total_memory)
        try:
            together = encoder.encode(clips, task="document")
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
    assert "ran out of memory with 64 items; trying again in halves" in caplog.text
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-4)
