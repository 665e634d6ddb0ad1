"""`alm2vec doctor`: on the bundled checkpoint and on some that have something wrong with them."""

import json
import sys

import checkpoint_family as family
import fake_checkpoints
import numpy as np
import pytest
import sounds
import torch
from made_checkpoints import make

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
    assert len(diagnosis.verdict) == 1
    assert "demonstration model, not ALM2Vec: do not index with it" in diagnosis.verdict[0]


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
    assert str(diagnosis).splitlines() == [f"{diagnosis.model}: unusable", "", *diagnosis.verdict]


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
    assert any(
        "does not take a clip without a question as a document; a clip without a question as a query: ValueError: text"
        in said
        for said in found["verdict"]
    )
    assert found["audio_seconds_per_second"] > 0
    assert len(found["coupling"]) == 10


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


@pytest.mark.parametrize("only", ["", "audio is None", "audio is not None and count > 1"])
def test_what_is_slightly_random(tmp_path, only):
    """Less than would be called random and more than neighbours may do: not blamed on them."""
    noise = "        self.noise = 9e-4 * torch.rand(count, 32)" + (f" * ({only})" if only else "")
    code = {"batch": noise, "returned": "vectors + self.noise"}
    diagnosis = examine(tmp_path, family.Member("noisy", code))
    if "count" in only:
        assert diagnosis.settings == {"batching": "single"}
        return
    assert diagnosis.wobble > 1e-8
    assert diagnosis.settings == {}


IN_FORM = """
        if {form} and count > {most}:
            if audio is not None:
                peak = max(float(w.abs().max()) for w in waves)
                waves = [torch.where(w.abs() < 0.05 * peak, torch.zeros_like(w), w) for w in waves]
            else:
                text = [one.ljust(max(map(len, text))) for one in text]
"""
OF_KIND = {
    "text": "audio is None",
    "audio": "audio is not None and text is None",
    "audio+text": "audio is not None and text is not None",
}


@pytest.mark.parametrize("task", ["query", "document"])
@pytest.mark.parametrize("kind", OF_KIND)
@pytest.mark.parametrize("most", [1, 16])
def test_neighbours_that_matter_in_one_form(tmp_path, kind, task, most):
    """Of six that users can reach, in a batch as large as it is by default."""
    form = f"{OF_KIND[kind]} and self.task == {task!r}"
    folder = make(
        tmp_path / "m",
        code={"batch": IN_FORM.format(form=form, most=most)},
        edits=[("        rows = [self._row", "        self.task = task\n        rows = [self._row")],
    )
    diagnosis = diagnose(str(folder), trust_remote_code=True, device="cpu")
    assert diagnosis.settings == {"batching": "equal" if kind == "text" else "single"}


@pytest.mark.parametrize("seconds", [11, 30.5])
def test_neighbours_that_matter_where_clips_are_long(tmp_path, seconds):
    """Past what the encoder takes in one piece, and past what the model was trained on."""
    batch = f"        long = audio is not None and max(map(len, waves)) > {seconds} * 16000\n"
    batch += PADS.replace("if audio is not None:", "if long:").lstrip("\n")
    diagnosis = examine(tmp_path, family.Member("pads", {"batch": batch}))
    assert diagnosis.settings == {"batching": "equal"}


@pytest.mark.parametrize(("seconds", "status"), [(12, "doubtful"), (30, "good")])
def test_clips_that_are_too_long_for_it(tmp_path, seconds, status):
    """A model may refuse what is longer than it was trained on, and no less."""
    refuses = f"        assert audio is None or max(map(len, waves)) <= {seconds} * 16000, 'too long'"
    diagnosis = examine(tmp_path, family.Member("short", {"batch": refuses}))
    assert (diagnosis.status, diagnosis.settings) == (status, {})
    said = "even by themselves: a clip of 12.5 s" if seconds == 12 else "It does not take a clip of 31 s"
    assert any(said in sentence and "too long" in sentence for sentence in diagnosis.verdict)
    assert len(set(diagnosis.failed.values())) < len(diagnosis.failed)
    if seconds == 30:
        assert str(diagnosis).count("too long") == 1  # one reason, of several forms


