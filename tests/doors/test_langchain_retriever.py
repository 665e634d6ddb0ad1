"""The retriever: what may be said where, what comes first, and what is refused rather than ignored."""

import asyncio

import fake_checkpoints
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.runnables import ConfigurableField
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from alm2vec_integrations import DOC_INSTRUCTION, QUERY_INSTRUCTION, AudioAccessError, AudioClip, InputError
from alm2vec_integrations.langchain import ALM2VecEmbeddings, ALM2VecRetriever


@pytest.fixture
def embeddings(fake, clips):
    return ALM2VecEmbeddings(model=fake, trust_remote_code=True, allowed_audio_roots=clips[0].parent)


@pytest.fixture
def store(embeddings):
    store = InMemoryVectorStore(embeddings)
    store.add_texts([f"text {i}" for i in range(6)])
    fake_checkpoints.calls.clear()
    return store


@pytest.fixture
def retriever(store):
    return ALM2VecRetriever(vectorstore=store)


def asked():
    """What the encoder was asked since: (text, whether audio, task, instruction)."""
    seen = [
        (text, "audio" in call, call["task"], call["instruction"])
        for call in fake_checkpoints.calls
        for text in call.get("text", [None])
    ]
    fake_checkpoints.calls.clear()
    return seen


class TestWhatIsEmbedded:
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_each_kind_of_query(self, retriever, clips, asynchronous):
        """As the core has it: words, a clip, a clip and a question; and an answer, which is a document."""
        find = (lambda *a, **k: asyncio.run(retriever.ainvoke(*a, **k))) if asynchronous else retriever.invoke
        q, d, path = QUERY_INSTRUCTION, DOC_INSTRUCTION, clips[0]
        for query, keywords, expected in [
            ("words", {}, ("words", False, "query", q)),
            ({"text": "words"}, {}, ("words", False, "query", q)),
            ({"audio": path}, {}, (None, True, "query", q)),
            ({"audio": AudioClip(path, start_seconds=0.1)}, {}, (None, True, "query", q)),
            ({"audio": str(path)}, {}, (None, True, "query", q)),
            ({"audio": AudioClip(path).reference()}, {}, (None, True, "query", q)),
            ({"audio": path, "text": "who?"}, {}, ("who?", True, "query", q)),
            ({"audio": path, "question": "who?"}, {}, ("who?", True, "query", q)),
            ({"audio": path}, {"question": "who?"}, ("who?", True, "query", q)),
            ("who?", {"audio": path}, ("who?", True, "query", q)),
            ({"audio": path}, {"text": "who?"}, ("who?", True, "query", q)),
            ({"instruction": "i"}, {"text": "words"}, ("words", False, "query", "i")),
            ("male", {"question": "who?"}, ("male", False, "document", d)),
            ({"text": "male", "question": "who?"}, {"instruction": "i"}, ("male", False, "document", "i")),
            ({"audio": path, "text": "who?", "instruction": "i"}, {}, ("who?", True, "query", "i")),
        ]:
            assert len(find(query, **keywords)) == 4
            assert asked() == [expected]

    def test_results_are_those_of_the_vector(self, store, retriever, embeddings, clips):
        """The same documents as searching by the embeddings' own vector."""
        vector = embeddings.embed_audio_query(clips[3], "who?", instruction="i")
        expected = [one.page_content for one in store.similarity_search_by_vector(vector, k=6)]
        found = retriever.invoke({"audio": clips[3], "text": "who?"}, k=6, instruction="i")
        assert [one.page_content for one in found] == expected

    def test_which_instruction_comes_first(self, store):
        """That of the call, of the item, of the field, of the embeddings, the published one; "" is none."""
        store.embedding = store.embedding.with_instructions(query="embeddings")
        retriever = ALM2VecRetriever(vectorstore=store, instruction="field")
        item = {"text": "q", "instruction": "item"}
        retriever.invoke(item, instruction="call")
        retriever.bind(instruction="bound").invoke(item, instruction="call")
        retriever.bind(instruction="bound").invoke("q")
        retriever.invoke(item)
        retriever.invoke(item | {"instruction": ""})
        retriever.invoke("q", instruction="")
        ALM2VecRetriever(vectorstore=store, instruction="").invoke("q")
        store.embedding = store.embedding.with_instructions(query="")
        ALM2VecRetriever(vectorstore=store).invoke("q")
        assert [instruction for *_, instruction in asked()] == [
            "call", "call", "bound", "item", "field", "field", "embeddings", QUERY_INSTRUCTION
        ]  # fmt: skip

    def test_which_question_comes_first(self, store, clips):
        """That of the call, of the item, of the field; a text beside audio comes before the field's."""
        retriever = ALM2VecRetriever(vectorstore=store, question="field")
        item = {"audio": clips[0], "question": "item"}
        retriever.invoke(item, question="call")
        retriever.invoke(item)
        retriever.invoke({"audio": clips[0]})
        retriever.invoke({"audio": clips[0], "text": "text"})
        retriever.batch([item, {"audio": clips[0]}], {"max_concurrency": 1})
        assert [text for text, *_ in asked()] == ["call", "item", "field", "text", "item", "field"]

    def test_answers_have_the_documents_instruction(self, store, clips):
        """That of the embeddings, unless it is meant for documents that are embedded as queries."""
        base = store.embedding.with_instructions(document="stored")
        for embeddings, expected in (
            (base, "stored"),
            (base.with_settings(document_task="query", document_question="who?"), DOC_INSTRUCTION),
        ):
            store.embedding = embeddings
            ALM2VecRetriever(vectorstore=store, question="who?").invoke("male")
            assert asked() == [("male", False, "document", expected)]

    def test_nothing_sticks(self, retriever, embeddings):
        """After a search, and after one that failed, the embeddings embed what they are given."""
        retriever.invoke("q", instruction="i")
        with pytest.raises(TypeError):
            retriever.invoke("q", instruction="i", filter=3)
        asked()
        embeddings.embed_query("q")
        assert asked() == [("q", False, "query", QUERY_INSTRUCTION)]

    def test_other_texts_in_a_search_are_themselves(self, embeddings, clips):
        """A store that asks for more than the query gets the vectors of what it asks for."""

        class Curious(InMemoryVectorStore):
            def similarity_search(self, query, k=4, **kwargs):
                self.other = self.embedding.embed_query("other")
                self.own = self.embedding.embed_query(query, instruction="own")
                return super().similarity_search(query, k, **kwargs)

        store = Curious(embeddings)
        store.add_texts(["a"])
        ALM2VecRetriever(vectorstore=store).invoke({"audio": clips[0], "text": "who?"}, instruction="i")
        assert store.other == embeddings.embed_query("other")
        assert store.own == embeddings.embed_query("who?", instruction="own")


