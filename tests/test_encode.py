"""What `ALM2VecEncoder.encode` and its kin return, on a model that refuses what the card does not show."""

import asyncio
import os

import fake_checkpoints
import numpy as np
import pytest
import sounds
import torch

from alm2vec_integrations import (
    DOC_INSTRUCTION,
    QUERY_INSTRUCTION,
    ALM2VecEncoder,
    AudioClip,
    AudioError,
    AudioText,
    Encoder,
    InputError,
    ModelContractError,
)


def test_one_item_gives_a_vector_and_a_list_a_matrix(encoder):
    """The shape follows the argument, and the values are those of the model."""
    one = encoder.encode("a dog", task="document")
    assert one.shape == (fake_checkpoints.DIM,)
    assert one.dtype == np.float32
    many = encoder.encode(["a dog"], task="document")
    assert many.shape == (1, fake_checkpoints.DIM)
    np.testing.assert_array_equal(many[0], one)
    np.testing.assert_array_equal(one, fake_checkpoints.expected("a dog", "document", DOC_INSTRUCTION))


def test_an_empty_list_gives_no_rows(encoder):
    """The width is that of the model all the same."""
    assert encoder.encode([], task="query").shape == (0, fake_checkpoints.DIM)


def test_a_mixture_keeps_its_order(encoder, clips):
    """Every kind, interleaved, lands where it stood."""
    items = []
    for i, clip in enumerate(clips):
        items += [f"text {i}", AudioClip(clip), AudioText(f"question {i}", AudioClip(clip))]
    rows = encoder.encode(items, task="query")
    alone = np.stack([encoder.encode(item, task="query") for item in items])
    np.testing.assert_array_equal(rows, alone)
    assert len(np.unique(rows, axis=0)) == len(items)


@pytest.mark.parametrize("form", [tuple, iter, lambda items: (item for item in items)])
def test_any_ordered_collection_will_do(encoder, form):
    """Tuples, iterators and generators are lists to the encoder."""
    rows = encoder.encode(form(["a", "b"]), task="query")
    np.testing.assert_array_equal(rows, encoder.encode(["a", "b"], task="query"))


def test_every_public_path_calls_the_model_as_the_card_does(encoder, clips):
    """The fake raises on anything else; here every path reaches it with every kind."""
    clip = AudioClip(clips[0])
    items = ["text", clip, AudioText("what?", clip)]
    for item in [*items, items]:
        for task in ("query", "document"):
            encoder.encode(item, task=task)
            encoder.encode(item, task=task, instruction="another")
            encoder.encode(item, task=task, normalize=False)
            encoder.encode_partial(item, task=task)
        encoder.encode_query(item)
        encoder.encode_document(item)
    for query in items:
        encoder.rerank(query, items)
        encoder.rerank(query, items, question="who?", instruction="by voice", top_n=2)
    assert encoder.dim == fake_checkpoints.DIM
    keyword_sets = {frozenset(call) - {"task", "instruction", "normalize", "device"} for call in fake_checkpoints.calls}
    assert keyword_sets == {frozenset({"text"}), frozenset({"audio"}), frozenset({"text", "audio"})}


async def test_the_async_path_calls_the_model_as_the_card_does(encoder, clips):
    """`aencode` gives what `encode` gives."""
    items = ["text", AudioClip(clips[0]), AudioText("what?", AudioClip(clips[1]))]
    np.testing.assert_array_equal(await encoder.aencode(items, task="query"), encoder.encode(items, task="query"))
    assert (await encoder.aencode("text", task="query")).shape == (fake_checkpoints.DIM,)
    assert (await encoder.aencode([], task="query")).shape == (0, fake_checkpoints.DIM)


def test_the_encoder_satisfies_its_protocol(encoder):
    """Wrappers depend on the protocol, so the class must meet it."""
    assert isinstance(encoder, Encoder)


