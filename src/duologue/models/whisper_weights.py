"""Whisper checkpoints by two names: transformers' and OpenAI's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from duologue.errors import CheckpointError
from duologue.models.weights import Entry, Table
from duologue.models.whisper import WhisperConfig

Naming = Literal["huggingface", "openai"]

# Ours, transformers', OpenAI's.
_MODULES = {
    "list": ("layers", "layers", "blocks"),
    "attention": ("", "self_attn", "attn"),
    "cross": ("cross", "encoder_attn", "cross_attn"),
    "q": ("q", "q_proj", "query"),
    "k": ("", "k_proj", "key"),
    "v": ("", "v_proj", "value"),
    "out": ("out", "out_proj", "out"),
    "attention_norm": ("attention_norm", "self_attn_layer_norm", "attn_ln"),
    "cross_norm": ("cross_norm", "encoder_attn_layer_norm", "cross_attn_ln"),
    "ffn_norm": ("ffn_norm", "final_layer_norm", "mlp_ln"),
    "up": ("up", "fc1", "mlp.0"),
    "down": ("down", "fc2", "mlp.2"),
    "encoder_norm": ("norm", "layer_norm", "ln_post"),
    "decoder_norm": ("norm", "layer_norm", "ln"),
    "positions": ("positions", "embed_positions.weight", "positional_embedding"),
    "embedding": ("embedding.weight", "embed_tokens.weight", "token_embedding.weight"),
}
# Ours, and the field of transformers' config and of OpenAI's `dims`.
_FIELDS = {
    "num_mels": ("num_mel_bins", "n_mels"),
    "dim": ("d_model", "n_audio_state"),
    "heads": ("encoder_attention_heads", "n_audio_head"),
    "encoder_layers": ("encoder_layers", "n_audio_layer"),
    "decoder_layers": ("decoder_layers", "n_text_layer"),
    "max_source": ("max_source_positions", "n_audio_ctx"),
    "max_target": ("max_target_positions", "n_text_ctx"),
    "vocab_size": ("vocab_size", "n_vocab"),
}


def whisper_config(data: Mapping[str, Any], naming: Naming, *, where: str) -> WhisperConfig:
    """Our config from transformers' `config.json`, or from the `dims` of an OpenAI checkpoint.

    Raises:
        CheckpointError: not a Whisper, or one that our classes cannot be.
    """
    try:
        values = {ours: data[theirs[naming == "openai"]] for ours, theirs in _FIELDS.items()}
        if naming == "openai":
            ffn_dim = 4 * values["dim"]
            same = (data["n_text_state"], data["n_text_head"]) == (values["dim"], values["heads"])
        else:
            ffn_dim = data["encoder_ffn_dim"]
            same = (data["decoder_ffn_dim"], data["decoder_attention_heads"]) == (ffn_dim, values["heads"])
    except KeyError as error:
        raise CheckpointError(f"{where}: the key {error} is missing; need a Whisper model") from error
    if not same or data.get("scale_embedding"):
        raise CheckpointError(f"{where}: encoder and decoder of different shape, or scaled embeddings: not supported")
    return WhisperConfig(ffn_dim=ffn_dim, **values)


def encoder_table(config: WhisperConfig, naming: Naming, *, ours: str = "") -> Table:
    """A `WhisperEncoder`; `ours` stands before our names."""
    names = _Names(naming, config.dim)
    theirs = "encoder." if naming == "openai" else "model.encoder."
    table = [
        *names.both(f"{ours}conv1", f"{theirs}conv1"),
        *names.both(f"{ours}conv2", f"{theirs}conv2"),
        names.one("positions", ours, theirs),
        *names.module("encoder_norm", ours, theirs),
    ]
    for index in range(config.encoder_layers):
        a, b = names.layer(index, ours, theirs)
        table += names.layer_table(a, b, attention=a)
    return table


def whisper_table(config: WhisperConfig, naming: Naming) -> Table:
    """A `Whisper`, encoder and decoder."""
    names, ours = _Names(naming, config.dim), "decoder."
    theirs = "decoder." if naming == "openai" else "model.decoder."
    table = [
        *encoder_table(config, naming, ours="encoder."),
        names.one("embedding", ours, theirs),
        names.one("positions", ours, theirs),
        *names.module("decoder_norm", ours, theirs),
    ]
    for index in range(config.decoder_layers):
        a, b = names.layer(index, ours, theirs)
        cross_a, cross_b = f"{a}cross.", f"{b}{names.of('cross')}."
        table += names.layer_table(a, b, attention=f"{a}attention.")
        table += names.module("cross_norm", a, b)
        table += names.module("q", cross_a, cross_b) + names.module("out", cross_a, cross_b)
        table += names.fused(f"{cross_a}kv", cross_b, "kv")
    return table


def whisper_ignore(naming: Naming, *, encoder_only: bool = False) -> tuple[str, ...]:
    """Names that a checkpoint carries and that are not used: the tied head, and what an encoder does not need."""
    tied = (r"proj_out\.weight",) if naming == "huggingface" else ()
    return (*tied, r"(model\.)?decoder\..*") if encoder_only else tied


class _Names:
    """Writes entries in one naming."""

    def __init__(self, naming: Naming, dim: int):
        self.column, self.dim = 1 + (naming == "openai"), dim

    def of(self, module: str) -> str:
        return _MODULES[module][self.column]

    def both(self, a: str, b: str) -> Table:
        return [Entry(f"{a}.{kind}", (f"{b}.{kind}",)) for kind in ("weight", "bias")]

    def one(self, module: str, a: str, b: str) -> Entry:
        return Entry(f"{a}{_MODULES[module][0]}", (f"{b}{self.of(module)}",))

    def module(self, module: str, a: str, b: str) -> Table:
        return self.both(f"{a}{_MODULES[module][0]}", f"{b}{self.of(module)}")

    def layer(self, index: int, a: str, b: str) -> tuple[str, str]:
        return f"{a}layers.{index}.", f"{b}{self.of('list')}.{index}."

    def fused(self, a: str, b: str, parts: str) -> Table:
        """Several projections in one of ours. Whisper's key has no bias."""
        rows = (self.dim,) * len(parts)
        return [
            Entry(f"{a}.weight", tuple(f"{b}{self.of(part)}.weight" for part in parts), rows),
            Entry(f"{a}.bias", tuple("" if part == "k" else f"{b}{self.of(part)}.bias" for part in parts), rows),
        ]

    def layer_table(self, a: str, b: str, *, attention: str) -> Table:
        """What a layer of the encoder and one of the decoder share; our encoder has its attention inline."""
        inner = f"{b}{self.of('attention')}."
        table = self.fused(f"{attention}qkv", inner, "qkv") + self.module("out", attention, inner)
        for module in ("attention_norm", "ffn_norm", "up", "down"):
            table += self.module(module, a, b)
        return table