def test_a_model_that_does_not_read(tmp_path):
    """Whatever the text, one vector: as bad as not hearing."""
    batch = "        text = ['x'] * count if audio is None else text"
    diagnosis = examine(tmp_path, family.Member("illiterate", {"batch": batch}))
    assert (diagnosis.status, diagnosis.settings) == ("doubtful", {})
    assert diagnosis.reading < 1e-9 < 1e-3 < diagnosis.hearing
    assert any("It may not read" in said for said in diagnosis.verdict)


@pytest.mark.parametrize(
    "arguments",
    [
        ["alm2vec-tiny", "--device", "cuda:99"],
        ["alm2vec-tiny", "--device", "meta"],
        ["alm2vec-tiny", "--revision", "main"],
        ["./not-there"],
        ["alm2vec-tinyy"],
        ["someone/something", "--trust-remote-code", "--local-files-only"],
        ["someone/something"],
        ["cara-ai/ALM2Vec-FT"],
    ],
)
def test_where_there_is_no_checkpoint_to_judge(arguments, capsys):
    """An error of the command, in one line, and no verdict."""
    assert main(["doctor", *arguments]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("alm2vec: ")
    assert "Do not use it" not in said.err
    assert said.err.count("\n") == 1


def test_what_remote_code_prints(tmp_path, capsys):
    """Is kept out of the answer."""
    folder = family.write(tmp_path / "m", family.Member("talks", {"batch": "        print('hello')"}))
    assert main(["doctor", str(folder), "--trust-remote-code", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["status"] == "good"
    assert "hello" in said.err


def test_no_sentence_is_said_twice(tmp_path):
    """What is found on several occasions is one finding."""
    code = {
        "batch": ALONE_FAILS,
        "returned": "vectors if self.encoder.weight.dtype is torch.float32 else vectors.flip(1)",
    }
    diagnosis = examine(tmp_path, family.Member("drifts", code), dtype="float16")
    assert diagnosis.settings == {"dtype": "float32"}
    lines = [line for line in str(diagnosis).splitlines() if line.strip()]
    assert len(lines) == len(set(lines))
    assert sum("text is required" in line for line in lines) == 1
    assert any("a clip without a question as a document; a clip without a question as a query: " in x for x in lines)


def test_what_loading_finds_odd_is_shown(tmp_path):
    """Such as a buffer that another version of transformers gives another value."""
    fill = "if isinstance(module, FrontEnd):\n            module.window.fill_(1.0)\n        if"
    edits = [("if isinstance(module, (nn.Linear", f"{fill} isinstance(module, (nn.Linear")]
    folder = make(tmp_path / "m", code={"front_end": family.PURE_TORCH}, edits=edits)
    diagnosis = diagnose(str(folder), trust_remote_code=True, device="cpu")
    assert "the code gives different vectors there; here they have the value from" in str(diagnosis)


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
    assert "clips of different lengths and one question, as queries: in a list and alone differ by up to" in out
    assert out.rstrip().endswith('Use it with batching="equal".')
    assert torch.get_default_dtype() is torch.float32


@pytest.mark.parametrize(
    "broken", ["raise OSError('libcudart.so.13: cannot open')", "raise ImportError('no backend')", None]
)
def test_torchaudio_that_cannot_be_imported_is_not_the_models_fault(tmp_path, capsys, monkeypatch, broken):
    """One line that says what to install, and no verdict."""
    if broken is None:
        monkeypatch.setitem(sys.modules, "torchaudio", None)
    else:
        (tmp_path / "path" / "torchaudio").mkdir(parents=True)
        (tmp_path / "path" / "torchaudio" / "__init__.py").write_text(broken)
        monkeypatch.syspath_prepend(tmp_path / "path")
    folder = fake_checkpoints.write(tmp_path / "m", "import torchaudio\n" + fake_checkpoints.CODE)
    assert main(["doctor", str(folder), "--trust-remote-code"]) == 1
    said = capsys.readouterr()
    assert "alm2vec-integrations[torchaudio]" in said.err
    assert "Do not use it" not in said.out + said.err
