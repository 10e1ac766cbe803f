"""LLaMA-Omni's published layout at a tiny size, with an independent reference from transformers' parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    SpeechT5HifiGan,
    SpeechT5HifiGanConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from duologue.codecs.text import byte_level_bpe

FULL = {  # the released config.json, as far as it is read
    "architectures": ["OmniSpeech2SLlamaForCausalLM"],
    "model_type": "omni_speech2s_llama",
    "vocab_size": 128_256,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "rope_scaling": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": [128_001, 128_008, 128_009],
    "speech_encoder": "models/speech_encoder/large-v3.pt",
    "speech_encoder_type": "whisper",
    "speech_encoder_ds_rate": 5,
    "speech_encoder_hidden_size": 1280,
    "speech_projector_type": "linear",
    "speech_generator_type": "ctc",
    "ctc_decoder_config": "(2,4096,32,11008)",
    "ctc_upsample_factor": 25,
    "ctc_loss_weight": 1.0,
    "unit_vocab_size": 1000,
    "speech_normalize": False,
    "tokenizer_model_max_length": 2048,
}
TINY = FULL | {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "speech_encoder_hidden_size": 16,
    "ctc_decoder_config": "(2,24,2,40)",
    "ctc_upsample_factor": 6,
    "unit_vocab_size": 9,
}
VOCODER = {  # the vocoder's config.json
    "resblock": "1",
    "upsample_rates": [5, 4, 4, 2, 2],
    "upsample_kernel_sizes": [11, 8, 8, 4, 4],
    "upsample_initial_channel": 512,
    "resblock_kernel_sizes": [3, 7, 11],
    "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
    "num_embeddings": 1000,
    "embedding_dim": 128,
    "model_in_dim": 128,
    "code_hop_size": 320,
    "sampling_rate": 16_000,
    "dur_predictor_params": {
        "encoder_embed_dim": 128,
        "var_pred_hidden_dim": 128,
        "var_pred_kernel_size": 3,
        "var_pred_dropout": 0.5,
    },
}
TINY_VOCODER = VOCODER | {
    "upsample_rates": [5, 2],
    "upsample_kernel_sizes": [11, 4],
    "upsample_initial_channel": 16,
    "num_embeddings": 9,
    "embedding_dim": 8,
    "model_in_dim": 8,
    "dur_predictor_params": {"var_pred_hidden_dim": 6, "var_pred_kernel_size": 3},
}


class Reference(nn.Module):
    """The released model's tree of names, from transformers' parts; units by the published way, without a cache."""

    def __init__(self, data: dict):
        super().__init__()
        names = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        shape = {name: data[name] for name in (*names, "num_key_value_heads", "rms_norm_eps")}
        rope = data["rope_scaling"] | {"rope_theta": data["rope_theta"]}
        llm = LlamaForCausalLM(LlamaConfig(**shape, rope_parameters=rope, attn_implementation="eager"))
        layers, dim, heads, ffn_dim = json.loads(data["ctc_decoder_config"].replace("(", "[").replace(")", "]"))
        inner = LlamaConfig(
            hidden_size=dim,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            intermediate_size=ffn_dim,
            rms_norm_eps=data["rms_norm_eps"],
            rope_parameters=rope,
            attn_implementation="eager",
        )
        self.model, self.lm_head = llm.model, llm.lm_head
        stacked = data["speech_encoder_hidden_size"] * data["speech_encoder_ds_rate"]
        self.model.speech_projector = nn.Module()
        self.model.speech_projector.linear1 = nn.Linear(stacked, 2048)
        self.model.speech_projector.linear2 = nn.Linear(2048, data["hidden_size"])
        self.speech_generator = nn.Module()
        self.speech_generator.input_proj = nn.Linear(data["hidden_size"], dim)
        self.speech_generator.layers = nn.ModuleList(LlamaDecoderLayer(inner, index) for index in range(layers))
        self.speech_generator.output_proj = nn.Linear(dim, data["unit_vocab_size"] + 1)
        self.inner, self.upsample = inner, data["ctc_upsample_factor"]

    def hear(self, encoded_TD: Tensor) -> Tensor:
        projector = self.model.speech_projector
        return projector.linear2(projector.linear1(encoded_TD.reshape(len(encoded_TD) // 5, -1)).relu())

    def units(self, hidden_MD: Tensor) -> list[int]:
        generator = self.speech_generator
        x = generator.input_proj(hidden_MD).repeat_interleave(self.upsample, 0)[None]
        steps = torch.arange(x.shape[1])
        rotary = LlamaRotaryEmbedding(self.inner)(x, steps[None])
        mask = torch.where(steps[:, None] >= steps, 0.0, float("-inf"))[None, None]
        for layer in generator.layers:
            x = layer(x, attention_mask=mask, position_ids=steps[None], position_embeddings=rotary)
            x = x[0] if isinstance(x, tuple) else x
        path = generator.output_proj(x)[0].argmax(-1).tolist()
        merged = [s for i, s in enumerate(path) if i == 0 or path[i - 1] != s]
        return [s for s in merged if s != generator.output_proj.out_features - 1]

    def say(self, prompt_TD: Tensor, tokens: int) -> tuple[list[int], list[list[int]]]:
        """Greedy ids, and the units known after each, everything recomputed at every step."""
        x, ids, units, hidden = prompt_TD, [], [], []
        for _ in range(tokens):
            last = self.model(inputs_embeds=x[None]).last_hidden_state[0, -1]
            hidden.append(last)
            ids.append(int(self.lm_head(last).argmax()))
            units.append(self.units(torch.stack(hidden)))
            x = torch.cat([x, self.model.embed_tokens.weight[ids[-1]][None]])
        self.hidden_TD = torch.stack(hidden)
        return ids, units


def write_folder(folder: Path, data: dict) -> Reference:
    """A folder in the released layout, two shards and an index, with the reference whose weights it holds."""
    torch.manual_seed(3)
    reference = Reference(data).eval()
    for name, parameter in reference.named_parameters():
        nn.init.normal_(parameter, mean=float("norm" in name), std=0.25)
    tensors = {name: tensor.contiguous() for name, tensor in reference.state_dict().items()}
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in shards.items():
        save_file({name: tensors[name] for name in part}, folder / file, metadata={"format": "pt"})
    weight_map = {name: file for file, part in shards.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(data))
    return reference


def hifigan(data: dict) -> SpeechT5HifiGan:
    return SpeechT5HifiGan(
        SpeechT5HifiGanConfig(
            model_in_dim=data["embedding_dim"],
            upsample_initial_channel=data["upsample_initial_channel"],
            upsample_rates=data["upsample_rates"],
            upsample_kernel_sizes=data["upsample_kernel_sizes"],
            resblock_kernel_sizes=data["resblock_kernel_sizes"],
            resblock_dilation_sizes=data["resblock_dilation_sizes"],
            normalize_before=False,
        )
    )


def vocoder_file(reference: SpeechT5HifiGan, data: dict) -> dict[str, Tensor]:
    """The weight-norm names of `g_00500000`: every weight as a length and a direction of any length."""
    units, dim = data["num_embeddings"], data["embedding_dim"]
    hidden = data["dur_predictor_params"]["var_pred_hidden_dim"]
    tensors = {"dict.weight": torch.randn(units, dim)}
    for name, tensor in reference.state_dict().items():
        name = name.replace("upsampler", "ups")
        if name.endswith(".weight"):
            scale = torch.rand(len(tensor), 1, 1) + 0.5
            tensors[f"{name}_g"] = tensor.flatten(1).norm(dim=1).view(-1, 1, 1)
            tensors[f"{name}_v"] = tensor * scale
        elif name not in ("mean", "scale"):
            tensors[name] = tensor
    for conv, width in (("conv1.0", dim), ("conv2.0", hidden)):
        tensors[f"dur_predictor.{conv}.weight"] = torch.randn(hidden, width, 3) * 0.1
        tensors[f"dur_predictor.{conv}.bias"] = torch.randn(hidden)
    for norm in ("ln1", "ln2"):
        tensors[f"dur_predictor.{norm}.weight"] = torch.rand(hidden)
        tensors[f"dur_predictor.{norm}.bias"] = torch.randn(hidden)
    tensors["dur_predictor.proj.weight"] = torch.randn(1, hidden)
    tensors["dur_predictor.proj.bias"] = torch.ones(1)
    return tensors


HF_TINY = {
    "vocab_size": 50,
    "num_mel_bins": 80,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "decoder_start_token_id": 0,
}


MARKS = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
TALKING = TINY | {"vocab_size": 256 + len(MARKS), "eos_token_id": [257, 261, 260]}
PROMPT = (  # the authors' template after their tokenizer, which puts one more BOS before it
    "<|begin_of_text|><|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nYou are a helpful language and "
    "speech assistant. You are able to understand the speech content that the user provides, and assist the user with "
    "a variety of tasks using natural language.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n",
    "\nPlease directly answer the questions in the user's speech.<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
)


@dataclass
class Release:
    """The three downloads, and transformers' parts with the same weights."""

    folder: Path
    llm: Reference
    whisper: WhisperForConditionalGeneration
    vocoder: SpeechT5HifiGan
    units_CD: Tensor  # the vocoder's embeddings

    @torch.no_grad()
    def answer(self, audio_N: np.ndarray, tokens: int) -> tuple[list[int], list[list[int]]]:
        """Greedy ids and the units known after each, by the published algorithm: the whole prefix for every token."""
        features = WhisperFeatureExtractor(feature_size=80)(audio_N, sampling_rate=16_000, return_tensors="pt")
        encoded_TD = self.whisper.model.encoder(features.input_features).last_hidden_state[0]
        embed = self.llm.model.embed_tokens.weight
        before, after = (embed[tokenizer().encode(text, add_special_tokens=False).ids] for text in PROMPT)
        return self.llm.say(torch.cat([before, self.llm.hear(encoded_TD), after]), tokens)

    @torch.no_grad()
    def sound(self, units_T: Tensor, frames_T: Tensor) -> Tensor:
        return self.vocoder(self.units_CD[units_T.repeat_interleave(frames_T)])


