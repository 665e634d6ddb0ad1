"""What a model's name stands for, and whose code runs."""

import shutil
import warnings

import fake_checkpoints
import pytest

from alm2vec_integrations import ALM2VecEncoder, ALM2VecWarning, CheckpointError
from alm2vec_integrations.checkpoint import loading
from alm2vec_integrations.checkpoint.resolving import is_folder
from alm2vec_integrations.tiny import FOLDER


def refused(match, *arguments, **keywords):
    with pytest.raises(CheckpointError, match=match):
        ALM2VecEncoder(*arguments, **keywords).encode("x", task="query")


class TestNames:
    @pytest.mark.parametrize("name", ["./x", "../x", "/x", "~/x", ".", ".."])
    def test_folders_look_like_folders(self, name):
        """By how they are written."""
        assert is_folder(name)

    @pytest.mark.parametrize("name", ["alm2vec-tiny", "cara-ai/ALM2Vec-FT", "models/x"])
    def test_other_names_do_not(self, name):
        """Whatever lies on disk."""
        assert not is_folder(name)

    def test_a_name_never_changes_meaning_with_the_disk(self, tmp_path, monkeypatch):
        """A folder that happens to be called like a hub id is not loaded in its place."""
        fake_checkpoints.write(tmp_path / "cara-ai" / "ALM2Vec-FT")
        fake_checkpoints.write(tmp_path / "alm2vec-tiny")
        monkeypatch.chdir(tmp_path)
        refused(r"\./cara-ai/ALM2Vec-FT", "cara-ai/ALM2Vec-FT", cache_dir=tmp_path / "empty")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ALM2VecWarning)
            assert ALM2VecEncoder("alm2vec-tiny").dim != fake_checkpoints.DIM
        assert ALM2VecEncoder("./alm2vec-tiny", trust_remote_code=True).dim == fake_checkpoints.DIM

    def test_a_name_that_is_neither(self):
        """Says all three forms."""
        refused("neither .* nor a hub id .* nor a folder", "some-model", trust_remote_code=True)

    def test_a_hub_id_without_network_or_cache(self, tmp_path):
        """The hub library's reason is passed on."""
        refused("could not be fetched", "cara-ai/ALM2Vec-FT", cache_dir=tmp_path, local_files_only=True)

    def test_a_missing_folder(self, tmp_path):
        """Named as asked for."""
        refused("no such folder", tmp_path / "nowhere", trust_remote_code=True)

    def test_revisions_belong_to_hub_ids(self, fake):
        """A folder has none, and the keyword is not ignored."""
        refused("no revisions", fake, trust_remote_code=True, revision="main")
        refused("no revisions", "alm2vec-tiny", revision="main")

    def test_a_cached_snapshot_is_loaded_and_names_its_commit(self, tmp_path):
        """As the hub library lays it out, without network."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--cara-ai--ALM2Vec-FT"
        fake_checkpoints.write(repository / "snapshots" / commit)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(commit)
        encoder = ALM2VecEncoder("cara-ai/ALM2Vec-FT", cache_dir=tmp_path, local_files_only=True)
        assert encoder.encode("x", task="query").shape == (fake_checkpoints.DIM,)
        assert encoder.revision == commit
        assert encoder.load_report.as_dict()["revision"] == commit
        assert commit in str(encoder.load_report)


class TestTrust:
    CODE = "from pathlib import Path\nPath({sentinel!r}).touch()\n" + fake_checkpoints.CODE

    @pytest.mark.parametrize("trust", [None, False])
    def test_a_folders_code_does_not_run_unasked(self, tmp_path, trust):
        """The file that its code would leave is not there."""
        sentinel = tmp_path / "ran"
        folder = fake_checkpoints.write(tmp_path / "model", self.CODE.format(sentinel=str(sentinel)))
        refused("trust_remote_code=True", folder, trust_remote_code=trust)
        assert not sentinel.exists()
        ALM2VecEncoder(folder, trust_remote_code=True).encode("x", task="query")
        assert sentinel.exists()

    def test_another_repository_needs_trust_before_it_is_fetched(self, tmp_path):
        """Nothing is downloaded either."""
        refused("trust_remote_code=True", "someone/else", cache_dir=tmp_path)
        refused("trust_remote_code=True", "cara-ai/ALM2Vec-FT", trust_remote_code=False, cache_dir=tmp_path)
        assert list(tmp_path.iterdir()) == []

    def test_repositories_named_in_the_environment(self, tmp_path, monkeypatch):
        """Trusted at the revision that is named, and at no other."""
        commit = "0123456789abcdef0123456789abcdef01234567"
        repository = tmp_path / "models--someone--else"
        fake_checkpoints.write(repository / "snapshots" / commit)
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"other/repo@main, someone/else@{commit}")
        keywords = {"cache_dir": tmp_path, "local_files_only": True, "device": "cpu"}
        assert ALM2VecEncoder("someone/else", revision=commit, **keywords).dim == fake_checkpoints.DIM
        refused("trust_remote_code=True", "someone/else", revision="main", **keywords)
        refused("trust_remote_code=True", "someone/else", **keywords)
        refused("trust_remote_code=True", "someone/else", revision=commit, trust_remote_code=False, **keywords)

    def test_folders_named_in_the_environment(self, fake, monkeypatch):
        """By their absolute path."""
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", f"other/repo@main,{fake}")
        assert ALM2VecEncoder(fake, device="cpu").dim == fake_checkpoints.DIM
        refused("trust_remote_code=True", fake, trust_remote_code=False)
        monkeypatch.setenv("ALM2VEC_TRUSTED_REPOS", str(fake.parent))
        refused("trust_remote_code=True", fake)

    def test_a_shared_model_does_not_lend_its_trust(self, fake):
        """An encoder that was not told to trust does not ride on one that was."""
        with ALM2VecEncoder(fake, trust_remote_code=True) as trusting:
            trusting.encode("x", task="query")
            refused("trust_remote_code=True", fake)

    def test_code_in_another_repository_is_refused(self, tmp_path):
        """`auto_map` may not point elsewhere, trusted or not."""
        elsewhere = {"AutoConfig": "other/repo--modeling.Config", "AutoModel": "modeling_fake.FakeModel"}
        folder = fake_checkpoints.write(tmp_path / "model", auto_map=elsewhere)
        refused("another repository", folder, trust_remote_code=True)


class TestLoading:
    def test_a_folder_that_is_no_model(self, tmp_path):
        """Each says what is missing."""
        refused(r"config\.json cannot be read", tmp_path, trust_remote_code=True)
        (tmp_path / "config.json").write_text("{}")
        refused("no AutoModel", tmp_path, trust_remote_code=True)

    def test_a_model_without_encode(self, tmp_path):
        """Another kind of model."""
        code = fake_checkpoints.CODE.replace("def encode(", "def embed(")
        refused("no encode method", fake_checkpoints.write(tmp_path / "m", code), trust_remote_code=True)

    def test_a_model_whose_first_call_fails(self, tmp_path):
        """Whatever it raises."""
        for error in ("RuntimeError('not here')", "StopIteration"):
            code = fake_checkpoints.CODE.replace("assert not args", f"raise {error}\n        assert not args")
            refused(
                "first call of encode with text failed",
                fake_checkpoints.write(tmp_path / "m", code),
                trust_remote_code=True,
            )

    def test_a_tensor_without_a_value(self, tmp_path):
        """A buffer that the constructor itself leaves on the meta device."""
        code = fake_checkpoints.CODE.replace(
            "        self.post_init()",
            "        self.register_buffer('table', torch.empty(3, device='meta'), persistent=False)\n"
            "        self.post_init()",
        )
        refused("leaves table without a value", fake_checkpoints.write(tmp_path / "m", code), trust_remote_code=True)

    def test_code_that_raises(self, tmp_path):
        """The cause is kept."""
        folder = fake_checkpoints.write(tmp_path / "m", "raise RuntimeError('broken code')")
        refused("broken code", folder, trust_remote_code=True)

    def test_pickled_weights_are_not_loaded(self, tmp_path):
        """Only safetensors."""
        import torch

        folder = fake_checkpoints.write(tmp_path / "m")
        (folder / "model.safetensors").unlink()
        torch.save({"scale": torch.ones(1)}, folder / "pytorch_model.bin")
        refused("safetensors", folder, trust_remote_code=True)

    @pytest.mark.parametrize(("verify", "loads"), [("full", False), ("fast", False), ("off", True)])
    def test_not_a_number_among_the_weights(self, tmp_path, verify, loads):
        """Found before it is used, where that was asked for; the message names tensor, file and remedy."""
        import torch
        from safetensors.torch import save_file

        folder = fake_checkpoints.write(tmp_path / "m")
        save_file({"scale": torch.tensor([float("nan")])}, folder / "model.safetensors", metadata={"format": "pt"})
        encoder = ALM2VecEncoder(folder, trust_remote_code=True, verify=verify)
        if loads:
            assert encoder.dim == fake_checkpoints.DIM
        else:
            with pytest.raises(CheckpointError, match=r"scale holds NaN .*model\.safetensors.*fetch it again"):
                _ = encoder.dim

    def test_a_model_that_stays_in_training_mode(self, tmp_path):
        """Dropout would make every vector another."""
        code = fake_checkpoints.CODE + "\n    def eval(self):\n        return self.train()\n"
        refused("training mode", fake_checkpoints.write(tmp_path / "m", code), trust_remote_code=True)

    @pytest.mark.parametrize("copied", [False, True])
    def test_the_bundled_model_says_once_what_it_is(self, tmp_path, monkeypatch, copied):
        """Nobody may mistake it, under another name either."""
        monkeypatch.setattr(loading, "_warned_of", set())
        model = shutil.copytree(FOLDER, tmp_path / "my-model") if copied else "alm2vec-tiny"
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for verify in ("fast", "off"):
                ALM2VecEncoder(model, verify=verify, trust_remote_code=True).encode("x", task="query")
        messages = [str(warning.message) for warning in caught if warning.category is ALM2VecWarning]
        assert len(messages) == 1
        assert "demonstration model, not ALM2Vec" in messages[0]
        assert str(model) in messages[0]


def test_a_device_that_is_not_there():
    """Named, before anything is loaded."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(ValueError, match="no CUDA device"):
        ALM2VecEncoder("alm2vec-tiny", device="cuda").encode("x", task="query")
    with pytest.raises(ValueError, match="not a torch device"):
        ALM2VecEncoder("alm2vec-tiny", device="gpu").encode("x", task="query")
