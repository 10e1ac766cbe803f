"""The released Moshi models as a running `Moshi`: their folders as they are published, weights, Mimi and SentencePiece.

Such a folder is a model folder as it is, with or without its config.json; without, it is the 7B. One of our own that
points there is a way to keep settings:
{"format": 1, "family": "moshi_release", "model": {"release": "/data/moshiko", "dtype": "int8"}, "files": {}}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from duologue import config as configs
from duologue.codecs.mimi import MimiConfig
from duologue.codecs.mimi_configs import config_from_kyutai
from duologue.codecs.mimi_weights import load_mimi
from duologue.errors import CheckpointError
from duologue.models.moshi.config import MoshiConfig
from duologue.models.moshi.family import Moshi, PromptConfig
from duologue.models.moshi.generation import GREEDY, Sampling
from duologue.models.moshi.loading import DTYPES, DType, FamilyConfig, assemble, refuse_parts, silent
from duologue.models.moshi.released import load_moshi
from duologue.models.moshi.released_config import HIBIKI, from_kyutai, is_hibiki, read_config
from duologue.models.moshi.text import load_pieces
from duologue.nn.weight_files import read_json

CODEC_FILE, TEXT_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors", "tokenizer_spm_32k_3.model"
END = 2  # text id with which Hibiki ends a translation; read as padding, it goes on, as in the `moshi` package
SAMPLING = {  # their names of ours, in config.json's `lm_gen_config`
    "temp": "temperature",
    "top_k": "top_k",
    "temp_text": "text_temperature",
    "top_k_text": "text_top_k",
}
NOT_GUIDED = ("cfg_is_no_text", "cfg_is_masked_until")  # ways of guidance that are not here


@dataclass(frozen=True, kw_only=True)
class ReleaseSettings:
    """config.json's `model` of the family `moshi_release`; a folder in the published layout has the defaults."""

    release: str = "."  # the folder with the weights; this and the next two as seen from the model folder
    mimi: str = ""  # "": in the release
    tokenizer: str = ""  # "": in the release
    sampling: Sampling | None = None  # None: the release's
    conditions: dict[str, str] | None = None  # a value of each, such as {"description": "good"}; None: the release's
    against: dict[str, str] | None = None  # what guidance leads away from, likewise
    guidance: float | None = None  # how strongly (conditions.Guidance); 1: not at all. None: the release's
    seed: int | None = None  # of every conversation; None: each has its own
    dtype: DType = "bfloat16"  # of the language model (loading.DTYPES); q8 files stay int8
    device: str = "cpu"


class Folder(Protocol):
    """What this module needs of `checkpoints.ModelFolder`."""

    @property
    def path(self) -> Path: ...
    @property
    def model(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Release:
    """What a published folder holds."""

    config: FamilyConfig
    folder: Path  # with the weights
    codec: Path
    text: Path
    translates: bool  # it is a Hibiki, which is not to end before it is asked to


def from_folder(folder: Folder, artefact: Callable[[str], Path], **parts: Any) -> Moshi:
    """Builds the model of a folder in the published layout, or of one that points to it.

    Args:
        artefact: not needed, the release is not pinned by hash.
    Raises:
        CheckpointError: a file that is missing, damaged or of another model. ConfigError: an unknown key.
        PartError: parts that do not fit each other, or one to be exchanged: there is none.
    """
    refuse_parts(parts)
    release = read_release(folder)
    family = release.config
    pieces = load_pieces(release.text, silent=silent(family.language_model))  # what is small before 16 GB of weights
    model = load_moshi(release.folder, dtype=DTYPES[family.dtype])
    if release.translates:
        table = model.text_embedding.table.weight.data
        table[END] = table[family.language_model.padding_id]
    return assemble(model, load_mimi(release.codec, family.mimi), pieces, family)


def read_release(folder: Folder) -> Release:
    """Shape, settings and files of a folder in the published layout, or of one that points to it; weights wait.

    Raises:
        CheckpointError: a file that is missing or of another model. ConfigError: an unknown key.
    """
    settings = configs.from_dict(ReleaseSettings, folder.model, where=f"{folder.path}/config.json: model")
    release = folder.path / settings.release
    raw = read_config(release)
    config = from_kyutai(raw, where=str(release / "config.json"))
    codec_file = _file(folder.path / settings.mimi if settings.mimi else release / raw.get("mimi_name", CODEC_FILE))
    text = folder.path / settings.tokenizer if settings.tokenizer else release / raw.get("tokenizer_name", TEXT_FILE)
    conditions, against, guidance = _guidance(settings, raw, config, where=str(release / "config.json"))
    family = FamilyConfig(
        language_model=config,
        mimi=_mimi_config(release, raw, max(config.own_codebooks, config.heard_codebooks)),
        sampling=settings.sampling or _sampling(raw),
        seed=settings.seed,
        prompt=PromptConfig() if raw.get("model_type") == "personaplex" else None,
        conditions=conditions,
        against=against,
        guidance=guidance,
        dtype=settings.dtype,
        device=settings.device,
    )
    return Release(family, release, codec_file, _file(text), raw.get("model_type") == "hibiki")


def _file(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path}: the file is missing; it belongs to the release. Fetch it again.")
    return path


def _mimi_config(release: Path, raw: Mapping[str, Any], codebooks: int) -> MimiConfig:
    name = raw.get("mimi_config_name")
    if name is None:
        return replace(MimiConfig(), num_codebooks=codebooks)
    return config_from_kyutai(read_json(release / name), num_codebooks=codebooks, where=str(release / name))


def _guidance(
    settings: ReleaseSettings, raw: Mapping[str, Any], config: MoshiConfig, *, where: str
) -> tuple[dict[str, str], dict[str, str], float]:
    """Conditions, those that guidance leads away from, and how strongly."""
    generation = raw.get("lm_gen_config") or {}
    for key in NOT_GUIDED:
        if generation.get(key):
            raise CheckpointError(f"{where}: lm_gen_config.{key} = {generation[key]!r} is not supported")
    known = is_hibiki(config)
    conditions, against = ({"description": value} if known else {} for value in HIBIKI.values())
    conditions = conditions if settings.conditions is None else settings.conditions
    against = against if settings.against is None else settings.against
    coefficient = settings.guidance
    if coefficient is None:  # the release's is for conditions that differ
        coefficient = float(generation.get("cfg_coef", 1.0)) if conditions != against else 1.0
    return conditions, against, coefficient


def _sampling(raw: Mapping[str, Any]) -> Sampling:
    chosen = raw.get("lm_gen_config") or {}
    if chosen.get("use_sampling") is False:
        return GREEDY
    return Sampling(**{ours: chosen[theirs] for theirs, ours in SAMPLING.items() if theirs in chosen})
