import warnings

import pytest
import sounds

from alm2vec_integrations import ALM2VecWarning


@pytest.fixture(scope="session")
def model(tiny):
    """The bundled checkpoint as a model of sentence-transformers."""
    from alm2vec_integrations.sentence_transformers import load

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ALM2VecWarning)
        return load("alm2vec-tiny", device="cpu")


@pytest.fixture
def wav(tmp_path):
    """Three seconds of noise at 16 kHz."""
    return sounds.write(tmp_path / "a.wav", sounds.noise(3.0, seed=1))