class TestInstructions:
    def test_published_defaults_by_task(self, encoder):
        """Without a word from the user each task has the card's instruction."""
        encoder.encode_query("q")
        encoder.encode_document("d")
        seen = {(call["text"][0], call["task"]): call["instruction"] for call in fake_checkpoints.calls}
        assert seen["q", "query"] == QUERY_INSTRUCTION
        assert seen["d", "document"] == DOC_INSTRUCTION

    @pytest.mark.parametrize("nothing", [None, ""])
    def test_call_over_constructor_over_default(self, fake, nothing):
        """The nearest word counts, and "" is no word."""
        with ALM2VecEncoder(
            fake, trust_remote_code=True, query_instruction="built", document_instruction=""
        ) as encoder:
            encoder.encode("a", task="query", instruction="called")
            encoder.encode("b", task="query", instruction=nothing)
            encoder.encode("c", task="document", instruction=nothing)
        seen = {call["text"][0]: call["instruction"] for call in fake_checkpoints.calls}
        assert (seen["a"], seen["b"], seen["c"]) == ("called", "built", DOC_INSTRUCTION)

    def test_one_for_each_item(self, encoder):
        """A list gives each item its own, and None in it the default."""
        rows = encoder.encode(["x", "x", "x"], task="query", instruction=["one", "two", None])
        for row, instruction in zip(rows, ["one", "two", QUERY_INSTRUCTION], strict=True):
            np.testing.assert_array_equal(row, fake_checkpoints.expected("x", "query", instruction))

    @pytest.mark.parametrize("bad", [["only one"], ["a", "b", "c"], 3, ["a", 4], b"bytes"])
    def test_wrong_ones_are_refused(self, encoder, bad):
        """A list of another length, or another type, is an error and not a guess."""
        with pytest.raises(InputError, match="instruction"):
            encoder.encode(["x", "y"], task="query", instruction=bad)

    def test_a_list_does_not_fit_a_single_item(self, encoder):
        """One item takes one instruction."""
        with pytest.raises(InputError, match="instruction"):
            encoder.encode("x", task="query", instruction=["one"])


class TestGrouping:
    def test_a_call_to_the_model_holds_one_kind_and_one_instruction(self, encoder, clips):
        """Kinds and instructions are never mixed in one forward pass."""
        fake_checkpoints.loaded(encoder)
        items = ["a", AudioClip(clips[0]), "b", AudioText("q", AudioClip(clips[1])), "c", "d"]
        encoder.encode(items, task="query", instruction=["1", "1", "1", "1", "2", "2"])
        calls = fake_checkpoints.calls
        assert sorted(
            (call.get("text"), len(call.get("audio", [])), call["instruction"]) for call in calls if "text" in call
        ) == [
            (["a", "b"], 0, "1"),
            (["c", "d"], 0, "2"),
            (["q"], 1, "1"),
        ]
        assert len(calls) == 4

    def test_items_and_seconds_are_bounded(self, fake, clips):
        """No forward pass exceeds the limits, unless one clip alone does."""
        with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=3, max_batch_seconds=2.5) as encoder:
            fake_checkpoints.loaded(encoder)
            encoder.encode([AudioClip(clip) for clip in clips], task="query")
            encoder.encode([f"{i}" for i in range(7)], task="query")
        calls = fake_checkpoints.calls
        assert max(len(call.get("audio", [])) for call in calls) == 3
        assert [len(call["text"]) for call in calls if "text" in call] == [3, 3, 1]
        assert min(len(call["audio"]) for call in calls if "audio" in call) == 1

    def test_clips_that_are_padded_count_as_long_as_they_become(self, fake):
        """Sixty of 10 ms are 12 s of audio."""
        clips = [AudioClip(sounds.noise(0.01, seed=i), sampling_rate=16_000) for i in range(60)]
        with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=64, max_batch_seconds=1.0) as encoder:
            encoder.dim  # noqa: B018 - its probes are calls too
            fake_checkpoints.calls.clear()
            encoder.encode(clips, task="query")
        assert [len(call["audio"]) for call in fake_checkpoints.calls] == [5] * 12


def test_a_callers_autocast_is_not_meant_for_the_model(tiny, library):
    """The vectors are those of the dtype it was loaded in."""
    import torch

    items = ["a dog", AudioClip(library[0])]
    with torch.autocast("cpu", torch.bfloat16):
        found = tiny.encode(items, task="query")
    np.testing.assert_array_equal(found, tiny.encode(items, task="query"))


class Hostile:
    """Whatever one asks of it, it raises; proxies that load late do, when they cannot."""

    def __getattr__(self, name):
        raise RuntimeError(f"no {name}")


