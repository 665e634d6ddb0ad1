"""ALM2Vec for LlamaIndex."""

from .._extras import require

require("llama_index.core", "llama-index")

from .allowing import AllowedAudio  # noqa: E402 - after the check that names the extra
from .as_text import AudioAsText  # noqa: E402
from .embedding import ALM2VecEmbedding  # noqa: E402
from .nodes import AudioNode  # noqa: E402
from .parsing import AudioNodeParser  # noqa: E402
from .querying import AudioQueryBundle  # noqa: E402
from .reading import AudioReader  # noqa: E402
from .reranking import ALM2VecRerank  # noqa: E402

__all__ = [
    "ALM2VecEmbedding",
    "ALM2VecRerank",
    "AllowedAudio",
    "AudioAsText",
    "AudioNode",
    "AudioNodeParser",
    "AudioQueryBundle",
    "AudioReader",
]
