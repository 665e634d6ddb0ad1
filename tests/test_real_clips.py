"""The bundled model's code on real recordings, mixed with text and composed items."""

import random

import numpy as np
import pytest

from alm2vec_integrations import AudioClip, AudioText


@pytest.fixture(scope="module")
def items(real_clips):
    clips = [AudioClip(path) for path in real_clips]
    cut = [
        AudioClip(path, start_seconds=0.5 * i, end_seconds=0.5 * i + 0.3 + i / 10) for i, path in enumerate(real_clips)
    ]
    composed = [AudioText(f"question {i}?", (clips, cut)[i % 2][i]) for i in range(len(clips))]
    texts = [f"{'a long caption ' * (i % 5)}of sound {i}" for i in range(len(clips))]
    return [item for group in zip(clips, cut, composed, texts, strict=True) for item in group]


@pytest.mark.parametrize("task", ["query", "document"])
def test_one_at_a_time_equals_all_at_once(tiny, items, task):
    """Within 1e-5, in order, and again after a shuffle."""
    alone = np.stack([tiny.encode(item, task=task) for item in items])
    together = tiny.encode(items, task=task)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    order = random.Random(0).sample(range(len(items)), len(items))
    shuffled = tiny.encode([items[i] for i in order], task=task)
    np.testing.assert_allclose(shuffled, alone[order], rtol=0, atol=1e-5)
    # Were the order lost, the comparison would notice: no two items have nearly the same vector.
    differences = np.abs(alone[:, None] - alone[None]).max(axis=2) + np.eye(len(items))
    assert differences.min() > 1e-3


async def test_async_equals_sync(tiny, items):
    """The same vectors without blocking."""
    np.testing.assert_allclose(
        await tiny.aencode(items, task="query"), tiny.encode(items, task="query"), rtol=0, atol=1e-5
    )


def test_an_item_alone_is_bit_identical_every_time(tiny, items):
    """Nothing in the way from item to vector is left to chance."""
    for item in items[:8]:
        np.testing.assert_array_equal(tiny.encode(item, task="query"), tiny.encode([item], task="query")[0])


def test_rerank_puts_the_clip_itself_first(tiny, real_clips):
    """A clip under a question is closest to itself under that question."""
    clips = [AudioClip(path) for path in real_clips]
    ranked = tiny.rerank(clips[3], clips, question="Is there music playing in this audio?", top_n=3)
    assert (len(ranked), ranked[0].index) == (3, 3)
    assert ranked[0].score == pytest.approx(1.0, abs=1e-5)
