"""Weight files, strictly: what is missing, not expected or damaged is named."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from duologue.errors import CheckpointError


def refuse(missing: Iterable[str], unexpected: Iterable[str], where: str) -> None:
    """Raises a CheckpointError that names what is missing and what is unexpected, if anything is."""
    problems = [
        f"{len(names)} tensors {what}: {', '.join(names[:4])}{', ...' if len(names) > 4 else ''}"
        for what, names in (("missing", sorted(missing)), ("unexpected", sorted(unexpected)))
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{where}: {'; '.join(problems)}. The file is not whole, or it is a model of another kind or size."
        )


def fill(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Makes `tensors` the module's weights (no copy; the module may be on the meta device).

    Raises:
        CheckpointError: names what is missing, unexpected or of another shape.
    """
    own = module.state_dict()
    refuse(set(own) - set(tensors), set(tensors) - set(own), where)
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise CheckpointError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}, the configuration says {tuple(tensor.shape)}"
            )
    module.load_state_dict(dict(tensors), strict=True, assign=True)


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        CheckpointError: no such file, or not a JSON object.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}). Is it the model's folder?") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}). Fetch it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: need a JSON object, got {type(data).__name__}")
    return data


class Shards(Mapping[str, Tensor]):
    """The tensors of a safetensors file or of a folder of shards, read when asked for.

    Raises:
        CheckpointError: nothing there, a shard is missing or cut short, or the index does not fit the shards.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self._files = {}
        for file in _shard_files(self.path):
            try:
                handle = safe_open(file, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file}: not a whole safetensors file ({error}). Delete it and fetch it again."
                ) from error
            self._files.update(dict.fromkeys(handle.keys(), handle))
        index = self.path / "model.safetensors.index.json"
        if index.is_file():
            named = set(read_json(index).get("weight_map", {}))
            refuse(named - set(self._files), set(self._files) - named, str(index))

    def __getitem__(self, name: str) -> Tensor:
        return self._files[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


def _shard_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    index = path / "model.safetensors.index.json"
    if index.is_file():
        files = [path / name for name in sorted(set(read_json(index).get("weight_map", {}).values()))]
    else:
        files = sorted(path.glob("*.safetensors"))
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise CheckpointError(f"{path}: {', '.join(missing) or 'any *.safetensors file'} is missing. Fetch it again.")
    return files
