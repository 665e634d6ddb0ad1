"""ALM2Vec's converter for Haystack."""

from .audio_file import AudioFileToDocument

__all__ = ["AudioFileToDocument"]
