"""The released LLaMA-Omni: `ICTNLP/Llama-3.1-8B-Omni`, OpenAI's Whisper large-v3 and the unit vocoder `g_00500000`.

What its code does and the paper does not say, kept so that its numbers can be had again: the prompt begins with two
BOS tokens; the audio is always filled up or cut to 30 s, so that the LLM always hears 300 embeddings; the speech
decoder reads the hidden states that predicted a token (after the final norm, the end token's too), although it was
trained on those that had read it (`ctc_decoder.answer_states`).
"""

from __future__ import annotations

import ast
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from duologue.errors import CheckpointError, ConfigError
from duologue.models.llama_omni.adapter import StackingAdapter, StackingConfig
from duologue.models.llama_omni.ctc_decoder import PaperUnitDecoder, PaperUnitDecoderConfig
from duologue.models.weights import (
    Entry,
    Table,
    blocks_table,
    to_ours,
    transformer_config,
    transformer_ignore,
    transformer_table,
)
from duologue.models.whisper import Whisper, WhisperConfig, WhisperEncoder
from duologue.models.whisper_weights import encoder_table, whisper_config, whisper_ignore, whisper_table
from duologue.nn.transformer import Transformer, TransformerConfig
from duologue.nn.weight_files import Shards, fill, read_json
from duologue.vocoders.unit_vocoder import CodeGenerator, CodeGeneratorConfig

M = TypeVar("M", bound=nn.Module)

