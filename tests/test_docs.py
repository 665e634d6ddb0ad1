"""Every Python block of the README and the docs is run as written; shell commands are those that CI runs."""

import base64
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import wave
from pathlib import Path

import pytest
import sounds

from alm2vec_integrations.tiny import FOLDER

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SNIPPETS = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8")]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# A page that is named after a door, and blocks elsewhere that open it, need its framework.
FRAMEWORKS = {"haystack": "haystack", "llama-index": "llama_index", "sentence-transformers": "sentence_transformers"}
MISSING = {page: name for page, name in FRAMEWORKS.items() if importlib.util.find_spec(name) is None}
# Stands for a GPU where there is none.
ON_CPU = {".cuda()": "", 'device="cuda"': 'device="cpu"'}


@pytest.fixture(scope="session")
def hub(tmp_path_factory):
    """A hub cache in which the bundled checkpoint stands for the published ones."""
    cache = tmp_path_factory.mktemp("hub")
    for name in ("ALM2Vec-FT", "ALM2Vec-PT"):
        repository = cache / f"models--cara-ai--{name}"
        shutil.copytree(FOLDER, repository / "snapshots" / ("0" * 40))
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("0" * 40)
    return cache


@pytest.fixture
def calls(tmp_path):
    """The files that the snippets speak of."""
    for seed, name in enumerate(["monday", "tuesday"]):
        for suffix in ("wav", "flac"):
            sounds.write(tmp_path / "calls" / f"{name}.{suffix}", sounds.noise(21.0, seed=seed))
    (tmp_path / "calls" / "broken.wav").write_text("not a recording")
    return tmp_path


def run(code, hub, cwd):
    environment = os.environ | {"HF_HUB_CACHE": str(hub), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=cwd, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def code_of(page):
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    doors = [f"alm2vec_integrations.{name}" for name in MISSING.values()]
    code = "\n".join(block for block in blocks if not any(door in block for door in doors))
    for cuda, cpu in ON_CPU.items():
        code = code.replace(cuda, cpu)
    return code


@pytest.mark.parametrize("page", SNIPPETS, ids=lambda page: page.name)
def test_snippets_run(page, hub, calls):
    """Top to bottom, in one namespace, in a process of their own."""
    if page.stem in MISSING:
        pytest.skip(f"{MISSING[page.stem]} is not installed")
    run(code_of(page), hub, calls)


@pytest.mark.parametrize("page", ["README.md", "docs/audio.md"])
def test_losses_are_shown(page, hub, calls):
    """A file that cannot be opened is named by the examples, and one that breaks later too; the others are embedded."""
    late = calls / "calls" / "late.wav"
    samples = sounds.noise(21.0)
    samples[-100] = float("nan")
    sounds.write(late, samples, subtype="FLOAT")
    printed = run(code_of(ROOT / page), hub, calls)
    assert "not opened:" in printed
    assert "calls/broken.wav" in printed
    assert re.search(r"lost: .*late\.wav.*NaN", printed)


def test_the_cards_call_and_ours_agree(hub, calls):
    """The page claims the same vectors on either side."""
    page = ROOT / "docs" / "from-the-card.md"
    report = (
        "\nimport json; print(json.dumps({name: globals()[name].tolist() for name in "
        "('card_scores', 'our_scores', 'card_aspect', 'our_aspect')}))"
    )
    values = json.loads(run(code_of(page) + report, hub, calls).splitlines()[-1])
    for kind in ("scores", "aspect"):
        for card, ours in zip(values[f"card_{kind}"], values[f"our_{kind}"], strict=True):
            assert ours == pytest.approx(card, abs=1e-5)
    assert abs(values["our_scores"][0][0] - values["our_scores"][0][1]) > 1e-3


def quickstart(*arguments, cwd):
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "quickstart.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return blocks(done.stdout)


def blocks(printed):
    """(title, [(score, source)]) of each search in what the quickstart prints."""
    found = []
    for block in printed.strip().split("\n\n"):
        title, *hits = block.splitlines()
        found.append((title, [(float(line.split()[0]), line.split(maxsplit=1)[1]) for line in hits]))
    return found


def test_the_quickstart(tmp_path):
    """Makes its own recordings, and finds the right ones in each of the four jobs."""
    by_text, by_clip, background, event, answer = (
        [source for _, source in hits] for _, hits in quickstart(cwd=tmp_path)
    )
    assert by_text[0] == "church bell over wind.flac"
    assert by_clip[0] == "a dog barking over rain"
    assert background[:2] == ["dog over rain.flac", "knock over rain.flac"]
    assert event[:2] == ["dog over rain.flac", "dog over piano.flac"]
    assert answer == ["female", "male"]


def test_what_the_readme_shows_is_what_it_prints(tmp_path):
    """Titles, sources and order as shown, scores to two digits."""
    shown = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL).group(1)
    printed = dict(quickstart(cwd=tmp_path))
    for title, hits in blocks(shown):
        assert [source for _, source in hits] == [source for _, source in printed[title]]
        assert [score for score, _ in hits] == pytest.approx([score for score, _ in printed[title]], abs=0.01)


