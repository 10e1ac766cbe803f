"""The model families, by the name that config.json gives them. A family's modules are loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from types import ModuleType
from typing import Any


class _Families(Mapping[str, ModuleType]):
    def __init__(self, homes: dict[str, str]):
        self._homes = homes

    def __getitem__(self, name: str) -> ModuleType:
        return importlib.import_module(self._homes[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._homes)

    def __len__(self) -> int:
        return len(self._homes)


FAMILIES = _Families(
    {
        "llama_omni": "duologue.models.llama_omni.loading",
        "llama_omni_release": "duologue.models.llama_omni.released_model",
        "moshi": "duologue.models.moshi.loading",
        "moshi_release": "duologue.models.moshi.released_family",
    }
)
"""Family name to the module whose `from_folder` loads it."""

PUBLISHED = {
    "omni_speech2s_llama": "llama_omni_release",
    "moshi": "moshi_release",
    "personaplex": "moshi_release",
    "hibiki": "moshi_release",
}
"""`model_type` of folders that others published, to the family that loads them as they are."""

_FILES = {"tokenizer-e351c8d8-checkpoint125.safetensors": "moshi_release"}  # in folders without config.json
_KEYS = {"moshi_name": "moshi_release", "dep_q": "moshi_release"}  # of a config.json without a model_type


def published_family(settings: Mapping[str, Any] | None, files: Collection[str]) -> str | None:
    """The family that loads a folder that others published, as it is; None: it is no folder that is known here.

    Args:
        settings: its config.json; None: it has none.
        files: the names of its files.
    """
    marks, present = (_FILES, files) if settings is None else (_KEYS, settings)
    kind = (settings or {}).get("model_type")
    if kind is not None:
        return PUBLISHED.get(kind) if isinstance(kind, str) else None
    return next((family for mark, family in marks.items() if mark in present), None)
