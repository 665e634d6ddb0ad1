"""The command `alm2vec`, run as a user runs it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sounds

from alm2vec_integrations import AudioClip, AudioText
from alm2vec_integrations.cli import main
from alm2vec_integrations.tiny import FOLDER

COMMAND = [str(Path(sys.executable).with_name("alm2vec"))]


@pytest.fixture
def folder(tmp_path):
    """Three recordings, in formats and folders of their own, and things that are not recordings."""
    root = tmp_path / "sounds"
    sounds.write(root / "tone.wav", sounds.tone(1.0))
    sounds.write(root / "deep" / "noise.flac", sounds.noise(2.0, rate=44_100), 44_100)
    sounds.write(root / "deep" / "er" / "HIGH.WAV", sounds.tone(0.5, 3000.0))
    (root / "notes.txt").write_text("not a recording")
    (root / ".hidden.wav").write_text("not a recording")
    return root


def search(capsys, *arguments):
    status = main(["search", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_installed_command_from_another_directory(folder, tmp_path):
    """A table on standard output; what the model is, on standard error."""
    done = subprocess.run(
        [*COMMAND, "search", str(folder), "a tone"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()[2:5]]
    assert [row[0] for row in rows] == ["1", "2", "3"]
    assert {row[3] for row in rows} == {"tone.wav", "deep/noise.flac", "deep/er/HIGH.WAV"}
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert "3 files searched with alm2vec-tiny" in done.stdout
    assert done.stderr.startswith("alm2vec: alm2vec-tiny is a demonstration model")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("query", "best"),
    [
        (["a church bell in the wind"], "church bell over wind.flac"),
        (["--audio", "man over traffic.flac"], "man over traffic.flac"),
        (["female", "--question", "What is the gender of speaker in this audio?"], "woman over piano.flac"),
        (["What music is playing?", "--audio", "cat over guitar.flac"], "cat over guitar.flac"),
    ],
)
def test_the_right_recording_comes_first(library, capsys, query, best):
    """Found by a text, by a clip, by an answer, and by a clip with a question."""
    query = [str(library[0].parent / word) if word.endswith(".flac") else word for word in query]
    status, out, _ = search(capsys, library[0].parent, *query, "--json")
    assert status == 0
    assert Path(json.loads(out)["hits"][0]["source"]).name == best


def test_each_form_of_query_gives_the_cores_scores(folder, tiny, capsys):
    """Text; clip; clip with text; and an aspect, on both sides, in the card's form."""
    paths = [folder / "tone.wav", folder / "deep" / "noise.flac", folder / "deep" / "er" / "HIGH.WAV"]
    clips, example = [AudioClip(path) for path in paths], AudioClip(paths[0])
    question = "Is there music?"
    steered = tiny.encode([AudioText(question, clip) for clip in clips], task="query")
    plain = tiny.encode(clips, task="document")
    cases = [
        (["a tone"], plain, tiny.encode("a tone", task="query")),
        (["a tone", "--instruction", "x"], plain, tiny.encode("a tone", task="query", instruction="x")),
        (["--audio", paths[0]], plain, tiny.encode(example, task="query")),
        (["a tone", "--audio", paths[0]], plain, tiny.encode(AudioText("a tone", example), task="query")),
        (
            ["--audio", paths[0], "--question", question],
            steered,
            tiny.encode(AudioText(question, example), task="query"),
        ),
        (["yes", "--question", question], steered, tiny.encode("yes", task="document")),
    ]
    for arguments, documents, query in cases:
        status, out, _ = search(capsys, folder, *arguments, "--json", "--device", "cpu")
        assert status == 0
        hits = json.loads(out)["hits"]
        scores = {str(path.resolve()): score for path, score in zip(paths, documents @ query, strict=True)}
        assert [hit["source"] for hit in hits] == sorted(scores, key=scores.get, reverse=True)
        np.testing.assert_allclose([hit["score"] for hit in hits], sorted(scores.values(), reverse=True), atol=1e-5)
        assert [hit["rank"] for hit in hits] == [1, 2, 3]
        assert {Path(hit["source"]).name: hit["seconds"] for hit in hits}["noise.flac"] == 2.0


def test_json_says_what_was_asked(folder, capsys):
    """And holds at most the top N."""
    _, out, _ = search(capsys, folder, "a tone", "--instruction", "x", "--top", 2, "--json")
    result = json.loads(out)
    assert result["model"] == "alm2vec-tiny"
    assert result["query"] == {"text": "a tone", "audio": None, "question": None, "instruction": "x"}
    assert len(result["hits"]) == 2