class TestWrongItems:
    @pytest.mark.parametrize(
        "bad",
        [
            None,
            3,
            2.5,
            b"RIFF",
            {"audio": "a.wav"},
            ["nested"],
            ("a", "b"),
            np.zeros(8, np.float32),
            object(),
            Hostile(),
        ],
        ids=lambda bad: type(bad).__name__,
    )
    def test_a_wrong_type_in_a_list_is_named(self, encoder, bad):
        """The message says which item, and what an item is."""
        with pytest.raises(InputError, match=r"^item 1\b.*AudioClip") as caught:
            encoder.encode(["fine", bad, "fine"], task="query")
        assert caught.value.index == 1

    def test_a_path_is_not_text(self, encoder, clips):
        """A Path might mean a clip: it has to be said."""
        with pytest.raises(InputError, match="wrap it, AudioClip"):
            encoder.encode([clips[0]], task="query")
        with pytest.raises(InputError, match="wrap it, AudioClip"):
            encoder.encode(clips[0], task="query")

    @pytest.mark.parametrize("bad", [None, 3, b"RIFF", {"a"}, {"a": 1}, np.zeros((2, 8), np.float32)], ids=repr)
    def test_a_wrong_collection_is_refused(self, encoder, bad):
        """Sets and dicts have no order, arrays no rate."""
        with pytest.raises(InputError):
            encoder.encode(bad, task="query")

    @pytest.mark.parametrize("empty", ["", "  \n"])
    def test_an_empty_text_is_refused(self, encoder, empty):
        """There is nothing in it to embed."""
        with pytest.raises(InputError, match=r"item 1.*empty"):
            encoder.encode(["fine", empty], task="document")

    @pytest.mark.parametrize("task", ["queries", None, "Query", 1])
    def test_an_unknown_task_is_refused(self, encoder, task):
        """There are two."""
        with pytest.raises(InputError, match="task"):
            encoder.encode("x", task=task)

    def test_a_string_is_text_whatever_lies_on_disk(self, encoder, clips, monkeypatch):
        """A text that names an existing file is embedded as that text."""
        monkeypatch.chdir(clips[0].parent)
        row = encoder.encode("0.wav", task="document")
        np.testing.assert_array_equal(row, fake_checkpoints.expected("0.wav", "document", DOC_INSTRUCTION))

    def test_encode_partial_names_the_bad_and_keeps_the_rest(self, encoder, clips, tmp_path):
        """Failures say where and why; the others have the vectors that `encode` gives."""
        broken = tmp_path / "broken.wav"
        broken.write_text("not audio")
        items = ["a", AudioClip(broken), AudioClip(clips[0]), None, AudioClip(tmp_path / "missing.wav"), "b"]
        result = encoder.encode_partial(items, task="query")
        assert result.indices.tolist() == [0, 2, 5]
        np.testing.assert_array_equal(result.embeddings, encoder.encode([items[i] for i in (0, 2, 5)], task="query"))
        assert [failure.index for failure in result.failures] == [1, 3, 4]
        assert result.failures[0].source == str(broken)
        assert "not audio" in result.failures[0].reason
        assert "No such file" in result.failures[2].reason

    def test_aencode_partial_gives_the_same(self, encoder, clips, tmp_path):
        """Off the event loop; one item counts as a list of one."""
        items = ["text", AudioClip(clips[0]), AudioClip(tmp_path / "none.wav"), ""]
        expected = encoder.encode_partial(items, task="query")
        found = asyncio.run(encoder.aencode_partial(items, task="query"))
        np.testing.assert_array_equal(found.embeddings, expected.embeddings)
        assert found.indices.tolist() == [0, 1]
        assert found.failures == expected.failures
        assert [failure.index for failure in found.failures] == [2, 3]
        assert asyncio.run(encoder.aencode_partial("", task="query")).failures[0].index == 0

    def test_encode_partial_survives_every_kind_of_bad_clip(self, encoder, clips, tmp_path):
        """Whatever a library raises inside, the neighbours get their vectors."""
        closed = clips[0].open("rb")
        closed.close()
        read, write = os.pipe()
        os.close(write)
        claims_69_billion = bytearray(soundfile_flac(tmp_path))
        claims_69_billion[21] |= 0x0F
        claims_69_billion[22:26] = b"\xff" * 4
        with os.fdopen(read, "rb") as pipe:
            bad = [
                AudioClip(closed),
                AudioClip(pipe),
                AudioClip(bytes(claims_69_billion)),
                AudioClip("lone \udcff surrogate.wav"),
                "lone \udcff surrogate",
                AudioClip(clips[0].read_bytes()[:-100]),
                AudioClip(memoryview(clips[0].read_bytes())[::2]),
                AudioClip(clips[0], start_seconds=1e8),
                AudioClip(np.zeros(4000, np.float32), sampling_rate=10**400),
                AudioClip(Oddity()),
            ]
            result = encoder.encode_partial(["good", *bad, AudioClip(clips[1])], task="document")
        assert [failure.index for failure in result.failures] == list(range(1, len(bad) + 1))
        assert result.indices.tolist() == [0, len(bad) + 1]
        np.testing.assert_array_equal(result.embeddings[1], encoder.encode(AudioClip(clips[1]), task="document"))

    def test_encode_partial_survives_a_link_to_itself(self, fake, tmp_path):
        """Also where references are allowed."""
        loop = tmp_path / "loop.wav"
        loop.symlink_to(loop)
        clip = AudioClip.from_reference(AudioClip(loop).reference(digest=False))
        with ALM2VecEncoder(fake, trust_remote_code=True, allowed_audio_roots=tmp_path) as encoder:
            assert encoder.encode_partial([clip, "good"], task="document").indices.tolist() == [1]

    def test_subclasses_of_str_are_text(self, encoder, clips):
        """The model sees plain strings, which is what the card shows."""

        class Markup(str):
            __slots__ = ()

        expected = encoder.encode(["a", AudioText("a", AudioClip(clips[0]))], task="query", instruction="a")
        for form in (Markup, np.str_):
            items = [form("a"), AudioText(form("a"), AudioClip(clips[0]))]
            np.testing.assert_array_equal(encoder.encode(items, task="query", instruction=form("a")), expected)

    def test_encode_partial_with_nothing_good(self, encoder):
        """No rows, and every failure."""
        result = encoder.encode_partial([None, ""], task="query")
        assert result.embeddings.shape == (0, fake_checkpoints.DIM)
        assert len(result.failures) == 2


