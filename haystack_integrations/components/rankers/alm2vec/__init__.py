"""ALM2Vec's ranker for Haystack."""

from .ranker import ALM2VecRanker

__all__ = ["ALM2VecRanker"]
