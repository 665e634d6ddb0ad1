"""The command `alm2vec`."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import __version__, tiny
from ._extras import require
from .clips import AudioClip
from .errors import ALM2VecError, AudioError, InputError

# Enough for a few micro-batches, few enough that one damaged file costs little work twice.
_INDEXED_AT_ONCE = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, or 1 for an error that the message explains."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text in the terminal's encoding
    if not sys.stderr.isatty():
        # Read by huggingface_hub and transformers when they are imported; their bars would fill a log.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        # What the checkpoint's own code prints is not the command's answer.
        with contextlib.redirect_stdout(sys.stderr):
            answer, status = options.run(options)
    except ALM2VecError as error:
        print(f"alm2vec: {error}", file=sys.stderr)
        return 1
    print(answer)
    return int(status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="alm2vec", description="Search audio with ALM2Vec, and examine its checkpoints."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    search = commands.add_parser(
        "search",
        help="rank the audio files in a folder",
        description="Rank the audio files in FOLDER by a text, by another clip (--audio), or by a clip with a text.",
        epilog=(
            "--question compares by an aspect: every clip, in the folder and in --audio, is embedded with it, "
            "and TEXT stands for an answer to it."
        ),
    )
    search.add_argument("folder", metavar="FOLDER", help="searched with its subfolders")
    search.add_argument("text", metavar="TEXT", nargs="?", help="what to look for")
    search.add_argument("--audio", metavar="CLIP", help="an example to look for, alone or with TEXT")
    search.add_argument("--question", help="the aspect to compare by, as in 'Is there music?'")
    search.add_argument("--instruction", help="for the query, in place of the published one")
    search.add_argument("--model", default=tiny.NAME, help=f"hub id or folder (default: {tiny.NAME}, a demonstration)")
    _add_loading(search, "--model")
    search.add_argument("--top", metavar="N", type=_positive, default=5, help="how many to show (default: 5)")
    search.add_argument("--json", action="store_true", help="print JSON")
    search.set_defaults(run=_search)
    doctor = commands.add_parser(
        "doctor",
        help="examine a checkpoint on this machine",
        description="Load MODEL, verify and measure it, and say how to use it. Status 1 if it should not be used.",
    )
    doctor.add_argument("model", metavar="MODEL", help="hub id or folder")
    doctor.add_argument("--clips", metavar="DIR", type=Path, help="recordings for the model card's example")
    doctor.add_argument("--published", metavar="FILE", type=Path, help="JSON with published cosines to compare with")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument("--dtype", help="as for ALM2VecEncoder (default: by device)")
    doctor.add_argument("--verify", choices=("full", "fast", "off"), default="full", help="(default: full)")
    _add_loading(doctor, "MODEL")
    doctor.set_defaults(run=_doctor)
    return parser


def _add_loading(command: argparse.ArgumentParser, model: str) -> None:
    """The options that say where a model comes from and goes to."""
    command.add_argument("--revision", help=f"branch, tag or commit of {model} on the hub (default: main)")
    command.add_argument("--cache-dir", metavar="DIR", help="the hub's cache (default: as huggingface_hub has it)")
    command.add_argument("--local-files-only", action="store_true", help="take what is in the cache, download nothing")
    command.add_argument("--trust-remote-code", action="store_true", help=f"run the Python code in {model}")
    command.add_argument("--device", help="torch device (default: the GPU if there is one)")
    command.add_argument("--verbose", action="store_true", help="log what is loaded")


def _loading(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "revision": options.revision,
        "cache_dir": options.cache_dir,
        "local_files_only": options.local_files_only,
        "trust_remote_code": options.trust_remote_code or None,
        "device": options.device,
    }


@dataclass(frozen=True)
class _Hit:
    rank: int
    score: float
    source: str
    seconds: float


def _search(options: argparse.Namespace) -> tuple[str, int]:
    require("langchain_core", "langchain")
    from langchain_core.vectorstores import InMemoryVectorStore

    from .encoder import ALM2VecEncoder
    from .langchain import ALM2VecEmbeddings

    if options.text is None and options.audio is None:
        raise InputError("give TEXT, --audio, or both")
    if options.text and options.audio and options.question:
        raise InputError("TEXT with --audio is one query already: leave out TEXT or --question")
    seconds = _measure_folder(Path(options.folder) if options.folder else None)
    encoder = ALM2VecEncoder(
        options.model,
        **_loading(options),
        # Where the files really are: a link in the folder may lead out of it.
        allowed_audio_roots=sorted({str(Path(source).resolve().parent) for source in seconds}),
    )
    embeddings = ALM2VecEmbeddings(
        encoder=encoder,
        document_task="query" if options.question else "document",
        document_question=options.question,
        show_progress=sys.stderr.isatty(),
    )
    store = InMemoryVectorStore(embeddings)
    searched = _index(store, list(seconds))
    vector = _query_vector(embeddings, options)
    found = store.similarity_search_with_score_by_vector(vector, k=options.top)
    hits = [
        _Hit(rank, score, document.metadata["source"], round(seconds[document.metadata["source"]], 3))
        for rank, (document, score) in enumerate(found, start=1)
    ]
    return _as_json(options, hits) if options.json else _as_table(options, hits, searched), 0


def _doctor(options: argparse.Namespace) -> tuple[str, int]:
    from .doctor import diagnose

    diagnosis = diagnose(
        options.model,
        clips=options.clips,
        published=options.published,
        dtype=options.dtype,
        verify=options.verify,
        **_loading(options),
    )
    answer = json.dumps(diagnosis.as_dict(), indent=2) if options.json else str(diagnosis)
    return answer, 1 if diagnosis.status in ("doubtful", "unusable") else 0


def _query_vector(embeddings: Any, options: argparse.Namespace) -> list[float]:
    if options.audio is not None:
        vector: list[float] = embeddings.embed_audio_query(
            options.audio, options.question or options.text, instruction=options.instruction
        )
    elif options.question:
        # An answer to the question: the model card embeds answers as documents.
        answer = embeddings.encoder.encode(options.text, task="document", instruction=options.instruction)
        vector = answer.tolist()
    else:
        vector = embeddings.embed_query(options.text, instruction=options.instruction)
    return vector


def _index(store: Any, sources: list[str]) -> int:
    """Add the files to the store and return how many there are; damaged ones are named and left out."""
    added, pending = 0, sources
    while pending:
        some, pending = pending[:_INDEXED_AT_ONCE], pending[_INDEXED_AT_ONCE:]
        try:
            store.add_texts([AudioClip(source).reference() for source in some], [{"source": s} for s in some])
        except AudioError as error:
            if error.index is None:
                raise
            print(f"alm2vec: left out: {some.pop(error.index)}: {error.reason}", file=sys.stderr)
            pending = some + pending
        else:
            added += len(some)
    return added


def _measure_folder(folder: Path | None) -> dict[str, float]:
    """The folder's audio files and their lengths in seconds; files that cannot be read are named and left out."""
    from .audio.access import AccessPolicy
    from .audio.decoding import measure
    from .audio.recordings import AUDIO_SUFFIXES
    from .audio.segmenting import audio_files

    if folder is None:
        raise InputError("FOLDER is empty: write . for the current one")
    if not folder.is_dir():
        raise InputError("is not a folder" if folder.exists() else "there is no such folder", source=str(folder))
    policy = AccessPolicy()
    seconds = {}
    for path in audio_files(folder.absolute(), _say_left_out):
        try:
            seconds[str(path)] = measure(AudioClip(path), policy).seconds
        except AudioError as error:
            _say_left_out(error)
    if not seconds:
        raise InputError(
            f"holds no audio file that can be read ({', '.join(sorted(AUDIO_SUFFIXES))})", source=str(folder)
        )
    return seconds


