"""What stages hand on: a part as the stage before exported it, or as it comes from outside."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from duologue import config as configs
from duologue.checkpoints import Resolver
from duologue.checkpoints.folders import load_into
from duologue.codecs.text import TextCodec, load_tokenizer
from duologue.errors import CheckpointError, TrainError
from duologue.models.ctranslate2 import read_whisper
from duologue.models.language_model import read_language_model
from duologue.models.llama_omni.ctc_listener import CtcListener, CtcListenerConfig
from duologue.models.llama_omni.listener import Listener, ListenerConfig
from duologue.models.llama_omni.released import load_whisper
from duologue.models.whisper import Whisper
from duologue.nn.transformer import Transformer

M = TypeVar("M", bound=nn.Module)
TOKENIZER = "listener_tokenizer.json"
CTC_LISTENER = "ctc_listener"  # the name of the part that the stage `ctc` exports
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def find(name: str) -> Path:
    """A part by its path, or an artefact by its name.

    Raises:
        TrainError: a path where nothing is. CheckpointError: no such artefact, or it is not to be had.
    """
    path = Path(name).expanduser()
    if path.exists():
        return path
    if "/" in name:
        raise TrainError(f"{name}: nothing is there. Run the stage that makes it first, or name an artefact.")
    return Resolver()(name)


def save_part(module: nn.Module, name: str, folder: Path, *, config: object = None) -> None:
    """Writes `<name>.safetensors` and the module's config as `<name>.json`."""
    state = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    save_file(state, folder / f"{name}.safetensors")
    configs.save(config if config is not None else module.config, folder / f"{name}.json")


def load_part(module: M, name: str, folder: Path) -> M:
    """Reads the weights that `save_part` wrote, strictly.

    Raises:
        CheckpointError: missing, damaged, or of another shape.
    """
    path = folder / f"{name}.safetensors"
    tensors = load_tensors(path)
    load_into(module, tensors, where=str(path))
    return module.eval()


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Raises CheckpointError where there is no whole safetensors file."""
    try:
        return load_file(path)
    except Exception as error:  # safetensors has its own kinds besides OSError
        raise CheckpointError(f"{path}: cannot be read ({error}). Run the stage that makes it again.") from error


def load_listener(name: str) -> tuple[Listener, Path]:
    """A listener and the file of its tokenizer.

    Args:
        name: a folder that the stage `listen` exported, or any Whisper: the name of an artefact, a folder of
            CTranslate2 (model.bin) or of transformers, with tokenizer.json.
    Raises:
        CheckpointError: not a whole folder of any of these kinds.
    """
    path = find(name)
    if (path / "listener.json").is_file():
        return load_part(
            Listener(configs.load(ListenerConfig, path / "listener.json")), "listener", path
        ), path / TOKENIZER
    whisper = read_whisper(path / "model.bin") if (path / "model.bin").is_file() else load_whisper(path)
    tokenizer = path / "tokenizer.json"
    listener = Listener(listener_config(whisper, load_tokenizer(tokenizer), where=str(path)))
    listener.whisper = whisper.float()
    return listener.eval(), tokenizer


def load_ctc_listener(name: str) -> CtcListener:
    """A listener of the paper's form.

    Args:
        name: a folder that the stage `ctc` exported.
    Raises:
        CheckpointError: not such a folder.
    """
    path = find(name)
    if not (path / f"{CTC_LISTENER}.json").is_file():
        raise CheckpointError(f"{path}: there is no {CTC_LISTENER}.json; need what a stage with CtcTask exported")
    config = configs.load(CtcListenerConfig, path / f"{CTC_LISTENER}.json")
    return load_part(CtcListener(config), CTC_LISTENER, path)


def listener_config(whisper: Whisper, tokenizer: Tokenizer, *, where: str) -> ListenerConfig:
    """The special tokens of a Whisper: an English one, or a multilingual one that is told to write English."""
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>"]
    if whisper.config.vocab_size >= 51_865:  # as Whisper's own code tells them apart
        names[2:2] = ["<|en|>", "<|transcribe|>"]
    ids = {name: tokenizer.token_to_id(name) for name in names}
    found = [index for index in ids.values() if index is not None]
    if len(found) < len(names):
        missing = next(name for name, index in ids.items() if index is None)
        raise CheckpointError(f"{where}: the tokenizer has no {missing}; need Whisper's tokenizer.json")
    end, *prompt = found
    return ListenerConfig(
        whisper=whisper.config, prompt=tuple(prompt), end=end, text_tokens=end, candidates=min(16, end)
    )


def load_language_model(name: str, dtype: str) -> tuple[Transformer, TextCodec]:
    """The frozen language model: an artefact, a GGUF file, or a folder of transformers."""
    if dtype not in DTYPES:
        raise TrainError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    llm, codec = read_language_model(find(name), dtype=DTYPES[dtype])
    return llm.requires_grad_(False), codec


def fingerprint(module: nn.Module) -> str:
    """16 hexadecimal digits that change with the weights: of a sample of every tensor, so that it is quick."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        flat = value.detach().flatten()
        sample = flat[:: max(1, len(flat) // 4096)].float().cpu().numpy()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sample.tobytes())
    return digest.hexdigest()[:16]
