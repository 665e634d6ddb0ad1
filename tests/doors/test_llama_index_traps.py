"""What goes wrong without a word behind LlamaIndex, each shown to go wrong in a naive wrapper."""

import dataclasses
import re
from types import SimpleNamespace

import fake_checkpoints
import naive_llama_index
import pytest
import sounds
from llama_index.core import StorageContext, VectorStoreIndex
from llama_index.core.embeddings import MockMultiModalEmbedding
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.schema import Document, MediaResource, MetadataMode, Node, QueryBundle, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.utils import metadata_dict_to_node, node_to_metadata_dict

from alm2vec_integrations import ALM2VecEncoder, AudioClip, AudioText
from alm2vec_integrations.llama_index import (
    ALM2VecEmbedding,
    AudioAsText,
    AudioNode,
    AudioNodeParser,
    AudioQueryBundle,
    AudioReader,
)

INSTRUCTION = "Represent the audio by the background noise."


@pytest.fixture
def core(fake):
    with ALM2VecEncoder(fake, trust_remote_code=True, device="cpu") as core:
        fake_checkpoints.loaded(core)
        yield core


@pytest.fixture
def ours(fake, clips):
    def embedding(instruction=None, **fields):
        return ALM2VecEmbedding(
            model_name=fake, trust_remote_code=True, device="cpu", allowed_audio_roots=clips[0].parent,
            query_instruction=instruction, text_instruction=instruction, **fields,
        )  # fmt: skip

    return SimpleNamespace(
        embedding=embedding,
        documents=lambda paths: [document for path in paths for document in AudioReader().load_data(path)],
        nodes=lambda paths: [AudioNode.from_clip(path) for path in paths],
        node=AudioNode,
        texts=AudioAsText(),
        transformations=[AudioNodeParser(allowed_audio_roots=clips[0].parent)],
        bundle=AudioQueryBundle,
    )


@pytest.fixture
def naive(core):
    def embedding(instruction=None, **fields):
        return naive_llama_index.NaiveEmbedding(core, instruction, **fields)

    return SimpleNamespace(
        embedding=embedding,
        documents=naive_llama_index.documents,
        nodes=naive_llama_index.nodes,
        node=naive_llama_index.NaiveAudioNode,
        texts=list,
        transformations=[],
        bundle=naive_llama_index.NaiveQueryBundle,
    )


def documents_vector(core, path, instruction=None):
    return core.encode_document(AudioClip(path), instruction=instruction).tolist()


def stored(index):
    """The vectors of an index in LlamaIndex's own store."""
    return list(index.vector_store.data.embedding_dict.values())


def made_or_refused(make, words):
    """What `make` makes; None where it is refused in words like these."""
    try:
        return make()
    except ValueError as error:
        if not re.search(words, str(error)):
            raise
        return None


def the_ingestion_cache_tells_recordings_apart(kit, core, clips):
    pipeline = IngestionPipeline(transformations=[*kit.transformations, kit.embedding()])
    found = [pipeline.run(nodes=kit.nodes([path]))[0].embedding for path in clips[:2]]
    assert found[0] != found[1]
    assert found == [documents_vector(core, path) for path in clips[:2]]


def the_ingestion_cache_tells_instructions_apart(kit, core, clips):
    cache = IngestionPipeline(transformations=[]).cache
    for instruction in (None, INSTRUCTION):
        pipeline = IngestionPipeline(transformations=[kit.embedding(instruction)], cache=cache)
        found = pipeline.run(nodes=[TextNode(text="a dog")])[0].embedding
        assert found == core.encode_document("a dog", instruction=instruction).tolist()


def documents_are_embedded_by_their_sound(kit, core, clips):
    index = VectorStoreIndex.from_documents(
        kit.documents(clips[:1]), embed_model=kit.embedding(), transformations=kit.transformations
    )
    assert stored(index) == [documents_vector(core, clips[0])]


def a_text_splitter_does_not_eat_the_sound(kit, core, clips):
    """Refused, or right."""

    def make():
        return VectorStoreIndex.from_documents(kit.documents(clips[:1]), embed_model=kit.embedding())

    index = made_or_refused(make, "AudioNodeParser")
    assert index is None or stored(index) == [documents_vector(core, clips[0])]


def an_index_of_nodes_holds_them_all(kit, core, clips):
    index = VectorStoreIndex(kit.nodes(clips[:3]), embed_model=kit.embedding())
    assert len(stored(index)) == 3


def nodes_with_vectors_are_not_dropped(kit, core, clips):
    nodes = kit.embedding()(kit.nodes(clips[:2]))
    assert len(stored(VectorStoreIndex(nodes, embed_model=kit.embedding()))) == 2