ADAPTER_DIM = 2048  # the released projector's inner width is fixed in its code
WINDOW = 30 * 16_000  # samples that Whisper always hears
STOP_IDS = (128_001, 128_008, 128_009)
SYSTEM = (
    "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
INSTRUCTION = "<speech>\nPlease directly answer the questions in the user's speech."


@dataclass(frozen=True, kw_only=True)
class ReleasedConfig:
    """What `config.json` of the released folder says, in our terms."""

    llm: TransformerConfig
    adapter: StackingConfig
    speech_decoder: PaperUnitDecoderConfig
    stop_ids: tuple[int, ...] = STOP_IDS


@dataclass(frozen=True)
class ReleasedParts:
    """The trained parts of the released folder."""

    config: ReleasedConfig
    llm: Transformer
    adapter: StackingAdapter
    speech_decoder: PaperUnitDecoder


def read_config(folder: Path) -> ReleasedConfig:
    """Reads the released folder's `config.json`.

    Raises:
        CheckpointError: another kind of model, or a variant that is not supported.
    """
    path = Path(folder) / "config.json"
    data = read_json(path)
    wanted = {
        "model_type": "omni_speech2s_llama",
        "speech_encoder_type": "whisper",
        "speech_projector_type": "linear",
        "speech_generator_type": "ctc",
        "speech_normalize": False,
    }
    for key, value in wanted.items():
        if data.get(key) != value:
            raise CheckpointError(f"{path}: need {key} = {value!r} (LLaMA-Omni's release), got {data.get(key)!r}")
    llm = transformer_config(data, where=str(path))
    try:
        layers, dim, heads, ffn_dim = ast.literal_eval(data["ctc_decoder_config"])
        decoder = PaperUnitDecoderConfig(
            hidden_dim=llm.dim,
            dim=dim,
            layers=layers,
            heads=heads,
            ffn_dim=ffn_dim,
            upsample=data["ctc_upsample_factor"],
            num_units=data["unit_vocab_size"],
            norm_eps=llm.norm_eps,
            rope_theta=llm.rope_theta,
            rope_scaling=llm.rope_scaling,
        )
        adapter = StackingConfig(
            encoder_dim=data["speech_encoder_hidden_size"],
            stack=data["speech_encoder_ds_rate"],
            hidden_dim=ADAPTER_DIM,
            llm_dim=llm.dim,
        )
    except KeyError as error:
        raise CheckpointError(f"{path}: the key {error} is missing") from error
    except (ValueError, TypeError, SyntaxError, ConfigError) as error:
        raise CheckpointError(f"{path}: the speech parts cannot be built ({error})") from error
    stops = data.get("eos_token_id", STOP_IDS)
    return ReleasedConfig(
        llm=llm, adapter=adapter, speech_decoder=decoder, stop_ids=(stops,) if isinstance(stops, int) else tuple(stops)
    )


def released_table(config: ReleasedConfig) -> Table:
    """Every tensor of the released folder; ours stand under `llm.`, `adapter.` and `speech_decoder.`."""
    theirs, ours = "speech_generator.", "speech_decoder."
    table = transformer_table(config.llm, ours="llm.")
    for kind in ("weight", "bias"):
        for name in ("linear1", "linear2"):
            table.append(Entry(f"adapter.{name}.{kind}", (f"model.speech_projector.{name}.{kind}",)))
        for name in ("input_proj", "output_proj"):
            table.append(Entry(f"{ours}{name}.{kind}", (f"{theirs}{name}.{kind}",)))
    blocks = config.speech_decoder.blocks()
    return table + blocks_table(blocks, ours=f"{ours}blocks.layers.", theirs=f"{theirs}layers.")


def split_parts(config: ReleasedConfig, tensors: Mapping[str, Tensor], *, where: str) -> dict[str, dict[str, Tensor]]:
    """The released tensors in our names, by part: `llm`, `adapter`, `speech_decoder`.

    Raises:
        CheckpointError: names tensors that are missing or unexpected.
    """
    ignore = (*transformer_ignore(config.llm), r"model\.speech_encoder\..*")  # Whisper comes from its own file
    parts: dict[str, dict[str, Tensor]] = {"llm": {}, "adapter": {}, "speech_decoder": {}}
    for name, tensor in to_ours(released_table(config), tensors, where=where, ignore=ignore).items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    return parts


def load_released(folder: Path, *, dtype: torch.dtype | None = None) -> ReleasedParts:
    """The trained parts of the released folder; `dtype` None keeps the file's (half precision).

    Raises:
        CheckpointError: anything missing, damaged, unexpected, or of another kind.
    """
    config, where = read_config(folder), str(folder)
    parts = split_parts(config, Shards(Path(folder)), where=where)
    return ReleasedParts(
        config,
        _filled(lambda: Transformer(config.llm), parts["llm"], where, dtype),
        _filled(lambda: StackingAdapter(config.adapter), parts["adapter"], where, dtype),
        _filled(lambda: PaperUnitDecoder(config.speech_decoder), parts["speech_decoder"], where, dtype),
    )


def _filled(make: Callable[[], M], tensors: dict[str, Tensor], where: str, dtype: torch.dtype | None) -> M:
    """A module made without memory of its own, with these weights; `tensors` are changed to `dtype`."""
    with torch.device("meta"):
        module = make()
    if dtype is not None:
        for name in tensors:  # one by one and in place: two copies of a large model would not fit
            tensors[name] = tensors[name].to(dtype)
    fill(module, tensors, where=where)
    return module.eval()


def load_whisper(path: Path, *, dtype: torch.dtype | None = None) -> Whisper:
    """A Whisper from OpenAI's `.pt` file or from a folder in transformers' layout.

    Raises:
        CheckpointError: anything missing, damaged, unexpected, or of another kind.
    """
    config, table, tensors, ignore = _open_whisper(Path(path), encoder_only=False)
    weights = to_ours(table, tensors, where=str(path), ignore=ignore)
    return _filled(lambda: Whisper(config), weights, str(path), dtype)


def load_whisper_encoder(path: Path, *, dtype: torch.dtype | None = None) -> WhisperEncoder:
    """As `load_whisper`, the encoder alone: all that LLaMA-Omni hears with."""
    config, table, tensors, ignore = _open_whisper(Path(path), encoder_only=True)
    weights = to_ours(table, tensors, where=str(path), ignore=ignore)
    return _filled(lambda: WhisperEncoder(config), weights, str(path), dtype)


def _open_whisper(
    path: Path, *, encoder_only: bool
) -> tuple[WhisperConfig, Table, Mapping[str, Tensor], tuple[str, ...]]:
    make = encoder_table if encoder_only else whisper_table
    if path.is_dir():
        config = whisper_config(read_json(path / "config.json"), "huggingface", where=str(path))
        ignore = whisper_ignore("huggingface", encoder_only=encoder_only)
        return config, make(config, "huggingface"), Shards(path), ignore
    data = _torch_load(path)
    if not {"dims", "model_state_dict"} <= set(data):
        raise CheckpointError(f"{path}: need an OpenAI Whisper file with 'dims' and 'model_state_dict'")
    config = whisper_config(data["dims"], "openai", where=str(path))
    ignore = whisper_ignore("openai", encoder_only=encoder_only)
    return config, make(config, "openai"), data["model_state_dict"], ignore


def _torch_load(path: Path) -> dict[str, Any]:
    """A dictionary of tensors and plain values; runs no code from the file."""
    try:
        # Mapped into memory where the format allows it, so that a part (Whisper's encoder) costs a part.
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # torch.load raises OSError, RuntimeError, EOFError and pickle's errors by turns
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: not a whole PyTorch weight file ({reason}). Fetch it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path}: need a dictionary of weights, got {type(data).__name__}")
    return data