def test_the_quickstart_on_a_folder(tmp_path):
    """Of the user's own."""
    path = sounds.write(tmp_path / "x.flac", sounds.tone(1.0))
    found = quickstart(str(path.parent), cwd=tmp_path)
    assert [hits[0][1] for _, hits in found[2:4]] == ["x.flac", "x.flac"]
    assert all(-1.0001 <= score <= 1.0001 for _, hits in found for score, _ in hits)


@pytest.mark.skipif("sentence-transformers" in MISSING, reason="sentence_transformers is not installed")
def test_the_example_with_sentence_transformers(tmp_path):
    """The first hit of each job is the right one."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "with_sentence_transformers.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    first = [hits[0][1] for _, hits in blocks(done.stdout)]
    assert first == ["church bell over wind", "a dog barking over rain", "knock over rain", "dog over piano", "female"]


def test_the_example_of_a_chat_model_that_hears(tmp_path):
    """What the model got: the question, and the segments that answer it, each under its label."""
    from langchain_rag import Recorder, main

    recorder = Recorder()
    assert main(tmp_path, recorder) == "I was given 2 recordings."
    (message,) = recorder.received
    assert [block["type"] for block in message.content_blocks] == ["text", "text", "audio", "text", "audio"]
    question, first, _, second, _ = message.content_blocks
    assert question["text"] == "Is anyone at the door in this weather?"
    for number, label, name in ((1, first, "knock over rain"), (2, second, "dog over rain")):
        assert re.fullmatch(rf"\[{number}\] .*/{name}\.flac \[[03]-[36] s\]:", label["text"])
    for block in message.content_blocks[2::2]:
        with wave.open(io.BytesIO(base64.b64decode(block["base64"]))) as file:
            assert (file.getframerate(), file.getnchannels(), file.getnframes()) == (16_000, 1, 48_000)


@pytest.mark.skipif("llama-index" in MISSING, reason="llama_index is not installed")
def test_the_example_with_llama_index(tmp_path):
    """The right recordings are found, and the LLM gets those that answer the question."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "llama_index_rag.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    *searches, answer = done.stdout.strip().split("\n\n")
    found = [[source for _, source in hits] for _, hits in blocks("\n\n".join(searches))]
    assert found[0][0] == "church bell over wind"
    assert sorted(found[1][:2]) == ["dog over rain", "knock over rain"]
    assert found[2][:2] == ["dog over rain", "dog over piano"]
    assert answer == "Answer\n  2 recordings heard: ['dog over rain', 'knock over rain']"


@pytest.mark.skipif("haystack" in MISSING, reason="haystack is not installed")
def test_the_example_with_haystack(tmp_path):
    """The first hit of each job is the right one."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "haystack_pipelines.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    first = [hits[0][1] for _, hits in blocks(done.stdout)]
    assert first == ["church bell over wind", "knock over rain", "knock over rain", "dog over piano", "female"]


@pytest.mark.skipif("haystack" in MISSING, reason="haystack is not installed")
def test_pictures_of_pipelines_are_drawn_from_them():
    """Each as its YAML file has it now."""
    from haystack_pipelines import load, picture

    page = (ROOT / "docs" / "haystack.md").read_text(encoding="utf-8")
    shown = re.findall(r"<!-- picture: (\w+) -->\n```mermaid\n(.*?)\n```", page, re.DOTALL)
    assert [name for name, _ in shown] == ["indexing", "search", "aspect"]
    for name, drawn in shown:
        assert drawn == picture(load(name))


def test_links_lead_somewhere():
    """Relative links of the README and the docs exist."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
