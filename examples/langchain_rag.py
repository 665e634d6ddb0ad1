"""From a question to segments to a chat model that hears them, in one LangChain chain, on a small sound library.

python examples/langchain_rag.py
"""

import base64
import tempfile
from pathlib import Path

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import Field
from sound_library import write_library

from alm2vec_integrations.langchain import (
    ALM2VecEmbeddings,
    ALM2VecReranker,
    ALM2VecRetriever,
    AudioLoader,
    to_audio_message,
)

MODEL = "alm2vec-tiny"  # a demonstration that knows these sounds; "cara-ai/ALM2Vec-FT" is the real one


class Recorder(BaseChatModel):
    """Stands in for a chat model that hears, as ChatOpenAI(model="gpt-audio"): it records what it gets."""

    received: list[BaseMessage] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "recorder"

    def _generate(self, messages: list[BaseMessage], *_: object, **__: object) -> ChatResult:
        self.received += messages
        heard = sum(block["type"] == "audio" for message in messages for block in message.content_blocks)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"I was given {heard} recordings."))])


def main(folder: Path, model: BaseChatModel) -> str:
    """Index the folder, find what answers a question, and hand it to the model; returns its answer."""
    write_library(folder)
    embeddings = ALM2VecEmbeddings(model=MODEL, allowed_audio_roots=[folder])
    store = InMemoryVectorStore(embeddings)
    store.add_documents(AudioLoader(folder, segment_seconds=3).load())

    # Six candidates by the question's words, of which the two are kept whose background is closest to them.
    retriever = ALM2VecRetriever(vectorstore=store, k=6)
    reranker = ALM2VecReranker(embeddings=embeddings, question="Describe the background noise of this audio?", top_n=2)
    find = RunnablePassthrough.assign(documents=lambda asked: retriever.invoke(asked["about"]))
    best = RunnablePassthrough.assign(
        documents=lambda asked: reranker.compress_documents(asked["documents"], asked["about"])
    )

    def message(asked: dict) -> list[BaseMessage]:
        return [to_audio_message(asked["question"], asked["documents"], allowed_audio_roots=[folder])]

    chain = find | best | message | model
    return str(chain.invoke({"question": "Is anyone at the door in this weather?", "about": "rain"}).content)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        recorder = Recorder()
        answer = main(Path(made), recorder)
        for block in recorder.received[0].content_blocks:
            is_audio = block["type"] == "audio"
            print(f"  <{len(base64.b64decode(block['base64']))} bytes of WAV>" if is_audio else block["text"])
        print(answer)
