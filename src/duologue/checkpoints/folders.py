"""Model folders: config.json, safetensors, tokenizer files and a model card, with the hash of every file.

    {"format": 1, "family": "llama_omni", "model": {...},
     "files": {"listener.safetensors": {"sha256": "...", "bytes": 1}},
     "artefacts": {"llm": "smollm2-135m-instruct"}}

`model` is the family's own config; `artefacts` names, for each part that is not in the folder, the outside part.
"""

from __future__ import annotations

import difflib
import importlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duologue import config
from duologue.checkpoints.artefacts import ArtefactFile, Resolver, check_file, sha256_of
from duologue.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = 1
CODEC = "mimi"  # the family of a codec alone, which is no model to converse with
_AGAIN = "get the model folder again"


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """What config.json says of one file of the folder."""

    sha256: str
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FolderConfig:
    """config.json of a model folder."""

    format: int
    family: str
    model: dict[str, Any]
    files: dict[str, FileEntry]
    artefacts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """An opened model folder. Its files are checked as they are taken."""

    path: Path
    family: str
    model: dict[str, Any]  # the family's own config, as plain JSON types
    files: dict[str, FileEntry]
    artefacts: dict[str, str]  # the part's role -> the artefact's name

    def file(self, name: str) -> Path:
        """A file of the folder, checked by size and hash.

        Raises:
            CheckpointError: not listed in config.json, missing, truncated or changed.
        """
        entry = self.files.get(name)
        if entry is None:
            raise CheckpointError(
                f"{self.path}: the family {self.family!r} needs {name}, which config.json does not list "
                f"(it lists {', '.join(self.files) or 'nothing'}); {_AGAIN}"
            )
        path = self.path / name
        check_file(path, ArtefactFile(name=name, sha256=entry.sha256, bytes=entry.bytes), way_out=_AGAIN)
        return path

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of one safetensors file, checked.

        Raises:
            CheckpointError: as `file`, or not a safetensors file.
        """
        return _read_tensors(self.file(name))

    def require_family(self, family: str) -> None:
        """Raises CheckpointError if the folder is of another family."""
        if self.family != family:
            raise CheckpointError(
                f"{self.path}: a model of the family {self.family!r}, need one of {family!r}; choose another model"
            )


def packaged_models() -> dict[str, Path]:
    """The models that ship with the package, by name."""
    assets = Path(__file__).parent.parent / "assets"
    return {path.parent.name: path.parent for path in sorted(assets.glob("*/config.json"))}


def resolve_model(name_or_dir: str | Path) -> Path:
    """The folder of a model: a packaged one by its name, or a folder.

    Raises:
        CheckpointError: neither.
    """
    packaged = packaged_models()
    if str(name_or_dir) in packaged:
        return packaged[str(name_or_dir)]
    path = Path(name_or_dir).expanduser()
    if path.is_dir():
        if (path / "config.json").is_file() or _published(path, None):
            return path
        raise CheckpointError(f"{path}: a folder without config.json, so not a model folder; choose another")
    near = difflib.get_close_matches(str(name_or_dir), packaged, n=1)
    known = f"did you mean {near[0]!r}?" if near else f"packaged models: {', '.join(packaged) or 'none'}"
    raise CheckpointError(f"{name_or_dir}: neither a packaged model nor a model folder; {known}")


def open_model(name_or_dir: str | Path) -> ModelFolder:
    """Reads a model folder's config.json, ours or of a published layout that a family loads. Weights are not touched.

    Raises:
        CheckpointError: no such model, of a layout that nobody here knows, or of a newer format.
        ConfigError: an unknown or missing key.
    """
    path = resolve_model(name_or_dir)
    if not (path / "config.json").is_file():
        return _as_published(path, _published(path, None) or "")
    try:
        data = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}/config.json: cannot be read as JSON ({error}); {_AGAIN}") from error
    if not isinstance(data, dict) or "family" not in data or "format" not in data:
        kind = data.get("model_type") or data.get("architectures") if isinstance(data, dict) else None
        published = importlib.import_module("duologue.models").PUBLISHED  # late, as the table of families
        if isinstance(data, dict) and (family := _published(path, data)) is not None:
            return _as_published(path, family)
        what = f" (it looks like a transformers model: {kind})" if kind else ""
        raise CheckpointError(
            f"{path}/config.json: not a duologue model{what}; it needs the keys 'format', 'family', 'model' and 'files'"
            f", or the model_type {' or '.join(published)}"
        )
    if data["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: model format {data['format']}, this version reads {FORMAT}; update duologue or convert the model"
        )
    try:
        opened = config.from_dict(FolderConfig, data, where="config.json")
    except ConfigError as error:
        raise ConfigError(f"{path}/{error}") from error
    for name in opened.files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CheckpointError(f"{path}/config.json: the file {name!r} lies outside the folder; {_AGAIN}")
    return ModelFolder(
        path=path, family=opened.family, model=opened.model, files=opened.files, artefacts=opened.artefacts
    )


def _published(path: Path, settings: Mapping[str, Any] | None) -> str | None:
    """The family of a folder in a layout of others; None: none is known."""
    files = {file.name for file in path.iterdir()}
    family: str | None = importlib.import_module("duologue.models").published_family(settings, files)  # late, as below
    return family


def _as_published(path: Path, family: str) -> ModelFolder:
    return ModelFolder(path=path, family=family, model={}, files={}, artefacts={})


def load_model(
    name_or_dir: str | Path,
    *,
    resolver: Resolver | None = None,
    settings: Mapping[str, Any] | None = None,
    families: Mapping[str, Any] | None = None,
    **parts: Any,
) -> Any:
    """Loads a model of any family.

    Args:
        resolver: where outside parts come from; None for the default cache.
        settings: changes to the family's config, by (dotted) key, such as {"omega": 10}.
        families: the table of families; None for `duologue.models.FAMILIES`.
        parts: parts to use in place of the folder's own, by name.
    Returns:
        A `streaming.protocol.StreamingModel`.
    Raises:
        CheckpointError: a missing, damaged or foreign folder or artefact.
        ConfigError: a key that the family does not know.
        PartError: a part that the family does not know, or that does not fit.
    """
    folder = open_model(name_or_dir)
    # late: the table brings every family's modules
    known = families if families is not None else importlib.import_module("duologue.models").FAMILIES
    if folder.family == CODEC:
        raise CheckpointError(
            f"{folder.path}: a codec, which holds no conversation; choose a model such as 'mini'. A codec opens with "
            "checkpoints.codecs.load_codec and measured with duologue eval mimi"
        )
    if folder.family not in known:
        raise CheckpointError(
            f"{folder.path}: a model of the family {folder.family!r}, which this version does not know "
            f"(it knows {', '.join(sorted(known)) or 'none'}); update duologue or choose another model"
        )
    for key, value in (settings or {}).items():
        _set(folder, key, value)
    find = resolver or Resolver()

    def artefact(role: str) -> Path:
        """The file or folder of an outside part, by its role in config.json or by its own name; or by a path there."""
        name = folder.artefacts.get(role, role)
        return Path(name) if Path(name).is_absolute() and Path(name).exists() else find(name)

    return known[folder.family].from_folder(folder, artefact, **parts)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> None:
    """Puts tensors into a module, strictly: every key on both sides, every shape.

    Args:
        where: the file, for messages.
    Raises:
        CheckpointError: naming the first keys that are missing, unknown or of another shape.
    """
    own = module.state_dict()
    shapes = [
        f"{key} has shape {list(tensors[key].shape)}, need {list(own[key].shape)}"
        for key in own
        if key in tensors and tensors[key].shape != own[key].shape
    ]
    problems = [
        *_some("missing", [key for key in own if key not in tensors]),
        *_some("unknown", [key for key in tensors if key not in own]),
        *_some("of another shape", shapes),
    ]
    if problems:
        raise CheckpointError(
            f"{where}: the weights do not fit {type(module).__name__}: {'; '.join(problems)}; "
            "use weights and config.json of the same model"
        )
    module.load_state_dict(dict(tensors), assign=False)


def save_model(
    folder: str | Path,
    *,
    family: str,
    model: Any,
    tensors: Mapping[str, Mapping[str, Tensor]],
    files: Mapping[str, bytes | Path] | None = None,
    artefacts: Mapping[str, str] | None = None,
    card: str = "",
) -> Path:
    """Writes a model folder; it is there whole or not at all, and an older one stays until the new one is written.

    Args:
        model: the family's config, a dataclass or plain JSON types.
        tensors: for each safetensors file its tensors.
        files: other files (tokenizer, a sample), as bytes or copied from a path.
        card: the text of MODEL_CARD.md.
    Returns:
        The folder.
    Raises:
        CheckpointError: it cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as name:
            new = Path(name)
            for file_name, state in tensors.items():
                save_file({key: value.detach().cpu().contiguous() for key, value in state.items()}, new / file_name)
            for file_name, content in (files or {}).items():
                (new / file_name).write_bytes(content if isinstance(content, bytes) else Path(content).read_bytes())
            entries = {
                path.name: FileEntry(sha256=sha256_of(path), bytes=path.stat().st_size)
                for path in sorted(new.iterdir())
            }
            written = FolderConfig(
                format=FORMAT,
                family=family,
                model=dict(model) if isinstance(model, Mapping) else config.to_dict(model),
                files=entries,
                artefacts=dict(artefacts or {}),
            )
            if card:
                (new / "MODEL_CARD.md").write_text(card, encoding="utf-8")
            config.save(written, new / "config.json")
            _take_place(new, folder)
    except OSError as error:
        raise CheckpointError(
            f"{folder}: cannot write the model ({error.strerror or error}); free some space"
        ) from error
    return folder


