"""The model's four jobs as a model of sentence-transformers, on a small sound library that it makes first.

python examples/with_sentence_transformers.py
"""

import tempfile
from pathlib import Path

from sound_library import write_library

from alm2vec_integrations import QUESTIONS
from alm2vec_integrations.sentence_transformers import load

MODEL = "alm2vec-tiny"  # a demonstration that knows these sounds; "cara-ai/ALM2Vec-FT" is the real one


def main(folder: Path) -> None:
    """Embed the library, then do the four jobs."""
    model = load(MODEL)
    paths = write_library(folder)
    names = [path.stem for path in paths]
    clips = [{"audio": str(path)} for path in paths]
    documents = model.encode_document(clips)

    def show(title: str, scores: list[float], among: list[str]) -> None:
        best = sorted(zip(scores, among, strict=True), reverse=True)[:2]
        print(f"\n{title}\n" + "\n".join(f"  {score:7.4f}  {name}" for score, name in best))

    def compare(vector: object, others: object) -> list[float]:
        return model.similarity(vector, others)[0].tolist()

    text = "a church bell in the wind"
    show(f'Text to audio: "{text}"', compare(model.encode_query(text), documents), names)

    texts = ["a dog barking over rain", "a cat meowing over guitar music", "a man speaking over traffic"]
    show(f"Audio to text: {names[0]}", compare(model.encode_query(clips[0]), model.encode_document(texts)), texts)

    for question in (QUESTIONS["background"], "What is the main sound?"):
        asked = model.encode_query([clip | {"text": question} for clip in clips])
        show(f'Audio to audio: {names[0]}, "{question}"', compare(asked[0], asked[1:]), names[1:])

    speaker = next(clip for clip in clips if "woman" in clip["audio"])
    asked = model.encode([speaker | {"text": QUESTIONS["gender"]}], prompt_name="question")
    answers = ["male", "female"]
    show(f'An answer: "{QUESTIONS["gender"]}"', compare(asked, model.encode_document(answers)), answers)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(made))
