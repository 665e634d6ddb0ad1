"""Search a folder of audio by a text, by a clip, and by a clip with a question, through LangChain.

python examples/quickstart.py             makes a folder of sounds first
python examples/quickstart.py FOLDER      searches yours (WAV and FLAC files)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from langchain_core.vectorstores import InMemoryVectorStore

from alm2vec_integrations import QUESTIONS, AudioClip
from alm2vec_integrations.langchain import ALM2VecEmbeddings

MODEL = "alm2vec-tiny"  # a demonstration; "cara-ai/ALM2Vec-FT" is the real one
RATE = 22_050


def make_sounds(folder: Path) -> None:
    """Write a few recordings of two seconds each."""
    t = np.arange(2 * RATE) / RATE
    rng = np.random.default_rng(0)
    beats = (t % 0.5 < 0.05).astype(float)
    sounds = {
        "rain": 0.1 * rng.standard_normal(len(t)),
        "siren": 0.4 * np.sin(2 * np.pi * (700 * t - 60 * np.cos(2 * np.pi * t))),
        "hum": 0.3 * np.sin(2 * np.pi * 50 * t) + 0.15 * np.sin(2 * np.pi * 100 * t),
        "knocking": beats * rng.standard_normal(len(t)) * 0.4,
        "chord": sum(0.15 * np.sin(2 * np.pi * f * t) for f in (262, 330, 392)),
    }
    for name, samples in sounds.items():
        soundfile.write(folder / f"{name}.flac", samples, RATE)


def show(title: str, found: list) -> None:
    """Print what a search returned."""
    print(f"\n{title}")
    for document, score in found:
        print(f"  {score:7.4f}  {document.metadata['source']}")


def main(folder: Path) -> None:
    """Index the folder, then ask three ways."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".wav", ".flac"))
    if not paths:
        sys.exit(f"{folder} holds no WAV or FLAC file")
    embeddings = ALM2VecEmbeddings(model=MODEL, allowed_audio_roots=[folder])
    documents = [AudioClip(path).reference() for path in paths]
    metadata = [{"source": path.name} for path in paths]

    store = InMemoryVectorStore(embeddings)
    store.add_texts(documents, metadata)
    show('By a text: "heavy rain"', store.similarity_search_with_score("heavy rain", k=3))

    example = AudioClip(paths[0])
    vector = embeddings.embed_audio_query(example)
    show(f"By a clip: {paths[0].name}", store.similarity_search_with_score_by_vector(vector, k=3))

    # By one aspect: the documents and the query are embedded together with the same question.
    question = QUESTIONS["music"]
    aspect = embeddings.model_copy(update={"document_task": "query", "document_question": question})
    by_aspect = InMemoryVectorStore(aspect)
    by_aspect.add_texts(documents, metadata)
    vector = aspect.embed_audio_query(example, question)
    show(
        f'By a clip with a question: {paths[0].name}, "{question}"',
        by_aspect.similarity_search_with_score_by_vector(vector, k=3),
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            make_sounds(Path(made))
            main(Path(made))