class TestWaysToSayIt:
    def test_configurable_fields(self, store, clips):
        """Question, instruction and k by configuration."""
        configurable = ALM2VecRetriever(vectorstore=store).configurable_fields(
            question=ConfigurableField(id="question"),
            instruction=ConfigurableField(id="instruction"),
            k=ConfigurableField(id="k"),
        )
        config = {"configurable": {"question": "who?", "instruction": "i", "k": 2}}
        assert len(configurable.invoke({"audio": clips[0]}, config)) == 2
        assert asked() == [("who?", True, "query", "i")]
        assert len(configurable.invoke({"audio": clips[0]})) == 4
        assert asked() == [(None, True, "query", QUERY_INSTRUCTION)]

    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_k(self, store, asynchronous):
        """Of the call, of the field, of the search_kwargs, of the store."""

        def count(retriever, **keywords):
            if asynchronous:
                return len(asyncio.run(retriever.ainvoke("q", **keywords)))
            return len(retriever.invoke("q", **keywords))

        assert count(ALM2VecRetriever(vectorstore=store)) == 4
        assert count(ALM2VecRetriever(vectorstore=store, search_kwargs={"k": 3})) == 3
        assert count(ALM2VecRetriever(vectorstore=store, search_kwargs={"k": 3}), k=2) == 2
        assert count(ALM2VecRetriever(vectorstore=store, k=5)) == 5
        assert count(ALM2VecRetriever(vectorstore=store, k=5), k=1) == 1

    def test_the_input_is_described(self, retriever):
        """A text, or an object with the four parts."""
        schema = retriever.get_input_jsonschema()
        assert set(schema["$defs"]["Query"]["properties"]) == {"text", "audio", "question", "instruction"}
        assert retriever.get_input_schema().model_validate({"audio": AudioClip("x.wav"), "text": "who?"})

    async def test_as_a_tool(self, retriever):
        """Of one text, as LangChain's own; of parts where their types are given, as after `bind`."""
        tool = retriever.as_tool(description="Finds sounds.")
        assert (tool.name, tool.description, list(tool.args)) == ("ALM2VecRetriever", "Finds sounds.", ["tool_input"])
        assert len(tool.invoke("q")) == len(await tool.ainvoke("q")) == 4
        assert asked() == [("q", False, "query", QUERY_INSTRUCTION)] * 2
        parts = retriever.as_tool(name="sounds", arg_types={"text": str, "question": str})
        assert (parts.name, set(parts.args)) == ("sounds", {"text", "question"})
        assert len(parts.invoke({"text": "male", "question": "who?"})) == 4
        assert asked() == [("male", False, "document", DOC_INSTRUCTION)]
        bound = retriever.bind(instruction="i", k=1)
        for one, given in (
            (bound.with_types(input_type=str).as_tool(), "q"),
            (bound.as_tool(arg_types={"text": str}), {"text": "q"}),
        ):
            assert len(one.invoke(given)) == len(await one.ainvoke(given)) == 1
            assert asked() == [("q", False, "query", "i")] * 2

    def test_in_a_chain(self, retriever, clips):
        """Between other runnables."""
        chain = (lambda path: {"audio": path}) | retriever | (lambda found: len(found))
        assert chain.invoke(clips[0]) == 4
        assert asked() == [(None, True, "query", QUERY_INSTRUCTION)]


