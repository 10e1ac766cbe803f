"""A folder is a model; a part that is not in the folder is a pinned artefact, found by its hash.

`folders` reads and writes model folders, `artefacts` finds what they point to.
"""

from duologue.checkpoints.artefacts import ARTEFACTS, Artefact, ArtefactFile, HubSource, Resolver, WheelSource
from duologue.checkpoints.folders import (
    ModelFolder,
    describe,
    load_into,
    load_model,
    open_model,
    packaged_models,
    resolve_model,
    save_model,
)

__all__ = [
    "ARTEFACTS",
    "Artefact",
    "ArtefactFile",
    "HubSource",
    "ModelFolder",
    "Resolver",
    "WheelSource",
    "describe",
    "load_into",
    "load_model",
    "open_model",
    "packaged_models",
    "resolve_model",
    "save_model",
]