def inserted_nodes_are_embedded_by_their_sound(kit, core, clips):
    index = VectorStoreIndex([], embed_model=kit.embedding())
    index.insert_nodes(kit.nodes(clips[:1]))
    assert stored(index) == [documents_vector(core, clips[0])]


def a_cached_vector_is_of_its_task(kit, core, clips):
    """Refused, or right."""
    embedding = made_or_refused(lambda: kit.embedding(embeddings_cache=SimpleKVStore()), "goes by text alone")
    if embedding is not None:
        embedding.get_text_embedding("a dog")
        assert embedding.get_query_embedding("a dog") == core.encode_query("a dog").tolist()


def another_instruction_takes_effect_after_retrieval(kit, core, clips):
    index = VectorStoreIndex(kit.nodes(clips[:3]), embed_model=kit.embedding())
    first = kit.bundle("", audio=clips[0])
    index.as_retriever().retrieve(first)
    second = dataclasses.replace(first, instruction=INSTRUCTION)
    index.as_retriever().retrieve(second)
    assert list(second.embedding) == core.encode_query(AudioClip(clips[0]), instruction=INSTRUCTION).tolist()


def a_clip_and_a_question_are_one_query(kit, core, clips):
    bundle = kit.bundle("who?", audio=clips[0])
    found = kit.embedding().get_agg_embedding_from_queries(bundle.embedding_strs)
    assert found == core.encode_query(AudioText("who?", AudioClip(clips[0]))).tolist()


def a_recording_made_anew_is_embedded_anew(kit, core, clips):
    store = SimpleVectorStore()
    pipeline = IngestionPipeline(
        transformations=[*kit.transformations, kit.embedding()], docstore=SimpleDocumentStore(), vector_store=store
    )
    found = []
    for seed in (1, 2):
        sounds.write(clips[0], sounds.noise(0.5, seed=seed))
        pipeline.run(documents=kit.documents(clips[:1]))
        found.append(list(store.data.embedding_dict.values()))
    assert found[0] != found[1]
    assert found[1] == [documents_vector(core, clips[0])]


def bytes_are_not_lost_in_a_store(kit, core, clips):
    """Refused, or kept."""
    resource = MediaResource(data=clips[0].read_bytes())
    node = made_or_refused(lambda: kit.node(audio_resource=resource), "write them to a file")
    if node is not None:
        docstore = SimpleDocumentStore()
        docstore.add_documents([node])
        assert docstore.get_document(node.node_id).audio_resource.data is not None


def an_address_does_not_break_persisting(kit, core, clips):
    """Of a node, where it comes back as a string."""
    node = kit.node(audio_resource=MediaResource(path=clips[0], url="https://example.org/a.wav"))
    folder = str(clips[0].parent / "stored")
    context = StorageContext.from_defaults()
    context.docstore.add_documents([node])
    context.persist(folder)
    back = StorageContext.from_defaults(persist_dir=folder).docstore.get_document(node.node_id)
    assert back.metadata["audio_url"] == "https://example.org/a.wav"


def an_address_of_a_document_does_not_break_a_docstore(kit, core, clips):
    """Refused before the docstore, which the pipeline gives it to afterwards, has it."""
    docstore, resource = SimpleDocumentStore(), MediaResource(path=clips[0], url="https://example.org/a.wav")
    pipeline = IngestionPipeline(
        transformations=[*kit.transformations, kit.embedding()], docstore=docstore, vector_store=SimpleVectorStore()
    )
    document = Document(audio_resource=resource, text_resource=MediaResource(text=""))
    made_or_refused(lambda: pipeline.run(documents=[document]), "keep the link in the metadata")
    docstore.persist(str(clips[0].parent / "docstore.json"))


def the_ingestion_cache_tells_documents_of_others_apart(kit, core, clips):
    """Which other readers have made, with nothing in them to tell them apart by: refused, or right."""
    pipeline = IngestionPipeline(transformations=[*kit.transformations, kit.embedding()])
    found = []
    for path in clips[:2]:
        document = Document(audio_resource=MediaResource(path=path), metadata={"file_path": str(path)})
        nodes = made_or_refused(lambda one=document: pipeline.run(documents=[one]), "tells .* from other recordings")
        found.append(None if nodes is None else nodes[0].embedding)
    assert found in ([None, None], [documents_vector(core, path) for path in clips[:2]])


def the_ingestion_cache_tells_nodes_of_others_apart(kit, core, clips):
    """As those."""
    pipeline = IngestionPipeline(transformations=[kit.embedding()])
    found = []
    for path in clips[:2]:
        node = Node(audio_resource=MediaResource(path=path), text_resource=MediaResource(text=""))
        nodes = made_or_refused(lambda one=node: pipeline.run(nodes=[one]), "tells .* from other recordings")
        found.append(None if nodes is None else nodes[0].embedding)
    assert found in ([None, None], [documents_vector(core, path) for path in clips[:2]])