class TestRefusals:
    @pytest.mark.parametrize(
        "keyword", ["instructions", "query_instruction", "Instruction", "questions", "audios", "texts"]
    )
    def test_misspelt_keywords(self, retriever, keyword):
        """The store would take them, and drop them."""
        with pytest.raises(InputError, match=f"no keyword '{keyword}': did you mean"):
            retriever.invoke("q", **{keyword: "x"})
        with pytest.raises(InputError, match="did you mean"):
            asyncio.run(retriever.ainvoke("q", **{keyword: "x"}))
        with pytest.raises(ValidationError, match=f"no keyword '{keyword}': did you mean"):
            ALM2VecRetriever(vectorstore=retriever.vectorstore, search_kwargs={keyword: "x"})
        assert asked() == []

    @pytest.mark.parametrize(
        ("keyword", "instead"),
        [("clip", "audio="), ("top_k", "k="), ("search_type", "field search_type"), ("search_kwargs", "by themselves")],
    )
    def test_misplaced_keywords(self, retriever, keyword, instead):
        """They too would be dropped."""
        message = f"a search has no keyword '{keyword}': use .*{instead}"
        with pytest.raises(InputError, match=message):
            retriever.invoke("q", **{keyword: "x"})
        with pytest.raises(InputError, match=message):
            asyncio.run(retriever.bind(**{keyword: "x"}).ainvoke("q"))
        with pytest.raises(ValidationError, match=message):
            ALM2VecRetriever(vectorstore=retriever.vectorstore, search_kwargs={keyword: "x"})
        assert asked() == []

    @pytest.mark.parametrize("keyword", ["filter", "fetch_k", "lambda_mult", "score_threshold", "where_document",
                                         "search_params", "consistency", "offset", "ef", "alpha"])  # fmt: skip
    def test_keywords_of_stores_are_not_taken_for_misspelt(self, embeddings, keyword):
        """They reach the store."""

        class Telling(InMemoryVectorStore):
            def similarity_search(self, query, k=4, **kwargs):
                self.told = kwargs
                return super().similarity_search(query, k)

        store = Telling(embeddings)
        ALM2VecRetriever(vectorstore=store).invoke("q", **{keyword: "x"})
        assert store.told == {keyword: "x"}

    @pytest.mark.parametrize(
        ("query", "keywords", "message"),
        [
            ({"text": "q", "instructions": "x"}, {}, r"a query has .*, got \['instructions'\]"),
            ({}, {}, 'neither "text" nor "audio"'),
            ({"instruction": "x"}, {}, 'neither "text" nor "audio"'),
            (3, {}, "a query is a str or a dict of .*, got int"),
            ({"text": 3}, {}, '"text" must be a str, got int'),
            ({"text": AudioClip("x.wav")}, {}, '"text" must be a str, got AudioClip'),
            (" ", {}, "the text is empty"),
            ({"audio": 3}, {}, "AudioClip takes a path"),
            ({"audio": "http://example.org/x.wav"}, {}, "download the file first"),
            ({"audio": "audio:x.wav#t=1,"}, {}, "malformed reference"),
            ({"audio": "x.wav"}, {"audio": "y.wav"}, "audio was given twice"),
            ("q", {"text": "r"}, "text was given twice"),
            ({}, {"text": 3}, '"text" must be a str, got int'),
            ({"audio": "x.wav", "text": "who?"}, {"question": "what?"}, "leave out the text or the question"),
            ({"audio": "x.wav", "text": "who?", "question": "what?"}, {}, "leave out the text or the question"),
            ("q", {"instruction": 3}, "instruction must be a str or None, got 3"),
            ("q", {"question": 3}, "question must be a str or None, got 3"),
            ("q", {"k": 0}, "k must be a whole number of 1 or more"),
            ("q", {"k": True}, "k must be a whole number of 1 or more"),
        ],
    )
    def test_what_makes_no_query(self, retriever, query, keywords, message):
        """Named before anything is searched."""
        with pytest.raises(InputError, match=message):
            retriever.invoke(query, **keywords)
        assert asked() == []

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            ({"instructions": "x"}, "instructions"),
            ({"k": 0}, "k must be"),
            ({"k": True}, "k must be"),
            ({"search_kwargs": {"k": 0}}, "k must be"),
            ({"k": 2, "search_kwargs": {"k": 3}}, "k was given twice"),
            ({"search_kwargs": {"instruction": "x"}}, "does not know 'instruction'"),
            ({"search_kwargs": {"audio": "x"}}, "does not know 'audio'"),
            ({"search_kwargs": {"text": "x"}}, "does not know 'text'"),
        ],
    )
    def test_fields(self, store, fields, message):
        """Misspelt ones, and what would be handed to a store that ignores it."""
        with pytest.raises(ValidationError, match=message):
            ALM2VecRetriever(vectorstore=store, **fields)

    def test_a_reference_outside_the_roots(self, retriever, tmp_path, clips):
        """Not opened, nor one while there are no roots; while a path that code gives is."""
        outside = tmp_path / "outside.wav"
        outside.write_bytes(clips[0].read_bytes())
        with pytest.raises(AudioAccessError, match="outside"):
            retriever.invoke({"audio": AudioClip(outside).reference()})
        assert asked() == []
        assert retriever.invoke({"audio": outside})

    def test_a_text_like_a_reference_is_text(self, retriever, clips):
        """Wherever text stands."""
        reference = AudioClip(clips[0]).reference()
        retriever.invoke(reference)
        retriever.invoke({"text": reference})
        assert asked() == [(reference, False, "query", QUERY_INSTRUCTION)] * 2


