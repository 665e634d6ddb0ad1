"""The model's four jobs on a folder of audio, through LangChain's in-memory vector store.

python examples/quickstart.py             makes a small sound library first
python examples/quickstart.py FOLDER      takes your recordings (WAV and FLAC files)
"""

import sys
import tempfile
from pathlib import Path

from langchain_core.vectorstores import InMemoryVectorStore
from sound_library import write_library

from alm2vec_integrations import QUESTIONS, AudioClip
from alm2vec_integrations.langchain import ALM2VecEmbeddings

MODEL = "alm2vec-tiny"  # a demonstration that knows these sounds; "cara-ai/ALM2Vec-FT" is the real one


def show(title: str, found: list) -> None:
    """Print hits, best first."""
    print(f"\n{title}")
    for document, score in found:
        print(f"  {score:7.4f}  {document.metadata['source']}")


def main(folder: Path) -> None:
    """Index the folder, then do the four jobs."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    if not paths:
        sys.exit(f"{folder} holds no WAV or FLAC file")
    embeddings = ALM2VecEmbeddings(model=MODEL, allowed_audio_roots=[folder])
    documents = [AudioClip(path).reference() for path in paths]
    metadata = [{"source": path.name} for path in paths]
    example = next((path for path in paths if path.name.startswith("dog over rain")), paths[0])
    speaker = next((path for path in paths if path.name.startswith("woman")), paths[0])

    # Text to audio.
    store = InMemoryVectorStore(embeddings)
    store.add_texts(documents, metadata)
    text = "a church bell in the wind"
    show(f'Recordings for a text: "{text}"', store.similarity_search_with_score(text, k=3))

    # Audio to text.
    texts = ["a dog barking over rain", "a cat meowing over guitar music", "a man speaking over traffic"]
    captions = InMemoryVectorStore(embeddings)
    captions.add_texts(texts, [{"source": text} for text in texts])
    vector = embeddings.embed_audio_query(example)
    show(f"Texts for a recording: {example.name}", captions.similarity_search_with_score_by_vector(vector, k=3))

    # Audio to audio, by one aspect: documents and query are embedded together with the same question.
    for question in (QUESTIONS["background"], "What is the main sound?"):
        aspect = embeddings.model_copy(update={"document_task": "query", "document_question": question})
        alike = InMemoryVectorStore(aspect)
        alike.add_texts(documents, metadata)
        vector = aspect.embed_audio_query(example, question)
        found = alike.similarity_search_with_score_by_vector(vector, k=3)
        show(f'Recordings like a recording: {example.name}, "{question}"', found)

    # Audio and a question to an answer.
    answers = InMemoryVectorStore(embeddings)
    answers.add_texts(["male", "female"], [{"source": "male"}, {"source": "female"}])
    vector = embeddings.embed_audio_query(speaker, QUESTIONS["gender"])
    found = answers.similarity_search_with_score_by_vector(vector, k=2)
    show(f'An answer: {speaker.name}, "{QUESTIONS["gender"]}"', found)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            write_library(Path(made))
            main(Path(made))
