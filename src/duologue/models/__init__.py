"""The model families, by the name that config.json gives them. A family's modules are loaded when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from types import ModuleType


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
}
"""`model_type` of folders that others published, to the family that loads them as they are."""