def vocoder_config(data: Mapping[str, Any], *, where: str) -> CodeGeneratorConfig:
    """Our config from a unit HiFi-GAN's `config.json` (speech-resynthesis and fairseq).

    Raises:
        CheckpointError: a key is missing, or a variant with speakers or pitch.
    """
    for key in ("multispkr", "f0", "embedder_params"):
        if data.get(key):
            raise CheckpointError(
                f"{where}: {key} is set; only the vocoder of one voice, from units alone, is supported"
            )
    try:
        duration = data["dur_predictor_params"]
        if data.get("model_in_dim", data["embedding_dim"]) != data["embedding_dim"]:
            raise CheckpointError(f"{where}: model_in_dim must be embedding_dim, got {data['model_in_dim']}")
        return CodeGeneratorConfig(
            sample_rate=data.get("sampling_rate", 16_000),
            num_units=data["num_embeddings"],
            embedding_dim=data["embedding_dim"],
            initial_channels=data["upsample_initial_channel"],
            upsample_rates=tuple(data["upsample_rates"]),
            upsample_kernels=tuple(data["upsample_kernel_sizes"]),
            block_kernels=tuple(data["resblock_kernel_sizes"]),
            block_dilations=tuple(tuple(dilations) for dilations in data["resblock_dilation_sizes"]),
            duration_dim=duration["var_pred_hidden_dim"],
            duration_kernel=duration["var_pred_kernel_size"],
        )
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing; need a unit vocoder with durations") from error
    except ConfigError as error:
        raise CheckpointError(f"{where}: {error}") from error


def vocoder_table(config: CodeGeneratorConfig) -> Table:
    """A `CodeGenerator`, its weight norm folded (`fold_weight_norm`)."""
    table = [Entry("embedding.weight", ("dict.weight",))]
    pairs: dict[str, str] = {"conv_pre": "conv_pre", "conv_post": "conv_post", "duration.out": "dur_predictor.proj"}
    for index in ("1", "2"):
        pairs[f"duration.conv{index}"] = f"dur_predictor.conv{index}.0"
        pairs[f"duration.norm{index}"] = f"dur_predictor.ln{index}"
    for stage in range(len(config.upsample_rates)):
        pairs[f"ups.{stage}"] = f"ups.{stage}"
        for block, dilations in enumerate(config.block_dilations):
            ours, theirs = f"fusions.{stage}.blocks.{block}", f"resblocks.{stage * len(config.block_kernels) + block}"
            for step in range(len(dilations)):
                for convs in ("convs1", "convs2"):
                    pairs[f"{ours}.{convs}.{step}"] = f"{theirs}.{convs}.{step}"
    for kind in ("weight", "bias"):
        table += [Entry(f"{a}.{kind}", (f"{b}.{kind}",)) for a, b in pairs.items()]
    return table


def fold_weight_norm(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Every pair `weight_g`, `weight_v` as the `weight` that they stand for: g * v / |v|, by rows of axis 0."""
    folded = {}
    for name, tensor in tensors.items():
        scale = tensors.get(name.removesuffix("weight_v") + "weight_g")
        if name.endswith(".weight_v") and scale is not None:
            norm = tensor.flatten(1).norm(dim=1).view(-1, *[1] * (tensor.dim() - 1))
            folded[name.removesuffix("_v")] = scale.view_as(norm) * tensor / norm
        elif not name.endswith(".weight_g") or name.removesuffix("_g") + "_v" not in tensors:
            folded[name] = tensor
    return folded


def load_vocoder(
    weights: Path, config: Path | None = None, *, lookahead: int | None = None, independent: bool = False
) -> CodeGenerator:
    """The unit vocoder from `g_00500000` and the `config.json` beside it.

    Raises:
        CheckpointError: anything missing, damaged, unexpected, or of another kind.
    """
    config_path = Path(weights).parent / "config.json" if config is None else Path(config)
    shape = vocoder_config(read_json(config_path), where=str(config_path))
    data = _torch_load(Path(weights))
    if not isinstance(data.get("generator"), dict):
        raise CheckpointError(f"{weights}: need a vocoder file with 'generator', got {', '.join(map(str, data))}")
    tensors = to_ours(vocoder_table(shape), fold_weight_norm(data["generator"]), where=str(weights))
    return _filled(
        lambda: CodeGenerator(shape, lookahead=lookahead, independent=independent), tensors, str(weights), None
    )


def prompt_ids(
    encode: Callable[[str], list[int]], *, bos: int, instruction: str = INSTRUCTION
) -> tuple[list[int], list[int]]:
    """Token ids before and after the speech embeddings (`conv_mode llama_3`).

    Args:
        encode: text to ids, special tokens such as <|eot_id|> understood, nothing added.
        bos: id of <|begin_of_text|>; twice, as in the release: once from the tokenizer, once from the template.
    Raises:
        ConfigError: the instruction does not say once where the speech goes.
    """
    if instruction.count("<speech>") != 1:
        raise ConfigError(f"the instruction must have <speech> once, got {instruction!r}")
    template = (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        f"{SYSTEM}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        f"{instruction.strip()}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    before, after = template.split("<speech>")
    return [bos, *encode(before)], encode(after)


def pad_or_trim(audio_BN: Tensor) -> Tensor:
    """16 kHz audio filled up with silence, or cut, to the 30 s that the released model always hears."""
    return F.pad(audio_BN[:, :WINDOW], (0, max(0, WINDOW - audio_BN.shape[1])))