def describe(resolver: Resolver | None = None) -> dict[str, Any]:
    """What there is, as plain JSON types: packaged models with their files, and artefacts with their sources."""
    resolver = resolver or Resolver()
    models = []
    for name, path in packaged_models().items():
        opened = open_model(path)
        models.append(
            {
                "name": name,
                "family": opened.family,
                "folder": str(path),
                "bytes": sum(entry.bytes for entry in opened.files.values()),
                "files": {key: {"sha256": entry.sha256, "bytes": entry.bytes} for key, entry in opened.files.items()},
                "artefacts": dict(opened.artefacts),
            }
        )
    artefacts = [
        {
            "name": artefact.name,
            "about": artefact.about,
            "licence": artefact.licence,
            "bytes": artefact.bytes,
            "files": {file.name: {"sha256": file.sha256, "bytes": file.bytes} for file in artefact.files},
            "sources": [source.where for source in artefact.sources],
            "cached": resolver.cached(artefact.name),
        }
        for artefact in resolver.table.values()
    ]
    return {"models": models, "artefacts": artefacts, "cache": str(resolver.cache)}


def _take_place(new: Path, folder: Path) -> None:
    """Moves a finished folder to its name; into an existing folder file by file, config.json last."""
    folder.mkdir(exist_ok=True)
    for path in sorted(new.iterdir(), key=lambda path: path.name == "config.json"):
        os.replace(path, folder / path.name)


def _set(folder: ModelFolder, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    group: Any = folder.model
    for parent in parents:
        group = group.get(parent) if isinstance(group, dict) else None
    if not isinstance(group, dict):
        raise ConfigError(f"{key}: the model {folder.path.name} has no such group of settings")
    group[leaf] = value


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error}); {_AGAIN}") from error


def _some(what: str, keys: list[str], *, most: int = 3) -> list[str]:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return [f"{what}: {', '.join(keys[:most])}{more}"] if keys else []
