"""From a model folder to a running `LlamaOmni`, and back.

The folder holds what was trained here: listener.safetensors, adapter.safetensors, llm_lora.safetensors,
speech_decoder.safetensors, vocoder.safetensors (large matrices in int8) and, of a recogniser, listener_tokenizer.json.
The language model itself is an artefact: its weights are found by `checkpoints` and meet their low-rank changes here.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from duologue import config as configs
from duologue import numbers
from duologue.codecs.text import load_tokenizer
from duologue.errors import CheckpointError, ConfigError, PartError
from duologue.models.llama_omni.adapter import ReadoutAdapter, ReadoutConfig
from duologue.models.llama_omni.ctc_listener import CtcListener, CtcListenerConfig
from duologue.models.llama_omni.framing import Framing
from duologue.models.llama_omni.listener import Listener, ListenerConfig
from duologue.models.llama_omni.listening import CtcHearing, Ear, Hearing, RecogniserHearing
from duologue.models.llama_omni.model import LlamaOmni, OmniOptions
from duologue.models.llama_omni.prepared import load_llm
from duologue.models.llama_omni.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from duologue.models.llama_omni.turn_head import TurnHead, TurnHeadConfig
from duologue.nn.quant import shape_like, unpack_int8
from duologue.vocoders.spectral import SpectralVocoder, SpectralVocoderConfig

PARTS = ("encoder", "adapter", "llm", "speech_decoder", "vocoder")


@dataclass(frozen=True, kw_only=True)
class OmniConfig:
    """config.json's `model` of this family. Defaults: mini."""

    listen: str = "states"  # states: the LLM hears the listener's states; text: its words, as a cascade would
    listener_kind: str = "recogniser"  # or ctc: the paper's form, encoder and adapter alone
    listener: ListenerConfig = field(default_factory=ListenerConfig)  # of a recogniser
    ctc: CtcListenerConfig = field(default_factory=CtcListenerConfig)  # of the other kind
    adapter: ReadoutConfig = field(default_factory=ReadoutConfig)
    speech_decoder: SpeechDecoderConfig = field(default_factory=SpeechDecoderConfig)
    vocoder: SpectralVocoderConfig = field(default_factory=SpectralVocoderConfig)
    turn_head: TurnHeadConfig | None = None  # None: it cannot tell whether a question sounds complete
    system: str = "You are mini, a friendly voice assistant. Today is {weekday}, {date}, {year}."
    note: str = "Today is {weekday}, {date}, {year}."  # stays where a client gives other instructions
    omega: int = 10
    context: int = 2048
    longest_answer: int = 160  # tokens
    once: int = 6  # tokens in a row that an answer has only once; 0: as often as it will
    speak: bool = True
    recall: bool = True  # what users said of themselves is read again where they ask about it
    int8: bool = True  # the LLM in int8; False: float32

    def __post_init__(self):
        if self.listener_kind not in ("recogniser", "ctc"):
            raise ConfigError(f"listener_kind: need 'recogniser' or 'ctc', got {self.listener_kind!r}")

    def options(self) -> OmniOptions:
        return OmniOptions(
            omega=self.omega,
            context=self.context,
            longest_answer=self.longest_answer,
            once=self.once,
            speak=self.speak,
            recall=self.recall,
        )


class Folder(Protocol):
    """What this module needs of `checkpoints.ModelFolder`."""

    @property
    def path(self) -> Path: ...
    @property
    def model(self) -> dict[str, Any]: ...
    def file(self, name: str) -> Path: ...
    def tensors(self, name: str) -> dict[str, Tensor]: ...


