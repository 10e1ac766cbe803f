"""The released LLaMA-Omni as a running `LlamaOmni`: three downloads, laid out as docs/quickstart.md says.

A folder in the published layout is a model folder as it is. One of our own that points there is another way to choose
settings: {"format": 1, "family": "llama_omni_release", "model": {"release": "/data/Llama-3.1-8B-Omni", "dtype":
"float32"}, "files": {}}.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from duologue import config as configs
from duologue.codecs.text import TextCodec, load_tokenizer
from duologue.errors import CheckpointError, PartError
from duologue.models.llama_omni.ctc_decoder import PaperSpeechDecoder
from duologue.models.llama_omni.framing import Framing
from duologue.models.llama_omni.listening import Ear, EarOptions, StackingHearing
from duologue.models.llama_omni.model import LlamaOmni, OmniOptions
from duologue.models.llama_omni.released import (
    INSTRUCTION,
    WINDOW,
    ReleasedConfig,
    load_released,
    load_vocoder,
    load_whisper_encoder,
    prompt_ids,
    read_config,
)
from duologue.models.whisper import WhisperEncoder
from duologue.nn.quant import quantize
from duologue.nn.weight_files import read_json

PARTS = ("encoder", "adapter", "llm", "speech_decoder", "vocoder")
VOCODER_FILE = "g_00500000"
# Where the other two downloads may lie: in the released folder, or beside it as in the authors' own repository.
WHISPER_PLACES = ("models/speech_encoder/large-v3.pt", "large-v3.pt", "whisper-large-v3", "whisper")
VOCODER_PLACES = (f"vocoder/{VOCODER_FILE}",)
MARKS = ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int8": torch.bfloat16,  # of all but the LLM
}


@dataclass(frozen=True, kw_only=True)
class ReleaseSettings:
    """config.json's `model` of the family `llama_omni_release`; a folder in the published layout has the defaults."""

    release: str = "."  # the folder of Llama-3.1-8B-Omni; this and the next two as seen from the model folder
    whisper: str = ""  # large-v3.pt, or transformers' folder; "": looked for
    vocoder: str = ""  # g_00500000, config.json beside it; "": looked for
    dtype: Literal["bfloat16", "float16", "float32", "int8"] = "bfloat16"  # int8: the LLM; the vocoder is in float32
    independent_chunks: bool = False  # each chunk of units vocoded on its own, with seams, as published
    lookahead: int | None = None  # frames of 20 ms that the vocoder holds back; None: all it can see
    omega: int = 40
    context: int = 2048
    longest_answer: int = 256  # tokens
    speak: bool = True

    def options(self) -> OmniOptions:
        return OmniOptions(
            omega=self.omega,
            context=self.context,
            longest_answer=self.longest_answer,
            flush_steps=0,  # the state that chose the end is the last one that the release speaks
            speak=self.speak,
            recall=False,  # it finds what was said by itself
        )


class Folder(Protocol):
    """What this module needs of `checkpoints.ModelFolder`."""

    @property
    def path(self) -> Path: ...
    @property
    def model(self) -> dict[str, Any]: ...


def from_folder(
    folder: Folder, artefact: Callable[[str], Path], *, whisper: str | Path | None = None, **parts: Any
) -> LlamaOmni:
    """Builds the model of a folder in the published layout, or of one that points to it.

    Args:
        artefact: not needed, the release is not pinned by hash.
        whisper: where Whisper large-v3 lies, if not in one of `WHISPER_PLACES`.
        parts: modules to use in place of the release's, by the names in `PARTS`; for the vocoder a path will do.
    Raises:
        CheckpointError: a file that is missing, damaged or of another model. PartError: a part that does not fit.
    """
    for name in parts:
        if name not in PARTS:
            raise PartError(f"there is no part {name!r}; the parts are {', '.join(PARTS)}, and whisper=PATH")
    settings = configs.from_dict(ReleaseSettings, folder.model, where=f"{folder.path}/config.json: model")
    release, dtype = folder.path / settings.release, _DTYPES[settings.dtype]
    config = read_config(release)
    codec, framing = read_framing(release, config)  # what is quickly seen to be missing is missed before 16 GB are read
    where = {
        "encoder": None if "encoder" in parts else _whisper_path(release, _given(folder, whisper, settings.whisper)),
        "vocoder": _vocoder_path(release, _given(folder, parts.get("vocoder"), settings.vocoder)),
    }
    encoder = load_whisper_encoder(where["encoder"], dtype=dtype) if where["encoder"] else parts["encoder"]
    if where["vocoder"]:
        vocoder: Any = load_vocoder(
            where["vocoder"], lookahead=settings.lookahead, independent=settings.independent_chunks
        )
    else:
        vocoder = parts["vocoder"]
    _check_sizes(config, encoder, vocoder, where)
    loaded = load_released(release, dtype=dtype)
    if settings.dtype == "int8":
        quantize(loaded.llm, activations="int16")
        loaded.llm.float()  # what is not int8: the norms
    hearing = StackingHearing(encoder, loaded.adapter, pad_samples=WINDOW)
    model = LlamaOmni(
        ear=Ear(hearing, EarOptions(longest=WINDOW / 16_000, pieces=1, turn_pieces=1)),
        llm=loaded.llm,
        codec=codec,
        speech_decoder=PaperSpeechDecoder(loaded.speech_decoder).eval(),
        vocoder=vocoder,
        framing=framing,
        options=settings.options(),
    )
    for name in set(parts) - {"encoder", "vocoder"}:
        model.replace_part(name, parts[name])
    return model


