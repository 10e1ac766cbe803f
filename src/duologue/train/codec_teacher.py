"""Who teaches a codec's first codebook what is said: a frozen encoder of speech, a vector every 20 ms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from duologue import config as configs
from duologue.audio.features import log_mel
from duologue.checkpoints import open_model, packaged_models
from duologue.checkpoints.folders import load_into
from duologue.errors import CheckpointError
from duologue.models.llama_omni.listener import Listener, ListenerConfig
from duologue.models.whisper import WhisperEncoder
from duologue.nn.quant import unpack_int8
from duologue.train.parts import find, load_listener

RATE = 16_000  # Hz, of what it hears
STEP = 320  # samples between its vectors
PIECE = 28 * RATE  # samples that it hears at a time
WAVLM_SHAPED = ("wavlm", "hubert", "wav2vec2", "unispeech-sat")


class Teacher(Protocol):
    """Weights that never change, and what they make of speech."""

    dim: int
    module: nn.Module

    def hear(self, audio_1N: Tensor) -> Tensor:
        """[N / STEP, dim] of whole steps, at most PIECE samples."""
        ...


class WhisperTeacher:
    """Our Whisper-shaped encoder."""

    module: nn.Module

    def __init__(self, encoder: WhisperEncoder):
        self.module, self.dim = encoder, encoder.config.dim
        self._mels = encoder.config.num_mels

    def hear(self, audio_1N: Tensor) -> Tensor:
        features_1MT, frames_1 = log_mel(audio_1N, num_mels=self._mels)
        return self.module(features_1MT, frames_1)[0][0]


class WavlmTeacher:
    """A model of transformers that makes a vector every 20 ms of 16 kHz audio: WavLM, HuBERT, wav2vec 2.0."""

    def __init__(self, folder: Path):
        from transformers import AutoFeatureExtractor, AutoModel

        try:
            self.module: Any = AutoModel.from_pretrained(folder, local_files_only=True).eval()
            found = folder / "preprocessor_config.json"
            prepare = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True) if found.is_file() else None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{folder}: transformers cannot load this teacher ({error})") from error
        self.dim, self._evened = self.module.config.hidden_size, bool(prepare and prepare.do_normalize)

    def hear(self, audio_1N: Tensor) -> Tensor:
        if self._evened:
            audio_1N = (audio_1N - audio_1N.mean()) / (audio_1N.var() + 1e-7).sqrt()
        audio_1N = nn.functional.pad(audio_1N, (40, 40))  # its windows of 400 samples, so that each step has one
        return self.module(audio_1N.to(next(self.module.parameters()).device)).last_hidden_state[0]


def load_teacher(name: str) -> Teacher:
    """A teacher, on the CPU.

    Args:
        name: a folder of transformers with a WavLM, HuBERT or wav2vec 2.0; a packaged model with a listener, such as
            "mini"; or what `parts.load_listener` takes: a folder that the stage `listen` exported, or any Whisper.
    Raises:
        CheckpointError: none of these, or not whole.
    """
    if name in packaged_models():
        encoder = _packaged(name)
    else:
        path = find(name)
        config = path / "config.json"
        if config.is_file() and json.loads(config.read_text(encoding="utf-8")).get("model_type") in WAVLM_SHAPED:
            return WavlmTeacher(path)
        encoder = load_listener(name)[0].whisper.encoder
    return WhisperTeacher(encoder.float().eval().requires_grad_(False))


def _packaged(name: str) -> WhisperEncoder:
    folder = open_model(name)
    if "listener" not in folder.model or folder.model.get("listener_kind") == "ctc":
        raise CheckpointError(f"{name}: this model has no listener that could teach; name a Whisper")
    listener = Listener(configs.from_dict(ListenerConfig, folder.model["listener"]))
    load_into(listener, unpack_int8(folder.tensors("listener.safetensors")), where=f"{name}/listener.safetensors")
    return listener.whisper.encoder


@torch.no_grad()
def taught(teacher: Teacher, audio_N: Tensor) -> Tensor:
    """A vector [S, dim] on the CPU for each whole step of 16 kHz audio of any length."""
    device = next(teacher.module.parameters()).device
    pieces = [piece for piece in audio_N[: len(audio_N) // STEP * STEP].split(PIECE) if len(piece) >= 2 * STEP]
    heard = [teacher.hear(piece[None].to(device)) for piece in pieces]
    found = torch.cat(heard).float().cpu() if heard else torch.zeros(0, teacher.dim)
    missing = len(audio_N) // STEP - len(found)  # a last piece too short to be heard
    return torch.cat([found, found[-1:].expand(missing, -1)]) if missing and len(found) else found