def _say_left_out(error: AudioError) -> None:
    print(f"alm2vec: left out: {error}", file=sys.stderr)


def _as_json(options: argparse.Namespace, hits: list[_Hit]) -> str:
    query = {name: getattr(options, name) for name in ("text", "audio", "question", "instruction")}
    return json.dumps({"model": options.model, "query": query, "hits": [vars(hit) for hit in hits]}, indent=2)


def _as_table(options: argparse.Namespace, hits: list[_Hit], searched: int) -> str:
    root = Path(options.folder).absolute()
    names = [_printable(str(Path(hit.source).relative_to(root))) for hit in hits]
    width = max(len(name) for name in [*names, "file"])
    lines = [f"{'rank':>4}  {'score':>7}  {'seconds':>8}  file", f"{'-' * 4}  {'-' * 7}  {'-' * 8}  {'-' * width}"]
    lines += [
        f"{hit.rank:>4}  {hit.score:>7.4f}  {hit.seconds:>8.2f}  {name}" for hit, name in zip(hits, names, strict=True)
    ]
    return "\n".join([*lines, "", f"{searched} files searched with {options.model}"])


def _printable(name: str) -> str:
    """The name on one line, whatever characters it has."""
    return "".join(c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in name)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of 1 or more, got {text!r}")
    return int(text)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"alm2vec: {message}", file=sys.stderr)
