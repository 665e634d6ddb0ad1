"""What importing the package costs, in processes of their own."""

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "soundfile", "soxr", "sentence_transformers", "llama_index", "haystack"}


def loaded_by(statement):
    script = f"import sys\n{statement}\nprint(' '.join(sorted(set(m.partition('.')[0] for m in sys.modules))))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import alm2vec_integrations, alm2vec_integrations.langchain",
        "from alm2vec_integrations import *",
        "import alm2vec_integrations.cli",
        "from alm2vec_integrations.langchain import ALM2VecEmbeddings; ALM2VecEmbeddings(model='alm2vec-tiny')",
        "from alm2vec_integrations.langchain import ALM2VecRetriever, ALM2VecReranker, to_audio_block",
    ],
)
def test_importing_and_constructing_stay_light(statement):
    """Neither torch nor transformers, nor any framework that was not asked for."""
    assert loaded_by(statement) & HEAVY == set()


def test_langchains_text_splitters_wait_for_a_loader():
    """Some versions of them load torch."""
    assert "langchain_text_splitters" not in loaded_by(
        "import alm2vec_integrations.langchain as door; door.ALM2VecRetriever, door.ALM2VecReranker"
    )


def test_llama_index_stays_light():
    """Of all that is heavy, LlamaIndex alone."""
    pytest.importorskip("llama_index.core")
    statement = (
        "from alm2vec_integrations.llama_index import ALM2VecEmbedding, ALM2VecRerank, AudioNodeParser; "
        "ALM2VecRerank(embed_model=ALM2VecEmbedding(model_name='alm2vec-tiny')); AudioNodeParser(segment_seconds=20)"
    )
    assert loaded_by("import alm2vec_integrations.llama_index") & HEAVY == {"llama_index"}
    assert loaded_by(statement) & HEAVY == {"llama_index"}


def test_the_check_can_fail():
    """Using the model does load torch."""
    assert "torch" in loaded_by(
        "import warnings; warnings.simplefilter('ignore')\n"
        "from alm2vec_integrations import ALM2VecEncoder; ALM2VecEncoder('alm2vec-tiny').dim"
    )


@pytest.mark.parametrize(
    ("framework", "door", "extra"),
    [
        ("haystack", "haystack", "haystack"),
        ("langchain_core", "langchain", "langchain"),
        ("llama_index.core", "llama_index", "llama-index"),
        ("sentence_transformers", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_a_missing_framework_names_its_extra(framework, door, extra):
    """The message is the command to run."""
    script = (
        f"import sys; sys.modules[{framework!r}] = None\n"
        "import importlib.util; find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name == {framework!r} else find(name, *a)\n"
        f"import alm2vec_integrations.{door}"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=False)
    assert f"pip install 'alm2vec-integrations[{extra}]'" in done.stderr


def test_every_public_name_resolves():
    """The lazy table and the modules agree."""
    import alm2vec_integrations

    for name in alm2vec_integrations.__all__:
        assert getattr(alm2vec_integrations, name) is not None
    assert set(alm2vec_integrations.__all__) <= set(dir(alm2vec_integrations))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = alm2vec_integrations.nonsense
