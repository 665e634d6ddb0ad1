"""Find recordings and have a language model listen to them, on a small sound library that it makes first.

python examples/llama_index_rag.py

The model that answers here is a stand-in that says what it was given. Put an LLM of LlamaIndex in its place that takes
audio.
"""

import tempfile
from pathlib import Path
from typing import Any

from llama_index.core import SimpleDirectoryReader, VectorStoreIndex
from llama_index.core.base.llms.types import (
    AudioBlock,
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms import CustomLLM
from pydantic import PrivateAttr
from sound_library import write_library

from alm2vec_integrations import QUESTIONS
from alm2vec_integrations.llama_index import (
    ALM2VecEmbedding,
    ALM2VecRerank,
    AudioNodeParser,
    AudioQueryBundle,
    AudioReader,
)

MODEL = "alm2vec-tiny"  # a demonstration that knows these sounds; "cara-ai/ALM2Vec-FT" is the real one


class Listener(CustomLLM):
    """Stands for an LLM with ears: it answers with the names of the recordings that it was given."""

    _heard: list[AudioBlock] = PrivateAttr(default_factory=list)

    @property
    def heard(self) -> list[AudioBlock]:
        """The recordings of all chats so far."""
        return self._heard

    @property
    def metadata(self) -> LLMMetadata:
        """A model that chats."""
        return LLMMetadata(is_chat_model=True, model_name="listener", context_window=100_000)

    def chat(self, messages: list[ChatMessage], **_: Any) -> ChatResponse:
        """Listen, and read which recordings these are."""
        blocks = [block for message in messages for block in message.blocks]
        audio = [block for block in blocks if isinstance(block, AudioBlock)]
        self._heard.extend(audio)
        lines = [line for block in blocks if isinstance(block, TextBlock) for line in block.text.splitlines()]
        names = [Path(line).stem for line in lines if line.startswith("file_path: ")]
        return ChatResponse(message=ChatMessage(role="assistant", content=f"{len(audio)} recordings heard: {names}"))

    def complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponse:
        """There is nothing to hear in a text."""
        raise NotImplementedError

    def stream_complete(self, prompt: str, formatted: bool = False, **_: Any) -> CompletionResponseGen:
        """There is nothing to hear in a text."""
        raise NotImplementedError


def main(folder: Path) -> None:
    """Index the library, retrieve by text, clip and clip with a question, then answer."""
    paths = write_library(folder)
    reader = SimpleDirectoryReader(folder, file_extractor={".flac": AudioReader()}, raise_on_error=True)
    embedding = ALM2VecEmbedding(model_name=MODEL, allowed_audio_roots=[folder])
    index = VectorStoreIndex.from_documents(
        reader.load_data(), embed_model=embedding, transformations=[AudioNodeParser()]
    )

    retriever = index.as_retriever(similarity_top_k=3)
    queries = [
        AudioQueryBundle("a church bell in the wind"),
        AudioQueryBundle(QUESTIONS["background"], audio=paths[0]),
        AudioQueryBundle("What is the main sound?", audio=paths[0]),
    ]
    for query in queries:
        print(f"\n{query.query_str}" if query.audio is None else f'\n{paths[0].stem}, "{query.query_str}"')
        for hit in retriever.retrieve(query):
            print(f"  {hit.score:7.4f}  {Path(hit.metadata['file_path']).stem}")

    engine = index.as_query_engine(
        llm=Listener(),
        multimodal=True,
        similarity_top_k=7,
        node_postprocessors=[ALM2VecRerank(embed_model=embedding, top_n=2)],
    )
    print(f"\nAnswer\n  {engine.query(queries[1])}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