class TestAStoreThatNeverAsks:
    """Its documents would be the answer to something else."""

    @pytest.mark.parametrize("query", ["q", {"audio": "here"}])
    @pytest.mark.parametrize("asynchronous", [False, True])
    def test_other_embeddings(self, clips, query, asynchronous):
        store = InMemoryVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_texts(["a"])
        retriever = ALM2VecRetriever(vectorstore=store)
        query = query if query == "q" else {"audio": clips[0]}
        with pytest.raises(InputError, match=r"InMemoryVectorStore did not ask .*DeterministicFakeEmbedding"):
            asyncio.run(retriever.ainvoke(query)) if asynchronous else retriever.invoke(query)

    def test_a_store_that_searches_by_words(self, embeddings):
        class ByWords(InMemoryVectorStore):
            def similarity_search(self, query, k=4, **kwargs):
                return self.get_by_ids(list(self.store))

        store = ByWords(embeddings)
        store.add_texts(["a"])
        with pytest.raises(InputError, match="ByWords did not ask"):
            ALM2VecRetriever(vectorstore=store).invoke("q")

    def test_a_store_that_loses_the_context(self, embeddings):
        """A thread that does not know the context would embed the text alone."""
        import threading

        class InAThread(InMemoryVectorStore):
            def similarity_search(self, query, k=4, **kwargs):
                found = []
                thread = threading.Thread(
                    target=lambda: found.extend(InMemoryVectorStore.similarity_search(self, query))
                )
                thread.start()
                thread.join()
                return found

        store = InAThread(embeddings)
        store.add_texts(["a"])
        assert store.similarity_search("q")
        with pytest.raises(InputError, match="InAThread did not ask"):
            ALM2VecRetriever(vectorstore=store).invoke("q", instruction="i")