class TestModelOutput:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda rows: rows[:-1], "shape"),
            (lambda rows: rows[0], "shape"),
            (lambda rows: rows[:, :-1], "shape"),
            (lambda rows: rows * float("nan"), "NaN"),
            (lambda rows: rows * 0, "zeros"),
            (lambda rows: rows * 1e30, "length"),
            (lambda rows: rows * 1e-20, "length"),
            (lambda rows: rows.to(dtype=torch.complex64), "complex"),
            (lambda rows: rows.int(), "int32"),
            (lambda rows: "vectors", "not a tensor"),
            (lambda rows: rows.to_sparse(), "plain values"),
            (lambda rows: rows.to("meta"), "plain values"),
        ],
        ids=[
            "few rows",
            "one-dimensional",
            "narrow",
            "NaN",
            "zeros",
            "huge",
            "tiny",
            "complex",
            "integers",
            "a string",
            "sparse",
            "meta",
        ],
    )
    def test_what_the_card_rules_out_is_an_error(self, encoder, spoil, message):
        """Rows, width and finiteness are checked on every call."""
        assert encoder.dim == fake_checkpoints.DIM
        fake_checkpoints.on_encode = lambda model, keywords: spoil(fake_checkpoints.vectors(keywords))
        with pytest.raises(ModelContractError, match=message) as caught:
            encoder.encode(["a", "b"], task="query")
        assert "item 0 ('a')" in "\n".join(caught.value.__notes__)

    @pytest.mark.parametrize(
        "form",
        [lambda rows: rows.double(), lambda rows: rows.numpy(), lambda rows: rows.tolist()],
        ids=["float64", "numpy", "list"],
    )
    def test_any_form_of_the_right_rows_is_taken(self, encoder, form):
        """The return's type and dtype are not documented, so they do not matter."""
        plain = encoder.encode(["a", "b"], task="query")
        fake_checkpoints.on_encode = lambda model, keywords: form(fake_checkpoints.vectors(keywords))
        np.testing.assert_array_equal(encoder.encode(["a", "b"], task="query"), plain)

    def test_bfloat16_rows_leave_with_length_one(self, encoder):
        """Normalised in float32 here, whatever the model's own normalisation lost."""
        fake_checkpoints.on_encode = lambda model, keywords: fake_checkpoints.vectors(keywords).bfloat16()
        rows = encoder.encode(["a", "b"], task="query")
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)

    def test_rows_are_left_alone_when_asked(self, encoder):
        """`normalize=False` reaches the model and nothing here scales its rows."""
        row = encoder.encode("a", task="query", normalize=False)
        raw = fake_checkpoints.vector_of("a", "", "query", QUERY_INSTRUCTION).numpy()
        np.testing.assert_array_equal(row, raw)
        assert fake_checkpoints.calls[-1]["normalize"] is False

    def test_rows_are_kept_when_the_model_reuses_its_memory(self, fake):
        """An output buffer of the model's own may be overwritten by the next call."""
        buffer = torch.empty(1, fake_checkpoints.DIM)
        with ALM2VecEncoder(fake, trust_remote_code=True, max_batch_items=1) as encoder:
            expected = encoder.encode(["a", "b", "c"], task="query")
            fake_checkpoints.on_encode = lambda model, keywords: buffer.copy_(fake_checkpoints.vectors(keywords))
            np.testing.assert_array_equal(encoder.encode(["a", "b", "c"], task="query"), expected)

    async def test_stop_iteration_in_the_model(self, encoder):
        """Python would lose it in a coroutine; here it is an error like any other."""

        def stop(model, keywords):
            raise StopIteration

        assert encoder.dim
        fake_checkpoints.on_encode = stop
        with pytest.raises(ModelContractError, match="StopIteration"):
            encoder.encode("x", task="query")
        with pytest.raises(ModelContractError, match="StopIteration"):
            await asyncio.wait_for(encoder.aencode("x", task="query"), timeout=30)

    def test_an_exception_in_the_model_says_what_it_was_encoding(self, encoder):
        """It stays the exception that it was, with a note."""

        def fail(model, keywords):
            if "boom" in keywords["text"]:
                raise ZeroDivisionError("inside the model")

        fake_checkpoints.on_encode = fail
        with pytest.raises(ZeroDivisionError) as caught:
            encoder.encode(["fine", "boom"], task="query")
        assert "item 1 ('boom')" in "\n".join(caught.value.__notes__)


