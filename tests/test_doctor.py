"""`alm2vec doctor`: on the bundled checkpoint and on some that have something wrong with them."""

import json

import checkpoint_family as family
import numpy as np
import pytest
import sounds
import torch

from alm2vec_integrations import ALM2VecEncoder, AudioClip, InputError
from alm2vec_integrations.cli import main
from alm2vec_integrations.doctor import diagnose
from alm2vec_integrations.doctor.published import FORMS

PADS = """
        if audio is not None:  # everyone is as long as the longest, silence included
            longest = max(len(w) for w in waves)
            waves = [nn.functional.pad(w, (0, longest - len(w))) for w in waves]
"""
RANDOM = "vectors + 0.05 * torch.randn_like(vectors)"
DEAF = "        waves = [None if w is None else torch.zeros_like(w) for w in waves]"


def examine(folder, member, **keywords):
    return diagnose(str(family.write(folder / "m", member)), trust_remote_code=True, device="cpu", **keywords)


@pytest.mark.filterwarnings("ignore:alm2vec-tiny")
def test_the_bundled_checkpoint_is_sound():
    """Nothing to set, and what it is is said."""
    diagnosis = diagnose("alm2vec-tiny", device="cpu")
    assert diagnosis.status == "good"
    assert diagnosis.settings == {}
    assert diagnosis.determinism == 0
    assert max(diagnosis.coupling.values()) < 1e-9
    assert diagnosis.hearing > 1e-3
    assert diagnosis.audio_seconds_per_second > 0
    assert "demonstration model" in diagnosis.verdict[0]
    assert diagnosis.verdict[-1] == "Use it as it is."


@pytest.mark.parametrize(
    ("name", "code", "status", "settings", "says"),
    [
        ("loudest decides", {"batch": family.BATCH_FLOOR}, "good with settings", {"batching": "single"}, "single"),
        ("pads", {"batch": PADS}, "good with settings", {"batching": "equal"}, "longer items"),
        ("deaf", {"batch": DEAF}, "doubtful", {}, "may not hear"),
        ("random", {"returned": RANDOM}, "doubtful", {}, "random"),
    ],
)
def test_what_a_checkpoint_suffers_from(tmp_path, name, code, status, settings, says):
    """Each gets the verdict that fits it."""
    diagnosis = examine(tmp_path, family.Member(name, code))
    assert (diagnosis.status, diagnosis.settings) == (status, settings)
    assert any(says in sentence for sentence in diagnosis.verdict)


@pytest.mark.parametrize("name", ["missing tensor", "truncated shard", "training mode", "code in another repository"])
def test_a_checkpoint_that_does_not_load(tmp_path, name):
    """The refusal is the verdict."""
    diagnosis = examine(tmp_path, family.FAMILY[name])
    assert diagnosis.status == "unusable"
    assert diagnosis.verdict[0].startswith("Do not use it: ")
    assert diagnosis.load is None


@pytest.mark.parametrize("batch", [family.BATCH_FLOOR, PADS])
def test_its_settings_given_back_give_right_vectors(tmp_path, batch):
    """In lists, the vectors that the items have alone."""
    diagnosis = examine(tmp_path, family.Member("coupled", {"batch": batch}))
    clips = [AudioClip(level * sounds.noise(s, seed=i), sampling_rate=16_000) for i, (s, level) in enumerate(
        [(1.0, 1.0), (1.0, 0.03), (2.0, 0.1), (2.0, 1.0), (1.5, 0.5)])]  # fmt: skip

    def worst(**settings):
        with ALM2VecEncoder(tmp_path / "m", trust_remote_code=True, device="cpu", **settings) as encoder:
            alone = np.stack([encoder.encode(clip, task="query") for clip in clips])
            return np.abs(encoder.encode(clips, task="query") - alone).max()

    assert worst() > 1e-3
    assert worst(**diagnosis.settings) < 1e-5


def test_lower_precision_that_does_not_do(tmp_path):
    """The setting saves the attempt next time."""
    flips = "vectors if self.encoder.weight.dtype is torch.float32 else vectors.flip(1)"
    diagnosis = examine(tmp_path, family.Member("drifts", {"returned": flips}), dtype="bfloat16")
    assert diagnosis.settings == {"dtype": "float32"}
    assert diagnosis.load["dtype"] == "float32"