def tokenizer() -> Tokenizer:
    """A byte a token, and Llama 3's marks."""
    return byte_level_bpe(sorted(ByteLevel.alphabet()) + MARKS, [], special=range(256, 256 + len(MARKS)))


def write_release(root: Path) -> Release:
    """Llama-3.1-8B-Omni with the vocoder in it and Whisper beside it."""
    folder = root / "Llama-3.1-8B-Omni"
    (folder / "vocoder").mkdir(parents=True)
    llm = write_folder(folder, TALKING)
    tokenizer().save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    whisper = WhisperForConditionalGeneration(WhisperConfig(**HF_TINY)).eval()
    for name, parameter in whisper.named_parameters():
        if "norm" not in name:
            nn.init.normal_(parameter, std=0.3)
    whisper.save_pretrained(root / "whisper-large-v3")
    vocoder = hifigan(TINY_VOCODER).eval()
    for parameter in vocoder.parameters():
        nn.init.normal_(parameter, std=0.15)
    tensors = vocoder_file(vocoder, TINY_VOCODER)
    tensors["dur_predictor.proj.weight"] *= 0.3  # lengths of one to some frames
    torch.save({"generator": tensors}, folder / "vocoder" / "g_00500000")
    (folder / "vocoder" / "config.json").write_text(json.dumps(TINY_VOCODER))
    return Release(folder, llm, whisper, vocoder, tensors["dict.weight"])