def test_a_broken_file_is_named_and_left_out(folder, capsys):
    """The others are searched."""
    (folder / "broken.wav").write_text("not a recording")
    status, out, err = search(capsys, folder, "a tone")
    assert status == 0
    assert f"left out: {folder / 'broken.wav'}: is not audio" in err
    assert "3 files searched" in out


def test_a_file_that_is_damaged_inside_is_named_and_left_out(folder, capsys):
    """Its header is fine, so that it is noticed only when it is decoded."""
    path = sounds.write(folder / "damaged.flac", sounds.noise(2.0))
    data = bytearray(path.read_bytes())
    data[len(data) // 3 :] = bytes(len(data) - len(data) // 3)
    path.write_bytes(data)
    status, out, err = search(capsys, folder, "a tone")
    assert status == 0
    assert f"left out: {path}" in err
    assert "3 files searched" in out


def test_links_and_strange_names_are_searched(folder, tmp_path, capsys):
    """A linked data set, and a file name from another encoding."""
    outside = sounds.write(tmp_path / "elsewhere" / "linked.wav", sounds.noise(1.0))
    (folder / "link.wav").symlink_to(outside)
    sounds.write(folder / "x.wav", sounds.tone(0.7)).rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.wav"))
    sounds.write(folder / "two\nlines.wav", sounds.tone(0.6))
    done = subprocess.run([*COMMAND, "search", str(folder), "x", "--top", "9"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert b"link.wav" in done.stdout
    assert b"caf\\udce9.wav" in done.stdout
    assert b"two\\nlines.wav" in done.stdout
    assert b"6 files searched" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give TEXT, --audio, or both"),
        (["text", "--audio", "a.wav", "--question", "q"], "leave out TEXT or --question"),
        (["--audio", "missing.wav"], "missing.wav: cannot be opened"),
        (["text", "--model", "./nowhere"], "no such folder"),
        (["text", "--model", "someone/else"], "trust_remote_code"),
        (["text", "--model", "nonsense", "--trust-remote-code"], "neither"),
        (["  "], "empty"),
        (["lone \udcff surrogate"], "UTF-8"),
        (["text", "--model", ""], "model must be"),
    ],
)
def test_errors_are_one_line_and_status_1(folder, capsys, arguments, message):
    """No traceback for what the user can mend."""
    status, out, err = search(capsys, folder, *arguments)
    assert status == 1
    assert out == ""
    assert message in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("alm2vec: ")


def test_folders_without_recordings(tmp_path, capsys):
    """Missing, and empty."""
    assert "no such folder" in search(capsys, tmp_path / "missing", "x")[2]
    assert "no audio file" in search(capsys, tmp_path, "x")[2]
    assert "FOLDER is empty" in search(capsys, "", "x")[2]
    (tmp_path / "file.wav").write_text("")
    assert "is not a folder" in search(capsys, tmp_path / "file.wav", "x")[2]


@pytest.mark.parametrize(
    "arguments",
    [
        ["search"],
        ["search", "f", "x", "--top", "0"],
        ["search", "f", "x", "--top", "1e3"],
        ["find"],
        ["search", "f", "--tpo", "1"],
    ],
)
def test_misuse_is_status_2(arguments, capsys):
    """As every command line does it."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: alm2vec" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["search", "doctor"])
@pytest.mark.parametrize("revision", [None, "main", "v1", "0" * 40, "v2"])
def test_where_a_checkpoint_comes_from(folder, tmp_path, capsys, command, revision):
    """Revision, cache and staying offline are options of both commands."""
    repository = tmp_path / "hub" / "models--someone--model"
    shutil.copytree(FOLDER, repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    for name in ("main", "v1"):
        (repository / "refs" / name).write_text("0" * 40)
    options = ["--cache-dir", str(tmp_path / "hub"), "--local-files-only", "--trust-remote-code", "--device", "cpu"]
    options += ["--json"] + (["--revision", revision] if revision else [])
    what = [str(folder), "a tone", "--model", "someone/model"] if command == "search" else ["someone/model"]
    status = main([command, *what, *options])
    said = capsys.readouterr()
    if revision == "v2":
        assert (status, said.out) == (1, "")
        assert said.err.startswith("alm2vec: someone/model: could not be fetched")
    else:
        assert status == 0
        assert json.loads(said.out)["model"] == "someone/model"