def test_lower_precision_that_does_not_do_where_float32_was_loaded(tmp_path):
    """On a CPU, where nobody asked for it: on a GPU it would be tried."""
    flips = "vectors if self.encoder.weight.dtype is torch.float32 else vectors.flip(1)"
    diagnosis = examine(tmp_path, family.Member("drifts", {"returned": flips}))
    assert diagnosis.load["dtype"] == "float32"
    assert (diagnosis.status, diagnosis.settings) == ("good with settings", {"dtype": "float32"})


@pytest.mark.parametrize("seconds", [2.5, 9.5])
def test_clips_that_fail_even_by_themselves(tmp_path, seconds):
    """No setting helps: doubtful, and said."""
    spoils = f"        waves = [w if w is None or len(w) < {seconds} * 16000 else w * float('nan') for w in waves]\n"
    diagnosis = examine(tmp_path, family.Member("spoils", {"batch": spoils}))
    assert (diagnosis.status, diagnosis.settings) == ("doubtful", {})
    assert any("It fails on" in said and "NaN" in said for said in diagnosis.verdict)


ALONE_FAILS = """
        if audio is not None and text is None:
            raise ValueError("text is required")
"""
ONE_AT_A_TIME = """
        if count > 1:
            raise RuntimeError("one at a time")
"""


