"""What pipelines from YAML may run and say behind Haystack."""

import asyncio
import gc
from types import MappingProxyType

import fake_checkpoints
import pytest
from haystack import Document, Pipeline
from haystack.components.retrievers import InMemoryEmbeddingRetriever, TextEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.utils import ComponentDevice

from alm2vec_integrations import CheckpointError, InputError
from alm2vec_integrations.haystack import (
    ALM2VecDocumentEmbedder,
    ALM2VecQueryEmbedder,
    ALM2VecRanker,
    ALM2VecTextEmbedder,
)

CPU = ComponentDevice.from_str("cpu")
TOUCHING = """
from pathlib import Path
Path({sentinel!r}).touch()
"""


class TestTrust:
    """YAML may come from anyone, and its word for code that is run does not count."""

    @pytest.fixture
    def sentinel(self, tmp_path):
        return tmp_path / "the code was run"

    @pytest.fixture
    def cache(self, tmp_path, sentinel, monkeypatch):
        """A hub cache with somebody's repository, and somebody's proposal to a published one: they leave a trace."""
        for repository in ("models--someone--else", "models--cara-ai--ALM2Vec-FT"):
            code = TOUCHING.format(sentinel=str(sentinel)) + fake_checkpoints.CODE
            fake_checkpoints.write(tmp_path / "cache" / repository / "snapshots" / ("0" * 40), code)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        gc.collect()  # of an earlier test's pipelines, whose model would be shared and no code run

    PARAMETERS = MappingProxyType({
        "model": "someone/else", "revision": "0" * 40, "trust_remote_code": True, "local_files_only": True
    })  # fmt: skip

    def yaml(self, kind, **changed):
        pipeline = Pipeline()
        component = kind(**self.PARAMETERS | changed)
        if kind is ALM2VecTextEmbedder:
            retriever = InMemoryEmbeddingRetriever(InMemoryDocumentStore())
            component = TextEmbeddingRetriever(retriever=retriever, text_embedder=component)
        pipeline.add_component("it", component)
        return pipeline.dumps()

    CASES = (
        (ALM2VecTextEmbedder, {"query": "x"}),
        (ALM2VecQueryEmbedder, {"text": "x"}),
        (ALM2VecDocumentEmbedder, {"documents": [Document(content="x")]}),
        (ALM2VecRanker, {"query": "x", "documents": [Document(content="x")]}),
    )

    @pytest.mark.parametrize(("kind", "given"), CASES, ids=[kind.__name__ for kind, _ in CASES])
    def test_yaml_does_not_run_code(self, kind, given, cache, sentinel):
        """Nested, sync and async; what it says stays in it."""
        text = self.yaml(kind)
        assert "trust_remote_code: true" in text
        pipeline = Pipeline.loads(text)
        assert pipeline.dumps() == text
        with pytest.raises(Exception, match="its code is not trusted for that"):
            pipeline.run({"it": given})
        with pytest.raises(Exception, match="its code is not trusted for that"):
            asyncio.run(Pipeline.loads(text).run_async({"it": given}))
        with pytest.raises(CheckpointError, match="ALM2VEC_TRUSTED_REPOS"):
            pipeline.get_component("it").warm_up()
        assert not sentinel.exists()

    def test_python_does(self, cache, sentinel):
        """So the trace would be seen."""
        ALM2VecTextEmbedder(**self.PARAMETERS, progress_bar=False).run(text="x")
        assert sentinel.exists()

    def test_a_process_can_opt_in(self, cache, sentinel, monkeypatch):
        """To one repository at one revision."""
        text = self.yaml(ALM2VecQueryEmbedder)
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"someone/else@{'1' * 40}")
        with pytest.raises(Exception, match="its code is not trusted for that"):
            Pipeline.loads(text).run({"it": {"text": "x"}})
        assert not sentinel.exists()
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"someone/else@{'0' * 40}")
        assert Pipeline.loads(text).run({"it": {"text": "x"}})["it"]["embedding"]
        assert sentinel.exists()

    def test_a_revision_that_anyone_may_have_proposed(self, cache, sentinel):
        """Proposals to a published repository have commits there; what is published is on its main branch."""
        pipeline = Pipeline.loads(self.yaml(ALM2VecQueryEmbedder, model="cara-ai/ALM2Vec-FT", trust_remote_code=None))
        for _ in range(2):
            with pytest.raises(Exception, match=r"its revision '0000.*main branch"):
                pipeline.run({"it": {"text": "x"}})
        assert not sentinel.exists()

    @pytest.mark.parametrize(
        ("said", "message"),
        [
            ({"model_kwargs": {"attn_implementation": "someone/kernel"}}, r"\['attn_implementation'\]"),
            ({"model_kwargs": {"allow_all_kernels": True}}, r"\['allow_all_kernels'\]"),
            ({"model_kwargs": {"adapter_kwargs": {"revision": "x"}}}, r"\['adapter_kwargs'\]"),
            ({"verify": "off"}, "verify is 'off'"),
            ({"verify": "fast"}, "verify is 'fast'"),
        ],
        ids=str,
    )
    @pytest.mark.parametrize(("kind", "given"), CASES, ids=[kind.__name__ for kind, _ in CASES])
    def test_files_open_no_doors(self, kind, given, said, message, cache, sentinel, monkeypatch):
        """Not even of a checkpoint that is trusted: kernels and adapters come from elsewhere, and guards stay up."""
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"someone/else@{'0' * 40}")
        text = self.yaml(kind, **said)
        for loaded in (Pipeline.loads(text), Pipeline.loads(Pipeline.loads(text).dumps())):
            with pytest.raises(Exception, match=message):
                loaded.run({"it": given})
            with pytest.raises(InputError, match=message):
                loaded.get_component("it").warm_up()
        assert not sentinel.exists()

    def test_what_files_may_say(self, fake, monkeypatch):
        """Names of transformers' own reach the model."""
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", str(fake))
        component = ALM2VecQueryEmbedder(model=fake, model_kwargs={"attn_implementation": "eager"}, progress_bar=False)
        again = ALM2VecQueryEmbedder.from_dict(component.to_dict())
        assert again.run(text="x")["embedding"]
        assert again._encoder().module.config._attn_implementation == "eager"

    def test_a_process_can_opt_in_to_a_folder(self, fake, tmp_path, monkeypatch):
        """By its whole path; another folder stays refused, and the refusal says what to set."""
        pipeline = Pipeline()
        pipeline.add_component("it", ALM2VecQueryEmbedder(model=fake, device=CPU, progress_bar=False))
        text = pipeline.dumps()
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", str(tmp_path))
        with pytest.raises(Exception, match=f"set ALM2VEC_TRUSTED_REPOS={fake}"):
            Pipeline.loads(text).run({"it": {"text": "x"}})
        assert fake_checkpoints.loads == []
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"{tmp_path},{fake}")
        assert Pipeline.loads(text).run({"it": {"text": "x"}})["it"]["embedding"]

    def test_folders_are_not_trusted_either(self, fake):
        """Whoever writes YAML may be able to write a folder."""
        pipeline = Pipeline()
        pipeline.add_component("it", ALM2VecQueryEmbedder(model=fake, trust_remote_code=True))
        with pytest.raises(Exception, match="its code is not trusted for that"):
            Pipeline.loads(pipeline.dumps()).run({"it": {"text": "x"}})
        assert fake_checkpoints.loads == []