class TestRerank:
    def test_without_a_question_it_orders_by_cosine(self, encoder):
        """Query against documents, best first."""
        query, candidates = "q", [f"candidate {i}" for i in range(6)]
        ranked = encoder.rerank(query, candidates)
        scores = encoder.encode_document(candidates) @ encoder.encode_query(query)
        assert [r.index for r in ranked] == np.argsort(-scores, kind="stable").tolist()
        np.testing.assert_allclose([r.score for r in ranked], np.sort(scores)[::-1], rtol=1e-6)

    def test_a_question_steers_both_sides_as_the_card_does(self, encoder, clips):
        """Clips on either side: paired with the question, as queries under the query instruction."""
        fake_checkpoints.loaded(encoder)
        encoder.rerank(AudioClip(clips[0]), [AudioClip(clip) for clip in clips[1:4]], question="who?")
        for call in fake_checkpoints.calls:
            assert set(call["text"]) == {"who?"}
            assert call["task"] == "query"
            assert call["instruction"] == QUERY_INSTRUCTION

    def test_a_composed_query_brings_its_question(self, encoder, clips):
        """The text of an AudioText is the aspect, unless another is given."""
        query = AudioText("who?", AudioClip(clips[0]))
        ranked = encoder.rerank(query, [AudioClip(clip) for clip in clips])
        assert ranked[0].index == 0
        assert ranked[0].score == pytest.approx(1.0)

    def test_answers_are_embedded_as_documents(self, encoder, clips):
        """Texts among the candidates are answers to the question."""
        encoder.rerank(AudioClip(clips[0]), ["male", "female"], question="who?")
        answers = next(call for call in fake_checkpoints.calls if call.get("text") == ["male", "female"])
        assert (answers["task"], answers["instruction"]) == ("document", DOC_INSTRUCTION)

    def test_top_n(self, encoder):
        """At most that many; below one is an error; no candidates give none."""
        assert len(encoder.rerank("q", ["a", "b", "c"], top_n=2)) == 2
        assert len(encoder.rerank("q", ["a"], top_n=5)) == 1
        assert encoder.rerank("q", []) == []
        for bad in (0, -1, 1.5, True):
            with pytest.raises(InputError, match="top_n"):
                encoder.rerank("q", ["a"], top_n=bad)

    @pytest.mark.parametrize("question", [None, "who?"])
    def test_errors_name_the_candidate_or_the_query(self, encoder, clips, question):
        """By the place in `candidates`, also where clips and texts among them are embedded apart."""
        good, bad = AudioClip(clips[0]), AudioClip("missing.wav")
        with pytest.raises(AudioError, match=r"^item 3, missing\.wav: ") as caught:
            encoder.rerank("q", ["a text", "another", good, bad], question=question)
        assert caught.value.index == 3
        with pytest.raises(AudioError, match=r"^the query, missing\.wav: ") as caught:
            encoder.rerank(bad, [good, good], question=question)
        assert caught.value.index is None
        with pytest.raises(InputError, match=r"^the query, ' ': the text is empty"):
            encoder.rerank(" ", [good], question=question)

    @pytest.mark.parametrize("question", [None, "who?"])
    async def test_async_is_the_same(self, encoder, clips, question):
        """Places, scores and errors."""
        candidates = ["male", AudioClip(clips[1]), "female", AudioClip(clips[2])]
        how = {"question": question, "instruction": "by voice", "top_n": 3}
        expected = encoder.rerank(AudioClip(clips[0]), candidates, **how)
        assert await encoder.arerank(AudioClip(clips[0]), candidates, **how) == expected
        assert len(expected) == 3
        assert await encoder.arerank("q", []) == []
        with pytest.raises(AudioError, match=r"^item 3, missing\.wav: "):
            await encoder.arerank("q", ["a", "b", "c", AudioClip("missing.wav")], question=question)


