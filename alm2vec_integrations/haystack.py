"""ALM2Vec for Haystack.

The components are defined in `haystack_integrations`, since Haystack makes no others of a stored pipeline.
"""

from __future__ import annotations

from ._extras import require

require("haystack", "haystack")

from haystack_integrations.components.converters.alm2vec import AudioFileToDocument  # noqa: E402
from haystack_integrations.components.embedders.alm2vec import (  # noqa: E402
    ALM2VecDocumentEmbedder,
    ALM2VecQueryEmbedder,
    ALM2VecTextEmbedder,
)
from haystack_integrations.components.preprocessors.alm2vec import AudioSplitter  # noqa: E402
from haystack_integrations.components.rankers.alm2vec import ALM2VecRanker  # noqa: E402

__all__ = [
    "ALM2VecDocumentEmbedder",
    "ALM2VecQueryEmbedder",
    "ALM2VecRanker",
    "ALM2VecTextEmbedder",
    "AudioFileToDocument",
    "AudioSplitter",
]
