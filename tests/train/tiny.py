"""Tiny everything for the stages: a Whisper, language models, tokenizers and a data folder, made in seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from duologue.codecs.units import mini_units
from duologue.data.manifest import Turn, encode_flac, shard_name, write_shard
from duologue.models.weights import to_theirs, transformer_table
from duologue.models.whisper import Whisper, WhisperConfig
from duologue.models.whisper_weights import whisper_table
from duologue.nn.transformer import Transformer, TransformerConfig

WORDS = ("what", "is", "the", "day", "who", "are", "you", "sun", "sea", "red")
WHISPER = WhisperConfig(
    num_mels=16,
    dim=32,
    heads=2,
    ffn_dim=64,
    encoder_layers=1,
    decoder_layers=1,
    max_source=400,
    max_target=40,
    vocab_size=320,
)
LLAMA = TransformerConfig(
    vocab_size=2048, dim=32, layers=2, heads=4, kv_heads=2, head_dim=8, ffn_dim=48, tied_embeddings=True
)
QWEN = dataclasses.replace(LLAMA, qkv_bias=True, tied_embeddings=False, dim=48)


def tokenizer(special: tuple[str, ...]) -> Tokenizer:
    """Bytes and a few whole words; the special tokens stand behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate(alphabet)}
    made = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(name, special=True) for name in special])
    return made


def save_whisper(folder: Path, config: WhisperConfig = WHISPER) -> Path:
    """A folder in transformers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    names = {"num_mels": "num_mel_bins", "dim": "d_model", "max_source": "max_source_positions"}
    data = {theirs: getattr(config, ours) for ours, theirs in names.items()}
    data |= {"max_target_positions": config.max_target, "vocab_size": config.vocab_size}
    for side in ("encoder", "decoder"):
        data |= {f"{side}_attention_heads": config.heads, f"{side}_ffn_dim": config.ffn_dim}
        data |= {f"{side}_layers": getattr(config, f"{side}_layers")}
    (folder / "config.json").write_text(json.dumps(data))
    model = Whisper(config)
    torch.nn.init.normal_(model.decoder.embedding.weight)  # frozen in training: large enough to write with
    weights = to_theirs(whisper_table(config, "huggingface"), model.state_dict())
    save_file({key: value.clone() for key, value in weights.items()}, folder / "model.safetensors")
    tokenizer(("<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>")).save(str(folder / "tokenizer.json"))
    return folder


def save_llm(folder: Path, kind: str, config: TransformerConfig) -> Path:
    """A folder in transformers' layout."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(2)
    c = config
    data = {
        "model_type": kind,
        "vocab_size": c.vocab_size,
        "hidden_size": c.dim,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.kv_heads,
        "head_dim": c.head_dim,
        "intermediate_size": c.ffn_dim,
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_theta,
        "tie_word_embeddings": c.tied_embeddings,
    }
    (folder / "config.json").write_text(json.dumps(data))
    weights = to_theirs(transformer_table(c), Transformer(c).state_dict())
    save_file({key: value.clone() for key, value in weights.items()}, folder / "model.safetensors")
    tokenizer(("<|endoftext|>", "<|im_start|>", "<|im_end|>")).save(str(folder / "tokenizer.json"))
    return folder


def save_data(folder: Path, *, rows: int = 24, dated: bool = True) -> Path:
    """Two shards of questions: each word is a tone, so that there is something to hear."""
    rng, made, units = np.random.default_rng(0), [], len(mini_units())
    for number in range(rows):
        words = [str(word) for word in rng.choice(WORDS, 2)]
        seconds = np.arange(int(0.3 * 16_000)) / 16_000
        tones = [0.3 * np.sin(2 * np.pi * (200 + 150 * WORDS.index(word)) * seconds) for word in words]
        audio = np.concatenate(tones).astype(np.float32)
        answer = "the " + words[1]
        said = [int(unit) for unit in rng.integers(0, units, 12)]
        prosody = rng.normal((1.3, 5.2, -4.5), 0.2, (len(said), 3)).astype(np.float32)
        made.append(
            Turn(
                id=f"row-{number:03d}" + ("@2027-05-31" if dated and number % 5 == 0 else ""),
                split="dev" if number % 6 == 0 else "test" if number % 6 == 1 else "train",
                source="tiny",
                question=" ".join(words),
                question_spoken=" ".join(words),
                answer=answer,
                question_audio=encode_flac(audio, 16_000),
                question_seconds=len(audio) / 16_000,
                units=said,
                unit_prosody=[float(value) for value in prosody.reshape(-1)],
                answer_seconds=1.0,
                seed=number,
            )
        )
    for shard in range(2):
        write_shard(folder / "shards" / shard_name(shard), made[shard::2])
    return folder
