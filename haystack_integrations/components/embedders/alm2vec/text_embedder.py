"""`ALM2VecTextEmbedder`: a query in words."""

from __future__ import annotations

import os
from typing import Any

from haystack import component
from haystack.utils import ComponentDevice, Secret

from alm2vec_integrations import arguments
from alm2vec_integrations._haystack.model import DEFAULT_TOKEN, EmbeddingComponent
from alm2vec_integrations.checkpoint.configuration import Verify
from alm2vec_integrations.instructions import Task
from alm2vec_integrations.planning import DEFAULT_MAX_ITEMS, DEFAULT_MAX_SECONDS, Batching


@component
class ALM2VecTextEmbedder(EmbeddingComponent):
    """Embeds a text, for retrievers of text and audio alike.

    The model is loaded at the first run, and shared with all components of equal configuration.

    Example:
        >>> embedder = ALM2VecTextEmbedder(model="cara-ai/ALM2Vec-FT")
        >>> embedder.run(text="an angry customer")["embedding"]

    Args:
        model: a hub id, "alm2vec-tiny" (bundled, for demonstrations), or a folder beginning with `/`, `./`, `../`, `~`.
        device: where the model computes; None is the GPU if there is one, else the CPU.
        token: for the hub.
        revision: branch, tag or commit on the hub.
        trust_remote_code: whether the checkpoint's own code is run. None trusts the two published checkpoints and the
            bundled one. True counts from Python code alone, not from a stored pipeline.
        local_files_only: never reach for the network.
        dtype: "float32", "bfloat16", "float16" or "auto"; None is bfloat16 on a GPU that has it, else float32.
        model_kwargs: more keyword arguments for transformers' `from_pretrained`.
        batch_size: most items in one forward pass.
        max_batch_seconds: most seconds of audio in one forward pass.
        batching: what may share a forward pass, "similar", "equal" or "single".
        verify: "full", "fast" or "off"; how the loaded model is compared with its files.
        progress_bar: draw one on standard error.
        normalize_embeddings: give vectors length 1.
        instruction: what vectors should capture; None and "" are the published one of `task`.
        task: what the text is to the model, "query" or "document" (an answer, say).

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
    ) -> None:
        self._keep(
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
        )

    @component.output_types(embedding=list[float])
    def run(self, text: str, instruction: str | None = None) -> dict[str, Any]:
        """Embed a text.

        Args:
            text: never opened as a file.
            instruction: for this run; None and "" are the component's.

        Returns:
            `embedding`, floats of the model's width.

        Raises:
            TypeError: `text` is not a string.
            InputError: `text` is empty.
            CheckpointError: the model cannot be loaded, or its code is not trusted.
        """
        self._check(text)
        how = self._how(instruction)
        vector = self._encoder().encode(text, **how)
        return {"embedding": vector.tolist()}

    @component.output_types(embedding=list[float])
    async def run_async(self, text: str, instruction: str | None = None) -> dict[str, Any]:
        """`run` without blocking the event loop; arguments, result and errors are the same."""
        self._check(text)
        how = self._how(instruction)
        vector = await (await self._encoder_async()).aencode(text, **how)
        return {"embedding": vector.tolist()}

    def _check(self, text: Any) -> None:
        if not isinstance(text, str):
            raise TypeError(
                f"ALM2VecTextEmbedder expects a string as input, got {type(text).__name__}. In case you want to embed "
                "a list of Documents, please use the ALM2VecDocumentEmbedder; for audio, the ALM2VecQueryEmbedder."
            )

    def _how(self, instruction: str | None) -> dict[str, Any]:
        return {
            "task": self.task,
            "instruction": arguments.instruction("instruction", instruction) or self.instruction,
            "normalize": self.normalize_embeddings,
            "show_progress": self.progress_bar,
        }