class TestConstructor:
    @pytest.mark.parametrize(
        "bad",
        [
            {"max_batch_items": 0},
            {"max_batch_items": 2.5},
            {"max_batch_seconds": 0},
            {"verify": "maybe"},
            {"batching": "sometimes"},
            {"dtype": "float64"},
            {"query_instruction": 3},
            {"trust_remote_code": "yes"},
            {"trust_remote_code": 1},
            {"max_batch_seconds": True},
            {"revision": 3},
            {"allowed_audio_roots": ["a\0b"]},
            {"model_kwargs": {1: 2}},
            {"model_kwargs": [1]},
            {"cache_dir": 3},
            {"local_files_only": "no"},
            {"token": 3},
            {"allowed_audio_roots": 3},
            {"allowed_audio_roots": [None]},
            {"allowed_audio_roots": ""},
        ],
        ids=str,
    )
    def test_wrong_arguments_are_refused_at_once(self, bad):
        """Before anything is loaded."""
        with pytest.raises(InputError, match=next(iter(bad))):
            ALM2VecEncoder("alm2vec-tiny", **bad)

    def test_unknown_arguments_are_refused(self):
        """A misspelled keyword is never ignored."""
        with pytest.raises(TypeError, match="instructions"):
            ALM2VecEncoder("alm2vec-tiny", instructions="x")

    def test_nothing_is_loaded_by_construction(self, fake):
        """Only the first use loads."""
        encoder = ALM2VecEncoder(fake, trust_remote_code=True)
        assert fake_checkpoints.loads == []
        encoder.encode("x", task="query")
        assert len(fake_checkpoints.loads) == 1


class Oddity:
    """A file object that fails in its own way."""

    def read(self, size=-1):
        return b""

    def seek(self, position, whence=0):
        raise KeyError("seek")


def soundfile_flac(folder):
    """The bytes of a short FLAC file."""
    return sounds.write(folder / "x.flac", sounds.noise(0.5)).read_bytes()


def test_a_progress_bar_counts_failures_too(encoder, capfd):
    """It ends full."""
    encoder.encode_partial(["a", None, "b"], task="query", show_progress=True)
    assert "3/3" in capfd.readouterr().err


def test_a_progress_bar_on_request_only(encoder, capfd):
    """It goes to standard error and counts items."""
    encoder.encode(["a", "b"], task="query")
    quiet = capfd.readouterr().err
    assert "ALM2Vec" not in quiet
    encoder.encode(["a", "b"], task="query", show_progress=True)
    assert "2/2" in capfd.readouterr().err
