"""`ALM2VecQueryEmbedder`: a query in words, by example, or by example with a question."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from haystack import component
from haystack.dataclasses import ByteStream
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack.model import DEFAULT_TOKEN, EmbeddingComponent
from alm2vec_integrations._haystack.queries import haystacks_words, query_item
from alm2vec_integrations.checkpoint.configuration import Verify
from alm2vec_integrations.inputs import Item
from alm2vec_integrations.instructions import Task
from alm2vec_integrations.planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Batching


@component
class ALM2VecQueryEmbedder(EmbeddingComponent):
    """Embeds a query: a text, a recording, or a recording with a question about it.

    Example:
        >>> embedder = ALM2VecQueryEmbedder(model="cara-ai/ALM2Vec-FT")
        >>> embedder.run(audio="calls/monday.flac", text="Is the customer angry?")["embedding"]

    Args:
        model: as for `ALM2VecTextEmbedder`; so are `device`, `token`, `revision`, `trust_remote_code`,
            `local_files_only`, `dtype`, `model_kwargs`, `batch_size`, `max_batch_seconds`, `batching`,
            `verify`, `progress_bar`, `normalize_embeddings`, `instruction` and `task`.
        root_path: the folder that paths of queries are relative to and must lie in; None opens any path, as for a
            caller who may read the machine's files anyway.

    Raises:
        InputError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        *,
        model: str | os.PathLike[str],
        device: ComponentDevice | None = None,
        token: Secret | None = DEFAULT_TOKEN,
        revision: str | None = None,
        trust_remote_code: bool | None = None,
        local_files_only: bool = False,
        dtype: str | None = None,
        model_kwargs: dict[str, Any] | None = None,
        batch_size: int = DEFAULT_MAX_ITEMS,
        max_batch_seconds: float = DEFAULT_MAX_SECONDS,
        batching: Batching = "similar",
        verify: Verify = "full",
        progress_bar: bool = True,
        normalize_embeddings: bool = True,
        instruction: str | None = None,
        task: Task = "query",
        root_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._keep(
            root_path=root_path,
            model=model,
            device=device,
            token=token,
            revision=revision,
            trust_remote_code=trust_remote_code,
            local_files_only=local_files_only,
            dtype=dtype,
            model_kwargs=model_kwargs,
            batch_size=batch_size,
            max_batch_seconds=max_batch_seconds,
            batching=batching,
            verify=verify,
        )
        self.progress_bar = arguments.flag("progress_bar", progress_bar)
        self.normalize_embeddings = arguments.flag("normalize_embeddings", normalize_embeddings)
        self.instruction = arguments.instruction("instruction", instruction)
        self.task: Task = arguments.task(task)
        self.root_path = self._root_path

    def to_dict(self) -> dict[str, Any]:
        """The component as basic types.

        Raises:
            ValueError: the token is not the name of an environment variable.
        """
        return self._to_dict(
            progress_bar=self.progress_bar,
            normalize_embeddings=self.normalize_embeddings,
            instruction=self.instruction,
            task=self.task,
            root_path=self.root_path,
        )

    @component.output_types(embedding=list[float])
    def run(
        self,
        audio: str | Path | ByteStream | list[str | Path | ByteStream] | None = None,
        text: str | None = None,
        instruction: str | None = None,
    ) -> dict[str, Any]:
        """Embed a query.

        Args:
            audio: the path or the bytes of a recording, or a list of exactly one. A `ByteStream` may say a part in its
                meta, `start_seconds` and `end_seconds`.
            text: a query in words; with `audio`, a question about it.
            instruction: for this run; None and "" are the component's.

        Returns:
            `embedding`, floats of the model's width.

        Raises:
            TypeError: an argument of another type.
            InputError: both are None, a list of another length, an empty text, or audio that cannot be read.
            AudioAccessError: a path outside `root_path`.
            CheckpointError: the model cannot be loaded, or its code is not trusted.
        """
        item, how = self._item(audio, text), self._how(instruction)
        with haystacks_words():
            vector = self._encoder().encode(item, **how)
        return {"embedding": vector.tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(
        self,
        audio: str | Path | ByteStream | list[str | Path | ByteStream] | None = None,
        text: str | None = None,
        instruction: str | None = None,
    ) -> dict[str, Any]:
        """`run` without blocking the event loop; arguments, result and errors are the same."""
        item, how = self._item(audio, text), self._how(instruction)
        with haystacks_words():
            vector = await (await self._encoder_async()).aencode(item, **how)
        return {"embedding": vector.tolist()}

    def _item(self, audio: Any, text: str | None) -> Item:
        return query_item(audio, text, self.root_path)

    def _how(self, instruction: str | None) -> dict[str, Any]:
        return {
            "task": self.task,
            "instruction": arguments.instruction("instruction", instruction) or self.instruction,
            "normalize": self.normalize_embeddings,
            "show_progress": self.progress_bar,
        }