def test_a_form_that_the_model_does_not_take(tmp_path, capsys):
    """Said, and the rest is measured; the card does not show a clip alone."""
    folder = family.write(tmp_path / "m", family.Member("picky", {"batch": ALONE_FAILS}))
    assert main(["doctor", str(folder), "--trust-remote-code", "--device", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["status"] == "good"
    assert any("does not take a clip without a question: ValueError: text is" in said for said in found["verdict"])
    assert found["audio_seconds_per_second"] > 0
    assert len(found["coupling"]) == 5


def test_a_model_that_takes_one_item_at_a_time(tmp_path):
    """There is a setting for it."""
    diagnosis = examine(tmp_path, family.Member("single", {"batch": ONE_AT_A_TIME}))
    assert (diagnosis.status, diagnosis.settings) == ("good with settings", {"batching": "single"})
    with ALM2VecEncoder(tmp_path / "m", trust_remote_code=True, device="cpu", **diagnosis.settings) as encoder:
        assert encoder.encode(["a", "b"], task="document").shape == (2, 32)


def test_a_model_that_fails_as_the_card_calls_it(tmp_path):
    """After loading, where a question has been heard and one of another length has not."""
    code = {"batch": "        if audio is not None and len(waves[0]) == 32000 and waves[0].std() < 0.02:\n"
                     "            raise RuntimeError('not that one')\n        self.heard = True"}  # fmt: skip
    member = family.Member("fails", code)
    diagnosis = examine(tmp_path, member, verify="off")
    assert diagnosis.status == "unusable"
    assert "not that one" in diagnosis.verdict[0]


def test_drift_is_measured_whatever_was_loaded(tmp_path):
    """On a CPU float32 is loaded; what bfloat16 would do is found out beside it."""
    for dtype in (None, "float32", "bfloat16"):
        diagnosis = examine(tmp_path, next(iter(family.FAMILY.values())), dtype=dtype)
        assert 1e-7 < diagnosis.drift < 1e-3


def test_clips_that_cannot_be_read(tmp_path, capsys):
    """Each is named; that none is left is said; how many were not run too."""
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.wav").write_text("no")
    assert main(["doctor", "alm2vec-tiny", "--device", "cpu", "--clips", str(tmp_path / "broken")]) == 0
    out = capsys.readouterr().out
    assert "a.wav was left out" in out
    assert "None of the clips could be embedded" in out
    for i in range(10):
        sounds.write(tmp_path / "many" / f"{i}.aiff", sounds.noise(0.3, seed=i))
    (tmp_path / "many" / "0.aiff").write_text("no")
    assert main(["doctor", "alm2vec-tiny", "--device", "cpu", "--clips", str(tmp_path / "many"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["example"]) == 8
    assert any("run on 8 clips; 1 were not" in said for said in found["verdict"])


PADS_ALONE = PADS.replace("if audio is not None:", "if audio is not None and text is None:")
DEAF_ALONE = """
        if audio is not None and text is None:
            waves = [torch.zeros_like(w) for w in waves]
"""
CROPS = """
        if audio is not None:
            shortest = min(len(w) for w in waves)
            waves = [w[:shortest] for w in waves]
"""
REFUSES_ONE = """
        if audio is not None and any(len(w) == 16_000 for w in waves):
            raise ValueError("clip too odd")
"""


@pytest.mark.parametrize(
    ("batch", "status", "settings"),
    [
        (PADS_ALONE, "good with settings", {"batching": "equal"}),
        (CROPS, "good with settings", {"batching": "equal"}),
        (DEAF_ALONE, "doubtful", {}),
    ],
)
def test_what_shows_only_in_some_forms(tmp_path, batch, status, settings):
    """Clips without a question, and items that are not the first of their list, are looked at too."""
    diagnosis = examine(tmp_path, family.Member("some", {"batch": batch}))
    assert (diagnosis.status, diagnosis.settings) == (status, settings)


@pytest.mark.parametrize("only", ["audio is None", "audio is not None and text is None"])
def test_what_is_random_in_some_forms(tmp_path, only):
    """Is not blamed on the neighbours."""
    returned = f"vectors + 0.05 * torch.randn_like(vectors) * ({only})"
    diagnosis = examine(tmp_path, family.Member("random", {"returned": returned}))
    assert (diagnosis.status, diagnosis.settings) == ("doubtful", {})
    assert any("something in it is random" in said for said in diagnosis.verdict)


def test_the_models_own_errors_on_clips(tmp_path):
    """Are findings; the other clips are run."""
    for i, seconds in enumerate((0.5, 1.0, 1.5)):
        sounds.write(tmp_path / "clips" / f"{i}.wav", sounds.noise(seconds, seed=i))
    diagnosis = examine(tmp_path, family.Member("odd", {"batch": REFUSES_ONE}), clips=tmp_path / "clips")
    assert set(diagnosis.example) == {"0.wav", "2.wav"}
    assert diagnosis.failed == {"the card's example on 1.wav": "ValueError: clip too odd"}
    one = examine(tmp_path / "1", family.Member("single", {"batch": ONE_AT_A_TIME}), clips=tmp_path / "clips")
    assert len(one.example) == 3


class TestPublished:
    @pytest.fixture
    def clips(self, tmp_path):
        for i in range(3):
            sounds.write(tmp_path / "clips" / f"{i}.wav", sounds.tone(1.0, 300.0 * (i + 1)))
        return tmp_path / "clips"

    @pytest.fixture
    def published(self, tiny, clips, tmp_path):
        """Cosines in the bundled model's own, of a form that is not the default one."""
        names, texts = ["0.wav", "1.wav", "2.wav"], ["rain", "a man speaks", "church bells"]
        audio = [AudioClip(clips / name) for name in names]
        q_task, q_instruction = FORMS["query, DOC_INSTRUCTION"]
        d_task, d_instruction = FORMS["document, QUERY_INSTRUCTION"]
        cosines = [
            tiny.encode(one, task=q_task, instruction=q_instruction)
            @ tiny.encode(other, task=d_task, instruction=d_instruction).T
            for one, other in ((audio, texts), (texts, audio))
        ]
        content = {
            key: [{"audio": names, "text": texts, "cosine": cosine.round(4).tolist()}]
            for key, cosine in zip(("audio_to_text", "text_to_audio"), cosines, strict=True)
        }
        (tmp_path / "published.json").write_text(json.dumps(content))
        return tmp_path / "published.json"

    def test_the_form_that_reproduces_them_is_found(self, clips, published, capsys):
        """Best first, all forms reported; the card's example is run on the clips; JSON has it all."""
        arguments = ["doctor", "alm2vec-tiny", "--clips", str(clips), "--published", str(published), "--json"]
        assert main([*arguments, "--device", "cpu"]) == 0
        found = json.loads(capsys.readouterr().out)
        best = found["published"][0]
        assert (best["query"], best["document"]) == ("query, DOC_INSTRUCTION", "document, QUERY_INSTRUCTION")
        assert best["difference"] < 1e-3
        assert best["first_ranks"] == 1.0
        assert len(found["published"]) == 16
        assert set(found["example"]) == {"0.wav", "1.wav", "2.wav"}
        assert any("reproduces the published cosines" in sentence for sentence in found["verdict"])

    @pytest.mark.parametrize("batch", [PADS, ONE_AT_A_TIME])
    def test_with_the_settings_that_were_found(self, clips, published, tmp_path, batch):
        """A model that couples its batches reproduces its own single vectors, batched as it was found to need."""
        sounds.write(clips / "0.wav", sounds.tone(2.5, 300.0))
        folder = family.write(tmp_path / "m", family.Member("coupled", {"batch": batch}))
        content = json.loads(published.read_text())
        with ALM2VecEncoder(folder, trust_remote_code=True, device="cpu", batching="single") as encoder:
            matrix = content["audio_to_text"][0]
            queries = encoder.encode_query([AudioClip(clips / name) for name in matrix["audio"]])
            matrix["cosine"] = (queries @ encoder.encode_document(matrix["text"]).T).tolist()
        published.write_text(json.dumps({"audio_to_text": [matrix]}))
        found = diagnose(str(folder), trust_remote_code=True, device="cpu", clips=clips, published=published)
        assert found.status == "good with settings"
        assert found.published[0]["difference"] < 1e-6

    def test_others_do_not_reproduce_them(self, clips, published, capsys):
        """Status 1, and what it means."""
        content = json.loads(published.read_text())
        content["audio_to_text"][0]["cosine"] = np.eye(3).tolist()
        published.write_text(json.dumps(content))
        assert main(["doctor", "alm2vec-tiny", "--published", str(published), "--clips", str(clips)]) == 1
        assert "does not reproduce the published cosines" in capsys.readouterr().out

    @pytest.mark.parametrize("content", ["", "{}", "[]", '{"audio_to_text": [{"audio": ["0.wav"]}]}',
        '{"audio_to_text": [{"audio": ["0.wav"], "text": ["a"], "cosine": [[1, 2]]}]}',
        '{"audio_to_text": [{"audio": ["0.wav"], "text": ["a"], "cosine": [1]}]}',
        '{"audio_to_text": [{"audio": [3], "text": ["a"], "cosine": [[1]]}]}',
        '{"audio_to_text": [{"audio": [], "text": [], "cosine": []}]}', '{"audio_to_text": 3}',
        '{"audio_to_text": [{"audio": ["0.wav"], "text": ["a"], "cosine": [[NaN]]}]}',
        '{"audio_to_text": [{"audio": ["0.wav"], "text": ["a"], "cosine": [["x"]]}]}'])  # fmt: skip
    def test_files_that_are_not_published_cosines(self, tmp_path, content):
        """Named, before anything is loaded."""
        (tmp_path / "p.json").write_text(content)
        with pytest.raises(InputError, match=r"p\.json"):
            diagnose("alm2vec-tiny", published=tmp_path / "p.json")

    def test_a_folder_without_recordings(self, tmp_path, capsys):
        """One line, status 1."""
        assert main(["doctor", "alm2vec-tiny", "--clips", str(tmp_path)]) == 1
        assert "holds no recordings" in capsys.readouterr().err


def test_the_report_is_readable(tmp_path, capsys):
    """Status, findings, verdict."""
    folder = family.write(tmp_path / "m", family.Member("pads", {"batch": PADS}))
    assert main(["doctor", str(folder), "--trust-remote-code", "--device", "cpu", "--verify", "fast"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{folder}: good with settings\n")
    assert "clips of different lengths: in a list and alone differ by up to" in out
    assert out.rstrip().endswith('Use it with batching="equal".')
    assert torch.get_default_dtype() is torch.float32
