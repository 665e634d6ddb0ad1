"""Take a job's steps to the end, in the caller's thread or off the event loop."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from .checkpoint.handles import ModelHandle
from .runtime import Job

if TYPE_CHECKING:
    from tqdm import tqdm


def run(job: Job, show_progress: bool) -> None:
    """All steps, one after the other, here."""
    with _progress(job, show_progress) as bar:
        for settled in job.steps():
            bar.update(settled)


async def arun(job: Job, handle: ModelHandle, show_progress: bool) -> None:
    """All steps, each in a thread of the handle; a call that is cancelled stops after the step that is running."""
    loop, context, steps = asyncio.get_running_loop(), contextvars.copy_context(), job.steps()
    executor = handle.executor("audio" if job.has_audio else "text")
    with _progress(job, show_progress) as bar:
        while not job.finished:
            bar.update(await loop.run_in_executor(executor, context.run, next, steps))


def _progress(job: Job, show: bool) -> tqdm[Any]:
    from tqdm import tqdm

    return tqdm(total=len(job), desc="ALM2Vec", unit="item", disable=not show)
