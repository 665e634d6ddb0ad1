import os
import tempfile
import warnings
from pathlib import Path

import fake_checkpoints
import pytest
import sounds
import torch
from sound_library import write_library

from alm2vec_integrations import ALM2VecEncoder, ALM2VecWarning, _extras

# Real clips are not part of the project; tests that use them skip where they are absent.
REAL_CLIPS = Path(os.environ.get("ALM2VEC_TEST_AUDIO", Path(__file__).resolve().parents[1].parent / "shared" / "audio"))


def pytest_configure(config):
    """No network, and neither the user's caches nor the user's token; read when the hub library is imported."""
    home = tempfile.TemporaryDirectory(prefix="alm2vec-tests-")
    config.add_cleanup(home.cleanup)
    os.environ.update({"HF_HOME": home.name, "HF_HUB_OFFLINE": "1", "HAYSTACK_TELEMETRY_ENABLED": "false"})
    if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):  # which share the processor, and so do their processes
        threads = max(1, (os.cpu_count() or 1) // int(workers))
        os.environ["OMP_NUM_THREADS"] = str(threads)
        torch.set_num_threads(threads)
    for name in ("HF_TOKEN", "HF_HUB_CACHE", "HF_MODULES_CACHE", "TRANSFORMERS_CACHE"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def _fresh_fake():
    fake_checkpoints.reset()


@pytest.fixture
def fake(tmp_path):
    """A folder with the strict fake model."""
    return fake_checkpoints.write(tmp_path / "fake")


@pytest.fixture
def encoder(fake):
    """An encoder on the strict fake model."""
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as encoder:
        yield encoder


@pytest.fixture(scope="session")
def tiny():
    """An encoder on the bundled checkpoint, kept for the whole session."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ALM2VecWarning)
        with ALM2VecEncoder("alm2vec-tiny", device="cpu") as encoder:
            assert encoder.dim
            yield encoder


@pytest.fixture
def clips(tmp_path):
    """Ten WAV files of different sound and length."""
    return [sounds.write(tmp_path / "clips" / f"{i}.wav", sounds.noise(0.5 + 0.13 * i, seed=i)) for i in range(10)]


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """Recordings that the bundled model knows, named by what is in them; "dog over rain.flac" is the first."""
    return write_library(tmp_path_factory.mktemp("library"))


@pytest.fixture(scope="session")
def real_clips():
    paths = sorted(REAL_CLIPS.glob("*.flac"))
    if not paths:
        pytest.skip(f"no real clips in {REAL_CLIPS}")
    return paths


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


def pytest_ignore_collect(collection_path):
    """Tests of a door are skipped whole where its framework is not installed."""
    needs = {
        "test_haystack": "haystack",
        "test_langchain": "langchain_core",
        "test_llama_index": "llama_index.core",
        "test_sentence_transformers": "sentence_transformers",
    }
    door = next((module for start, module in needs.items() if collection_path.name.startswith(start)), None)
    return True if door and not _extras.has(door) else None
