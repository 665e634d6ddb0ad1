"""Folders from which sentence-transformers makes ALM2Vec: what they hold, whom they have run, and other tools' use."""

import copy
import json
import pickle
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from checkpoint_family import FAMILY, write
from sentence_transformers import SentenceTransformer

from alm2vec_integrations import (
    ALM2VecWarning,
    CheckpointError,
    InputError,
)
from alm2vec_integrations.checkpoint import handles
from alm2vec_integrations.sentence_transformers import ALM2VecModule, export, load
from alm2vec_integrations.tiny import FOLDER


def same(one, other):
    return np.array_equal(np.asarray(one), np.asarray(other))


class TestFolders:
    def test_a_pointer_names_and_holds_nothing(self, tmp_path, monkeypatch):
        """Neither weights nor code are touched."""
        monkeypatch.setattr(handles, "load", lambda configuration: pytest.fail("loaded"))
        folder = export("alm2vec-tiny", tmp_path / "p", strings="auto", dtype=torch.float32)
        assert json.loads((folder / "alm2vec.json").read_text()) == {
            "model": "alm2vec-tiny", "strings": "auto", "dtype": "float32",
        }  # fmt: skip
        assert sum(file.stat().st_size for file in folder.iterdir()) < 5_000
        assert not (folder / "config.json").exists()

    def test_the_commit_is_written_down(self, tmp_path, monkeypatch):
        cache = tmp_path / "hub" / "models--cara-ai--ALM2Vec-FT"
        (cache / "snapshots" / ("a" * 40)).mkdir(parents=True)
        (cache / "snapshots" / ("a" * 40) / "config.json").write_text((FOLDER / "config.json").read_text())
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text("a" * 40)
        folder = export("cara-ai/ALM2Vec-FT", tmp_path / "p", cache_dir=tmp_path / "hub", local_files_only=True)
        assert json.loads((folder / "alm2vec.json").read_text())["revision"] == "a" * 40
        with pytest.raises(CheckpointError, match="could not be fetched"):
            export("cara-ai/ALM2Vec-PT", tmp_path / "q", cache_dir=tmp_path / "hub", local_files_only=True)

    def test_the_model_card_names_what_is_on_the_hub(self, tmp_path, model):
        """And nothing that is not."""
        model.save_pretrained(str(tmp_path / "m"))
        assert "base_model" not in (tmp_path / "m" / "README.md").read_text()
        copied = tmp_path / "hub" / "models--cara-ai--ALM2Vec-FT"
        shutil.copytree(FOLDER, copied / "snapshots" / ("a" * 40))
        (copied / "refs").mkdir()
        (copied / "refs" / "main").write_text("a" * 40)
        load("cara-ai/ALM2Vec-FT", device="cpu", cache_dir=tmp_path / "hub").save_pretrained(str(tmp_path / "n"))
        assert "base_model: cara-ai/ALM2Vec-FT" in (tmp_path / "n" / "README.md").read_text()
        assert json.loads((tmp_path / "n" / "alm2vec.json").read_text())["revision"] == "a" * 40

    @pytest.mark.parametrize("saved", [False, True])
    def test_in_a_process_that_imports_only_the_library(self, tmp_path, model, wav, saved):
        folder = tmp_path / "m"
        if saved:
            model.save_pretrained(str(folder))
        else:
            export("alm2vec-tiny", folder)
        code = (
            "import sys; from sentence_transformers import SentenceTransformer\n"
            f"m = SentenceTransformer({str(folder)!r}, trust_remote_code=True, device='cpu')\n"
            f"v = m.encode_query([{{'audio': {str(wav)!r}, 'text': 'What?'}}])[0]\n"
            "print(v.tobytes().hex())"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
        expected = model.encode_query({"audio": str(wav), "text": "What?"})
        assert bytes.fromhex(done.stdout.split()[-1]) == expected.tobytes()

    def test_without_consent_nothing_is_imported(self, tmp_path):
        folder = export("alm2vec-tiny", tmp_path / "p")
        with pytest.raises(ValueError, match="trust_remote_code=True"):
            SentenceTransformer(str(folder), device="cpu")

    def test_consent_is_to_this_package_only(self, tmp_path):
        """Not to the code of whatever a folder names."""
        sentinel = tmp_path / "ran"
        unknown = write(tmp_path / "unknown", FAMILY["pure-torch filterbank, not stored"])
        code = unknown / "modeling_family.py"
        code.write_text(f"open({str(sentinel)!r}, 'w').close()\n" + code.read_text())
        folder = export(unknown, tmp_path / "p")
        with pytest.raises(CheckpointError, match="loading a checkpoint of this kind runs the Python code in it"):
            SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
        assert not sentinel.exists()
        vector = load(unknown, device="cpu", trust_remote_code=True).encode("a")
        assert sentinel.exists()
        # Trusted in Python, it is trusted in this process: a training puts back the best of its own checkpoints.
        assert same(SentenceTransformer(str(folder), trust_remote_code=True, device="cpu").encode("a"), vector)

    def test_consent_in_the_environment(self, tmp_path, monkeypatch):
        """Names a folder by its path, and no other."""
        unknown = write(tmp_path / "unknown", FAMILY["pure-torch filterbank, not stored"])
        folder = export(unknown, tmp_path / "p")
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", str(tmp_path))
        with pytest.raises(CheckpointError, match=f"set ALM2VEC_TRUSTED_REPOS={unknown}"):
            SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", str(unknown))
        assert len(SentenceTransformer(str(folder), trust_remote_code=True, device="cpu").encode("a"))

    @pytest.fixture
    def hub(self, tmp_path):
        """A cache with the published checkpoint, and what somebody proposed to change in it."""
        repository = tmp_path / "hub" / "models--cara-ai--ALM2Vec-FT"
        for commit in ("a" * 40, "b" * 40):
            shutil.copytree(FOLDER, repository / "snapshots" / commit)
        code = repository / "snapshots" / ("b" * 40) / "modeling_alm2vec_tiny.py"
        code.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n" + code.read_text())
        (repository / "refs" / "refs" / "pr").mkdir(parents=True)
        (repository / "refs" / "main").write_text("a" * 40)
        (repository / "refs" / "refs" / "pr" / "7").write_text("b" * 40)
        return tmp_path / "hub"

    @pytest.mark.parametrize("revision", ["refs/pr/7", "b" * 40])
    @pytest.mark.parametrize("local", [True, False])
    def test_what_was_only_proposed_to_a_trusted_repository(self, hub, tmp_path, monkeypatch, revision, local):
        """A file cannot have it run; the main branch's commit, and one that the environment names, are run."""
        folder = export("cara-ai/ALM2Vec-FT", tmp_path / "p", cache_dir=hub, local_files_only=True)
        arguments = {"trust_remote_code": True, "device": "cpu", "cache_folder": str(hub), "local_files_only": local}
        assert SentenceTransformer(str(folder), **arguments).encode("a").shape == (160,)
        settings = json.loads((folder / "alm2vec.json").read_text())
        (folder / "alm2vec.json").write_text(json.dumps(settings | {"revision": revision}))
        with pytest.raises(CheckpointError, match="on the main branch"):
            SentenceTransformer(str(folder), **arguments)
        assert not (tmp_path / "ran").exists()
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"cara-ai/ALM2Vec-FT@{revision}")
        SentenceTransformer(str(folder), **arguments)
        assert (tmp_path / "ran").exists()

    def test_an_earlier_commit_of_the_main_branch(self, hub, tmp_path, monkeypatch):
        """Asked of the hub."""
        import huggingface_hub

        listed = [type("Commit", (), {"commit_id": commit})() for commit in ("a" * 40, "b" * 40)]
        monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_commits", lambda self, repo: listed)
        folder = export("cara-ai/ALM2Vec-FT", tmp_path / "p", cache_dir=hub, revision="b" * 40, local_files_only=True)
        SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", cache_folder=str(hub))
        assert (tmp_path / "ran").exists()

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_copies_keep_the_commit(self, hub, tmp_path, copied):
        model = load("cara-ai/ALM2Vec-FT", device="cpu", cache_dir=hub)
        copied(model).save_pretrained(str(tmp_path / "m"))
        assert json.loads((tmp_path / "m" / "alm2vec.json").read_text())["revision"] == "a" * 40
        assert copy.deepcopy(model).config is model.config

    def test_a_trainings_own_checkpoints(self, hub, tmp_path):
        """Are opened without arguments: by the means that this process had, and by none in another."""
        model = load("cara-ai/ALM2Vec-FT", device="cpu", cache_dir=hub, local_files_only=True)
        model.save_pretrained(str(tmp_path / "best"))
        again = SentenceTransformer(str(tmp_path / "best"), trust_remote_code=True, device="cpu")
        assert same(again.encode("a"), model.encode("a"))
        code = (
            "from sentence_transformers import SentenceTransformer\n"
            f"SentenceTransformer({str(tmp_path / 'best')!r}, trust_remote_code=True, device='cpu')"
        )
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
        assert "CheckpointUnavailableError" in done.stderr

    def test_places_that_do_not_fit(self, tmp_path):
        """A file to write a folder to, a pointer to be pointed to."""
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="file is a file: name a folder"):
            export("alm2vec-tiny", tmp_path / "file")
        folder = export("alm2vec-tiny", tmp_path / "p")
        for opened in (load, lambda model: export(model, tmp_path / "q")):
            with pytest.raises(InputError, match=r"points to a checkpoint and is none: open it with SentenceTr"):
                opened(folder)

    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (None, "there is no alm2vec.json that names a model"),
            ({"strings": "text"}, "there is no alm2vec.json that names a model"),
            ({"model": "alm2vec-tiny", "horizon": 3}, "settings that this version does not know: .'horizon'."),
            ({"model": "alm2vec-tiny", "strings": "guess"}, "strings must be one of"),
            ({"model": "alm2vec-tiny", "revision": "main"}, "has no revisions"),
            ({"model": "alm2vec-tiny", "model_kwargs": [1]}, "model_kwargs in alm2vec.json must be an object"),
            ({"model": "alm2vec-tiny", "model_kwargs": {"attn_implementation": "a/b"}}, "what a file may not say"),
            (
                {"model": "alm2vec-tiny", "model_kwargs": {"use_kernels": True}},
                "what a file may not say: .'use_kernels'",
            ),
            ("{broken", "is not JSON"),
        ],
    )
    def test_folders_that_are_none(self, tmp_path, content, says):
        folder = export("alm2vec-tiny", tmp_path / "p")
        (folder / "alm2vec.json").unlink()
        if content is not None:
            text = content if isinstance(content, str) else json.dumps(content)
            (folder / "alm2vec.json").write_text(text)
        with pytest.raises((InputError, CheckpointError), match=says):
            SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")

    @pytest.mark.parametrize(
        "arguments",
        [{"backend": "onnx"}, {"processor_kwargs": {"max_length": 3}}, {"config_kwargs": {"use_cache": False}}],
    )
    def test_what_it_cannot_do_for_the_library(self, tmp_path, arguments):
        folder = export("alm2vec-tiny", tmp_path / "p")
        with pytest.raises(InputError, match=r"no backend|no effect"):
            SentenceTransformer(str(folder), trust_remote_code=True, device="cpu", **arguments)

    def test_model_kwargs_of_the_library(self, tmp_path):
        """Its dtype is the encoder's, and the rest goes to `from_pretrained`."""
        folder = export("alm2vec-tiny", tmp_path / "p")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ALM2VecWarning)
            low = SentenceTransformer(
                str(folder), trust_remote_code=True, device="cpu",
                model_kwargs={"dtype": torch.bfloat16, "attn_implementation": "eager"},
            )  # fmt: skip
        assert low[0].encoder.load_report.dtype == "bfloat16"
        assert set(low[0].encoder.load_report.attention.values()) == {"eager"}

    @pytest.mark.parametrize(
        "argument", [{"device": "cpu"}, {"token": "hf_secret"}, {"trust_remote_code": True}, {"verify": "off"}]
    )
    def test_what_is_not_saved(self, tmp_path, argument):
        """What belongs to a machine, opens a door, or lowers a guard."""
        if "token" in argument:
            assert (
                b"hf_secret" not in (export("alm2vec-tiny", tmp_path / "p", **argument) / "alm2vec.json").read_bytes()
            )
            return
        with pytest.raises(InputError, match="are not saved"):
            export("alm2vec-tiny", tmp_path / "p", **argument)

    def test_the_checkpoint_itself_is_not_written_over(self, tmp_path):
        """With a pointer in it, it would be taken for one."""
        folder = write(tmp_path / "own", FAMILY["pure-torch filterbank, not stored"])
        with pytest.raises(InputError, match="is the checkpoint itself"):
            export(folder, folder)
        model = load(folder, device="cpu", trust_remote_code=True)
        with pytest.raises(InputError, match="is the checkpoint itself"):
            model.save_pretrained(str(folder))
        assert not (folder / "alm2vec.json").exists()

    def test_settings_of_the_library(self, tmp_path):
        """Are what `load` would have."""
        settings = {"default_prompt_name": "query", "similarity_fn_name": "dot", "truncate_dim": 8}
        folder = export("alm2vec-tiny", tmp_path / "p", **settings)
        opened = SentenceTransformer(str(folder), trust_remote_code=True, device="cpu")
        assert {name: getattr(opened, name) for name in settings} == settings
        assert same(opened.encode("a"), load("alm2vec-tiny", device="cpu", **settings).encode("a"))
        for wrong in ({"default_prompt_name": "nonsense"}, {"similarity_fn_name": "nonsense"}):
            with pytest.raises(ValueError, match="nonsense"):
                export("alm2vec-tiny", tmp_path / "q", **wrong)

    def test_instructions_are_prompts(self):
        """Which are saved; as arguments of the module they would not be."""
        with pytest.raises(InputError, match="are prompts here"):
            ALM2VecModule("alm2vec-tiny", query_instruction="By mood.")

    def test_what_cannot_be_written_down(self, tmp_path):
        with pytest.raises(InputError, match="model_kwargs cannot be saved"):
            export("alm2vec-tiny", tmp_path / "p", model_kwargs={"quantization_config": object()})

    def test_secrets_in_keyword_arguments(self, tmp_path):
        with pytest.raises(InputError, match=r"these model_kwargs are not saved: .'use_auth_token'."):
            export("alm2vec-tiny", tmp_path / "p", model_kwargs={"use_auth_token": "hf_secret"})

    def test_the_checkpoint_itself_is_no_model_of_the_librarys(self):
        """Why there are pointer folders: the library puts mean pooling on it, and it does not take token ids."""
        stock = SentenceTransformer(str(FOLDER), trust_remote_code=True, device="cpu")
        with pytest.raises(TypeError, match="input_ids"):
            stock.encode("a dog")


class TestLanguageModelTools:
    def test_langchains_own_wrapper(self, tmp_path, tiny):
        """Text through a tool that takes any model's name."""
        langchain = pytest.importorskip("langchain_huggingface")
        embeddings = langchain.HuggingFaceEmbeddings(
            model_name=str(export("alm2vec-tiny", tmp_path / "p")),
            model_kwargs={"trust_remote_code": True, "device": "cpu"},
            query_encode_kwargs={"prompt_name": "query"},
        )
        assert np.allclose(embeddings.embed_documents(["a dog", "b"]), tiny.encode_document(["a dog", "b"]), atol=1e-6)
        assert np.allclose(embeddings.embed_query("a dog"), tiny.encode_query("a dog"), atol=1e-6)