def an_index_for_images_holds_them_too(kit, core, clips):
    """Which takes nothing but texts and images, and leaves the rest out."""
    index = MultiModalVectorStoreIndex(
        kit.texts(kit.nodes(clips[:2])),
        embed_model=kit.embedding(),
        image_embed_model=MockMultiModalEmbedding(embed_dim=3),
    )
    assert stored(index) == [documents_vector(core, path) for path in clips[:2]]
    hits = index.as_retriever(similarity_top_k=2).retrieve(kit.bundle("", audio=clips[1]))
    assert {hit.metadata["file_path"] for hit in hits} == {str(path) for path in clips[:2]}


def a_node_comes_back_from_stores_with_its_sound(kit, core, clips):
    node = kit.nodes(clips[:1])[0]
    node.embedding = [1.0]
    back = metadata_dict_to_node(node_to_metadata_dict(node, flat_metadata=True))
    assert getattr(back, "audio_resource", None) is not None
    assert str(back.audio_resource.path) == str(clips[0])
    assert back.text_resource is not None  # without one, Qdrant and LanceDB fail at query time


def an_llm_without_ears_gets_some_context(kit, core, clips):
    assert kit.nodes(clips[:1])[0].get_content(metadata_mode=MetadataMode.LLM) != ""


def a_string_is_never_a_path(kit, core, clips):
    embedding = kit.embedding()
    assert embedding.get_query_embedding(str(clips[0])) == core.encode_query(str(clips[0])).tolist()
    assert embedding.get_text_embedding(str(clips[0])) == core.encode_document(str(clips[0])).tolist()


def texts_are_embedded_together(kit, core, clips):
    kit.embedding().get_text_embedding_batch([f"text {i}" for i in range(25)])
    assert [len(call["text"]) for call in fake_checkpoints.calls] == [25]


def a_misspelled_keyword_is_refused(kit, core, clips):
    with pytest.raises(ValueError, match="normalise"):
        kit.embedding(normalise=False)


def what_decides_vectors_is_in_the_dump(kit, core, clips):
    assert kit.embedding().to_dict() != kit.embedding(INSTRUCTION).to_dict()


def a_retriever_has_its_own_instruction(kit, core, clips):
    embedding = kit.embedding()
    index = VectorStoreIndex(kit.nodes(clips[:1]), embed_model=embedding)
    bundle = QueryBundle("a dog")
    index.as_retriever(embed_model=embedding.with_instructions(query=INSTRUCTION)).retrieve(bundle)
    assert bundle.embedding == core.encode_query("a dog", instruction=INSTRUCTION).tolist()


# With what goes wrong in the naive wrapper: most often, the vectors, without a word.
TRAPS = {
    the_ingestion_cache_tells_recordings_apart: AssertionError,
    the_ingestion_cache_tells_instructions_apart: AssertionError,
    documents_are_embedded_by_their_sound: AssertionError,
    a_text_splitter_does_not_eat_the_sound: AssertionError,
    an_index_of_nodes_holds_them_all: AssertionError,
    nodes_with_vectors_are_not_dropped: AssertionError,
    inserted_nodes_are_embedded_by_their_sound: AssertionError,
    a_cached_vector_is_of_its_task: AssertionError,
    another_instruction_takes_effect_after_retrieval: AssertionError,
    a_clip_and_a_question_are_one_query: AssertionError,
    a_recording_made_anew_is_embedded_anew: AssertionError,
    bytes_are_not_lost_in_a_store: AssertionError,
    an_address_does_not_break_persisting: TypeError,  # of JSON
    an_address_of_a_document_does_not_break_a_docstore: TypeError,
    the_ingestion_cache_tells_documents_of_others_apart: AssertionError,
    the_ingestion_cache_tells_nodes_of_others_apart: AssertionError,
    an_index_for_images_holds_them_too: AssertionError,
    a_node_comes_back_from_stores_with_its_sound: AssertionError,
    an_llm_without_ears_gets_some_context: AssertionError,
    a_string_is_never_a_path: AssertionError,
    texts_are_embedded_together: AssertionError,
    a_misspelled_keyword_is_refused: pytest.fail.Exception,
    what_decides_vectors_is_in_the_dump: AssertionError,
    a_retriever_has_its_own_instruction: AssertionError,
}


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_ours_falls_into_none(trap, ours, core, clips):
    trap(ours, core, clips)


@pytest.mark.parametrize("trap", TRAPS, ids=lambda trap: trap.__name__)
def test_a_naive_wrapper_falls_into_each(trap, naive, core, clips):
    """So the check can fail, and for its own reason."""
    with pytest.raises(TRAPS[trap]) as caught:
        trap(naive, core, clips)
    assert type(caught.value) is TRAPS[trap]