def read_framing(release: Path, config: ReleasedConfig) -> tuple[TextCodec, Framing]:
    """The tokenizer, and the prompt of `conv_mode llama_3` with its two BOS tokens.

    Raises:
        CheckpointError: no tokenizer, or another model's.
    """
    path = release / "tokenizer.json"
    tokenizer = load_tokenizer(path)
    size = tokenizer.get_vocab_size()
    ids = {mark: index for mark in MARKS if (index := tokenizer.token_to_id(mark)) is not None}
    missing = [mark for mark in MARKS if mark not in ids]
    if missing or size > config.llm.vocab_size:
        problem = f"{', '.join(missing)} missing" if missing else f"{size} tokens"
        raise CheckpointError(
            f"{path}: need Llama 3's tokenizer with at most {config.llm.vocab_size} tokens, got one with {problem}; "
            "take tokenizer.json from the released folder"
        )
    codec = TextCodec(tokenizer, end_of_text=ids["<|end_of_text|>"], turn_end=ids["<|eot_id|>"])
    before, after = prompt_ids(codec.encode, bos=ids["<|begin_of_text|>"])
    lead = INSTRUCTION.partition("<speech>")[0]
    next_turn = codec.encode(f"<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{lead}")
    return codec, Framing(
        opening=tuple(before), next_turn=tuple(next_turn), to_answer=tuple(after), stops=config.stop_ids
    )


def _given(folder: Folder, argument: Any, setting: str) -> Any:
    """What the caller or else the settings name; "" for nothing. A path in the settings begins at the model folder."""
    if argument is None or argument == "":
        return str(folder.path / Path(setting).expanduser()) if setting else ""
    return argument


def _whisper_path(release: Path, given: Any) -> Path:
    own = read_json(release / "config.json").get("speech_encoder")
    places = (own, *WHISPER_PLACES) if isinstance(own, str) and own else WHISPER_PLACES
    return _find(release, given, places, what="Whisper large-v3", argument="whisper")


def _vocoder_path(release: Path, given: Any) -> Path | None:
    """The vocoder's file; None where `given` is a module."""
    if not isinstance(given, (str, Path)):
        return None
    path = _find(release, given, VOCODER_PLACES, what="the unit vocoder", argument="vocoder")
    return path / VOCODER_FILE if path.is_dir() else path


def _find(release: Path, given: Any, places: Sequence[str], *, what: str, argument: str) -> Path:
    """The path that was given, or else the first place in the released folder or beside it where there is something."""
    if given:
        path = Path(given).expanduser()
        if not path.exists():
            raise CheckpointError(f"{path}: {what} is not there; say with {argument}=PATH where it lies")
        return path
    homes = (release, release.absolute().parent)
    for path in (home / place for place in places for home in homes):
        if path.exists():
            return path
    raise CheckpointError(
        f"{release}: {what} is missing: there is no {' or '.join(dict.fromkeys(places))} in this folder or beside it; "
        f"fetch it as docs/quickstart.md says, or say with {argument}=PATH where it lies"
    )


def _check_sizes(config: ReleasedConfig, encoder: Any, vocoder: Any, where: dict[str, Path | None]) -> None:
    """Refuses a Whisper or a vocoder that the release was not trained with."""
    if not isinstance(encoder, WhisperEncoder) or not hasattr(vocoder, "num_units"):
        raise PartError(f"need a WhisperEncoder and a vocoder, got {type(encoder).__name__}, {type(vocoder).__name__}")
    place = where["encoder"] or "encoder"
    width, steps = encoder.config.dim, encoder.config.max_source
    if (width, steps) != (config.adapter.encoder_dim, WINDOW // 320):
        raise CheckpointError(
            f"{place}: need a Whisper of width {config.adapter.encoder_dim} and {WINDOW // 320} steps, got {width} and "
            f"{steps}; use the one that the adapter was trained with (large-v3)"
        )
    if vocoder.num_units != config.speech_decoder.num_units:
        raise CheckpointError(
            f"{where['vocoder'] or 'vocoder'}: need a vocoder of {config.speech_decoder.num_units} units, got "
            f"{vocoder.num_units}; use the one of the same units"
        )
