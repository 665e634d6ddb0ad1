"""`ALM2VecEncoder`: text, clips and clips with a question in, vectors of one space out."""

from __future__ import annotations

import asyncio
import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from . import arguments, driving, inputs, reranking
from .audio.access import AccessPolicy
from .checkpoint import handles
from .checkpoint.configuration import Verify, configure
from .checkpoint.report import LoadReport
from .errors import InputError
from .inputs import Item, Items
from .instructions import DEFAULT_INSTRUCTIONS, Task
from .planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Batching
from .reranking import Ranked
from .runtime import EncodeResult, Failure, Job
from .streaming import WINDOW_BATCHES, stream

if TYPE_CHECKING:
    import torch

Embeddings = npt.NDArray[np.float32]
Instructions = str | Sequence[str | None] | None


@runtime_checkable
class Encoder(Protocol):
    """What the wrappers rely on; anything with these methods can stand behind them."""

    @property
    def dim(self) -> int:
        """Width of the vectors."""
        ...

    def encode(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> Embeddings:
        """One item to float32 [dim], a list to [N, dim]."""
        ...

    async def aencode(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> Embeddings:
        """`encode` without blocking the event loop."""
        ...


class ALM2VecEncoder:
    """Embeds text, audio, and audio with a question into one space, steered by an instruction.

    Nothing is loaded until it is needed. Encoders of equal configuration in one process share one model; it is
    released when the last of them is closed or collected. Methods may be called from any thread: forward passes take
    turns, one micro-batch each. Copies share the model; pickles hold the configuration without weights and without
    the token.

    Args:
        model: "cara-ai/ALM2Vec-FT", "cara-ai/ALM2Vec-PT", another hub id, "alm2vec-tiny" (bundled, for
            demonstrations), or a folder, which is a `Path` or begins with `/`, `./`, `../` or `~`.
        revision: branch, tag or commit on the hub.
        token: for the hub; None uses the one that is logged in.
        cache_dir: where downloads are kept; None uses the hub library's own place.
        local_files_only: load from the cache and never reach for the network.
        trust_remote_code: the checkpoint's own Python code is run. None trusts the two published checkpoints and the
            bundled one; True trusts the named one; False trusts none but the bundled one.
        device: a torch device; None is the GPU if there is one, else the CPU.
        dtype: "float32", "bfloat16" or "float16", for the layers that may be cast; "auto" leaves every tensor as it is
            stored; None is bfloat16 on a GPU that has it, else float32.
        model_kwargs: more keyword arguments for transformers' `from_pretrained`.
        query_instruction: used with task "query" where a call gives none; None is the published one.
        document_instruction: the same for task "document".
        max_batch_items: most items in one forward pass.
        max_batch_seconds: most seconds of audio in one forward pass, each clip counted as long as the longest.
        batching: what may share a forward pass: items of "similar" length; clips of "equal" length with the same text
            only; or none ("single"). For checkpoints whose vectors depend on what else is in the batch: `alm2vec
            doctor` finds out.
        allowed_audio_roots: folders that references (`AudioClip.from_reference`) may point into; none if None.
        verify: after loading, compare the model with its files: "full" every value, "fast" a sample of each tensor,
            "off" not at all (docs/loading.md has the list).

    Raises:
        InputError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        local_files_only: bool = False,
        trust_remote_code: bool | None = None,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        query_instruction: str | None = None,
        document_instruction: str | None = None,
        max_batch_items: int = DEFAULT_MAX_ITEMS,
        max_batch_seconds: float = DEFAULT_MAX_SECONDS,
        batching: Batching = "similar",
        allowed_audio_roots: Sequence[str | os.PathLike[str]] | str | os.PathLike[str] | None = None,
        verify: Verify = "full",
    ) -> None:
        self.model = arguments.model_name(model)
        self.query_instruction = arguments.instruction("query_instruction", query_instruction)
        self.document_instruction = arguments.instruction("document_instruction", document_instruction)
        self._limits = arguments.limits(max_batch_items, max_batch_seconds, batching)
        self._policy = AccessPolicy(allowed_audio_roots)
        self._token = token
        self._asked = arguments.what_to_load(
            self.model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            trust_remote_code=trust_remote_code,
            device=device,
            dtype=dtype,
            model_kwargs=model_kwargs,
            verify=verify,
        )
        self._handle: handles.ModelHandle | None = None

    # Embedding

    def encode(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> Embeddings:
        """Embed items of any kind, mixed as they come.

        Args:
            items: a `str` (text), an `AudioClip` or an `AudioText`, or a list of them.
            task: "query" or "document".
            instruction: what the vectors should capture: for all items, or a list with one (or None) for each. None
                and "" mean the encoder's instruction for the task.
            normalize: give every vector length 1.
            show_progress: draw a progress bar on standard error.

        Returns:
            float32 [dim] for one item, [N, dim] for a list, in its order.

        Raises:
            InputError: an item is not one of these, is empty, or its audio cannot be read; it names the item.
            CheckpointError: the model cannot be loaded.
            ModelContractError: the model answers in a way that its card rules out.
        """
        single, job = self._job(items, task, instruction, normalize)
        driving.run(job, show_progress)
        return job.embeddings()[0] if single else job.embeddings()

    def encode_query(
        self, items: Items, *, instruction: Instructions = None, normalize: bool = True, show_progress: bool = False
    ) -> Embeddings:
        """`encode` with task "query"."""
        return self.encode(
            items, task="query", instruction=instruction, normalize=normalize, show_progress=show_progress
        )

    def encode_document(
        self, items: Items, *, instruction: Instructions = None, normalize: bool = True, show_progress: bool = False
    ) -> Embeddings:
        """`encode` with task "document"."""
        return self.encode(
            items, task="document", instruction=instruction, normalize=normalize, show_progress=show_progress
        )

    async def aencode(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> Embeddings:
        """`encode` without blocking the event loop; arguments, result and errors are the same.

        The work is done in steps of one micro-batch at most in the encoder's own threads, so that many calls make
        progress side by side, and a call that is cancelled stops after the step that is running.
        """
        handle = await asyncio.to_thread(self._acquire) if self._handle is None else self._acquire()
        single, job = self._job(items, task, instruction, normalize, handle=handle)
        await driving.arun(job, handle, show_progress)
        return job.embeddings()[0] if single else job.embeddings()

    def encode_partial(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> EncodeResult:
        """`encode` that goes on past items that cannot be embedded, and names them.

        Arguments are those of `encode`; one item counts as a list of one. What is not an item's own fault (the model
        cannot be loaded, or fails) is raised.
        """
        if inputs.is_single(items):
            items = [items]  # type: ignore[list-item]
        _, job = self._job(items, task, instruction, normalize, keep_going=True)
        driving.run(job, show_progress)
        return job.result()

    async def aencode_partial(
        self,
        items: Items,
        *,
        task: Task,
        instruction: Instructions = None,
        normalize: bool = True,
        show_progress: bool = False,
    ) -> EncodeResult:
        """`encode_partial` without blocking the event loop; arguments, result and errors are the same."""
        handle = await asyncio.to_thread(self._acquire) if self._handle is None else self._acquire()
        if inputs.is_single(items):
            items = [items]  # type: ignore[list-item]
        _, job = self._job(items, task, instruction, normalize, handle=handle, keep_going=True)
        await driving.arun(job, handle, show_progress)
        return job.result()

    def encode_stream(
        self, items: Iterable[Item], *, task: Task, instruction: str | None = None, normalize: bool = True
    ) -> Iterator[tuple[int, Embeddings | Failure]]:
        """Embed a corpus of any size, in memory that does not grow with it.

        Items are read as they are needed, at most 16 micro-batches' worth (512 with the default `max_batch_items`)
        ahead of the results. Arguments are those of `encode`, with one instruction for all.

        Yields:
            For every item in its order, its position and its vector (float32 [dim]) or, if it cannot be embedded, a
            `Failure`. An error that `items` itself raises comes after the results of what it gave before.

        Raises:
            InputError: an argument other than `items` has the wrong type or value.
            CheckpointError: as `encode`.
            ModelContractError: as `encode`.
        """
        if inputs.is_single(items):
            raise InputError(f"items must be an iterable of items, got {type(items).__name__}: use encode for one item")
        source = inputs.in_order(items)
        default = self._default_instruction(arguments.task(task))
        resolved = arguments.instruction("instruction", instruction) or default
        arguments.flag("normalize", normalize)

        def make_job(taken: list[Any], first: int) -> Job:
            return Job(
                self._acquire(),
                taken,
                [resolved] * len(taken),
                task=task,
                policy=self._policy,
                limits=self._limits,
                normalize=normalize,
                keep_going=True,
                first=first,
            )

        return stream(source, make_job, WINDOW_BATCHES * self._limits.max_items)

    def rerank(
        self,
        query: Item,
        candidates: Sequence[Item],
        *,
        question: str | None = None,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[Ranked]:
        """Order candidates by closeness to a query.

        With a question, every clip on either side is embedded as the model card steers: paired with the question, as
        a query; texts then stand for answers and are embedded as documents. Without one, the query is embedded as a
        query and the candidates as documents.

        Args:
            query: one item.
            candidates: items of any kind.
            question: the aspect to compare by; for an `AudioText` query its text if None.
            instruction: for what is embedded as a query, in place of the encoder's.
            top_n: how many to return; all if None.

        Returns:
            The best candidates, best first, by index and score (the cosine).

        Raises:
            InputError: as `encode`, naming the place in `candidates` or the query; and for `top_n` below 1.
        """
        return reranking.rerank(self, query, candidates, question=question, instruction=instruction, top_n=top_n)

    async def arerank(
        self,
        query: Item,
        candidates: Sequence[Item],
        *,
        question: str | None = None,
        instruction: str | None = None,
        top_n: int | None = None,
    ) -> list[Ranked]:
        """`rerank` without blocking the event loop; arguments, result and errors are the same."""
        return await reranking.arerank(self, query, candidates, question=question, instruction=instruction, top_n=top_n)

    # The model

    @property
    def dim(self) -> int:
        """Width of the vectors, read from the model; loads it."""
        return self._acquire().loaded().dim

    @property
    def revision(self) -> str | None:
        """The commit that was loaded, None for a folder or the bundled checkpoint; loads the model."""
        return self.load_report.revision

    @property
    def load_report(self) -> LoadReport:
        """What was loaded and what was checked; loads the model."""
        return self._acquire().loaded().report

    @property
    def module(self) -> torch.nn.Module:
        """The model itself, in evaluation mode, shared by all encoders of equal configuration; loads it.

        For looking at. What is done to it, or with it in other threads than the encoder's, others suffer.
        """
        module: torch.nn.Module = self._acquire().loaded().model
        return module

    def on_device(self, device: str | torch.device | None) -> Self:
        """An encoder of the same settings on another device; this one stays where it is."""
        twin = self.__copy__()
        twin._asked, twin._handle = self._asked | {"device": None if device is None else str(device)}, None
        return twin

    def close(self) -> None:
        """Let go of the model; its memory is freed when no other encoder holds it. A later call loads it again."""
        self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Copies, pickles and looks

    def __copy__(self) -> Self:
        twin = self.__class__.__new__(self.__class__)
        twin.__dict__.update(self.__dict__)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = self.__copy__()
        twin._asked = copy.deepcopy(self._asked, memo)
        return twin

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handle": None, "_token": None}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    # Inside

    def _acquire(self) -> handles.ModelHandle:
        handle = self._handle
        if handle is None or handle.pid != os.getpid():
            handle = self._handle = handles.acquire(configure(token=self._token, **self._asked))
        return handle

    def _job(
        self,
        items: Any,
        task: Task,
        instruction: Instructions,
        normalize: bool,
        *,
        handle: handles.ModelHandle | None = None,
        keep_going: bool = False,
    ) -> tuple[bool, Job]:
        single = inputs.is_single(items)
        listed = [items] if single else list(inputs.in_order(items))
        default = self._default_instruction(arguments.task(task))
        job = Job(
            handle or self._acquire(),
            listed,
            arguments.instructions(instruction, default, len(listed), single=single),
            task=task,
            policy=self._policy,
            limits=self._limits,
            normalize=arguments.flag("normalize", normalize),
            keep_going=keep_going,
        )
        return single, job

    def _default_instruction(self, task: Task) -> str:
        own = self.query_instruction if task == "query" else self.document_instruction
        return own or DEFAULT_INSTRUCTIONS[task]
