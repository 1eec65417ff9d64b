"""A score with whose it is."""

from __future__ import annotations

from pipeline.results import Score


class ModelScore(Score):
    """A score with the model and the suite it belongs to."""

    model: str
    suite: str
