"""duologue: train, evaluate and serve end-to-end speech language models."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duologue.pipeline import Pipeline as Pipeline

__version__ = "0.1.0"
__all__ = ["Pipeline", "__version__"]


def __getattr__(name: str) -> object:
    """Imports torch and the rest only once `Pipeline` is asked for."""
    if name == "Pipeline":
        from duologue.pipeline import Pipeline

        return Pipeline
    raise AttributeError(f"module 'duologue' has no attribute {name!r}")