def from_folder(folder: Folder, artefact: Callable[[str], Path], **parts: Any) -> LlamaOmni:
    """Builds the model of a folder.

    Args:
        artefact: where the part of a role ("llm") lies.
        parts: modules to use in place of the folder's own, by the names in `PARTS`.
    Raises:
        CheckpointError: a file that does not fit. PartError: a part that does not fit or is not known.
    """
    for name in parts:
        if name not in PARTS:
            raise PartError(f"there is no part {name!r}; the parts are {', '.join(PARTS)}")
    config = configs.from_dict(OmniConfig, folder.model, where=f"{folder.path}/config.json: model")
    changes = folder.tensors("llm_lora.safetensors")
    where = f"{folder.path}/llm_lora.safetensors"
    llm, codec = load_llm(artefact("llm"), changes, where=where, int8=config.int8)

    def load(name: str, module: nn.Module) -> nn.Module:
        return load_packed(module, folder.tensors(f"{name}.safetensors"), where=f"{folder.path}/{name}.safetensors")

    adapter: Any = load("adapter", ReadoutAdapter(config.adapter))
    hearing: Hearing
    if config.listener_kind == "ctc":
        ctc: Any = load("listener", CtcListener(config.ctc))
        hearing = CtcHearing(ctc, adapter, codec, mode=config.listen)
    else:
        listener: Any = load("listener", Listener(config.listener))
        tokenizer = load_tokenizer(folder.file("listener_tokenizer.json"))
        hearing = RecogniserHearing(listener, adapter, tokenizer, codec, mode=config.listen)
    turn_head: Any = load("turn_head", TurnHead(config.turn_head)) if config.turn_head else None
    model = LlamaOmni(
        ear=Ear(hearing),
        llm=llm,
        codec=codec,
        speech_decoder=load("speech_decoder", SpeechDecoder(config.speech_decoder)),  # type: ignore[arg-type]
        vocoder=load("vocoder", SpectralVocoder(config.vocoder)).eval(),  # type: ignore[arg-type]
        turn_head=turn_head.eval() if turn_head else None,
        framing=Framing.chatml(
            codec, config.system, note=config.note, fill=lambda text: fill_in(text, datetime.date.today())
        ),
        options=config.options(),
    )
    for name, part in parts.items():
        model.replace_part(name, part)
    model.warm_up()
    return model


def load_packed(module: nn.Module, tensors: Mapping[str, Tensor], *, where: str) -> nn.Module:
    """Loads weights of which some are int8: linear layers run in int8, all else is unpacked. Strict both ways.

    Raises:
        CheckpointError: naming what is missing, unknown or of another shape.
    """
    linear = {name for name, layer in module.named_modules() if isinstance(layer, (nn.Linear, nn.Embedding))}
    runs = {key: value for key, value in tensors.items() if key.rsplit(".weight.", 1)[0] in linear}
    rest = {key: value for key, value in tensors.items() if key not in runs}
    try:
        shape_like(module, runs, activations="int8")
        module.load_state_dict({**runs, **unpack_int8(rest)}, strict=True)
    except Exception as error:  # torch raises RuntimeError with many lines
        line = " ".join(str(error).split())
        raise CheckpointError(f"{where}: the weights do not fit {type(module).__name__}: {line[:300]}") from error
    return module.eval()


def date_words(day: datetime.date) -> dict[str, str]:
    """The date as it is spoken: weekday, month, date ("May second") and year, for years from 2001 to 2099.

    Raises:
        ConfigError: another year.
    """
    if not 2001 <= day.year <= 2099:
        raise ConfigError(f"the date is spoken for years from 2001 to 2099, got {day}")
    month = day.strftime("%B")
    date, year = f"{month} {numbers.ordinal(day.day)}", numbers.year(day.year)
    return {"weekday": day.strftime("%A"), "month": month, "date": date, "year": year}


def fill_in(template: str, day: datetime.date) -> str:
    """Puts the date into a text with {weekday}, {month}, {date} or {year}.

    Raises:
        ConfigError: another placeholder.
    """
    try:
        return template.format(**date_words(day))
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"system, note: {template!r} has a placeholder other than weekday, month, date, year ({error})"
        ) from error
