"""ALM2Vec's splitter for Haystack."""

from .audio_splitter import AudioSplitter

__all__ = ["AudioSplitter"]
