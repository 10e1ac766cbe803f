"""The released LLaMA-Omni layout: every key at full size on the meta device, every number at a tiny size."""

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, SpeechT5HifiGan, SpeechT5HifiGanConfig, WhisperConfig
from transformers import WhisperForConditionalGeneration as HFWhisper
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

from duologue.audio.features import log_mel
from duologue.errors import CheckpointError, ConfigError
from duologue.models.llama_omni import released
from duologue.models.llama_omni.adapter import StackingAdapter
from duologue.models.llama_omni.ctc_decoder import PaperUnitDecoder
from duologue.models.weights import fill
from duologue.nn.ctc import collapse, init_collapse
from duologue.nn.transformer import Transformer
from duologue.vocoders.unit_vocoder import CodeGenerator

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
        return ids, units


def write_folder(folder, data: dict) -> Reference:
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


def test_every_key_of_the_full_model_is_mapped(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(FULL))
    config = released.read_config(tmp_path)
    with torch.device("meta"):
        theirs = Reference(FULL).state_dict()
        modules = {
            "llm": Transformer(config.llm),
            "adapter": StackingAdapter(config.adapter),
            "speech_decoder": PaperUnitDecoder(config.speech_decoder),
        }
    assert theirs["model.speech_projector.linear1.weight"].shape == (2048, 6400)
    assert theirs["speech_generator.output_proj.weight"].shape == (1001, 4096)
    parts = released.split_parts(config, theirs, where="release")
    for name, module in modules.items():
        fill(module, parts[name], where=name)  # strict, shapes too
    decoder_size = sum(parameter.numel() for parameter in modules["speech_decoder"].parameters())
    assert 420e6 < decoder_size < 430e6  # the paper's 425 M
    assert config.stop_ids == (128_001, 128_008, 128_009)


def test_a_release_with_the_encoder_in_its_shards_loads_too(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    config = released.read_config(tmp_path)
    with torch.device("meta"):
        theirs = Reference(TINY).state_dict()
        theirs["model.speech_encoder.conv1.weight"] = torch.zeros(1)
    assert released.split_parts(config, theirs, where="release").keys() == {"llm", "adapter", "speech_decoder"}
    theirs["speech_generator.norm.weight"] = theirs.pop("model.norm.weight")
    with pytest.raises(CheckpointError, match=r"missing: model\.norm\.weight; .*unexpected: speech_generator\.norm"):
        released.split_parts(config, theirs, where="release")


@torch.no_grad()
def test_the_loaded_model_says_what_the_release_says(tmp_path):
    """Text and units, streaming with caches against recomputing everything for every token."""
    reference = write_folder(tmp_path, TINY)
    parts, tokens = released.load_released(tmp_path), 6
    encoded_BTD, live_B = torch.randn(1, 23, 16), torch.tensor([True])  # 23 frames: 4 stacks, 3 frames dropped
    speech_BTD, counts_B = parts.adapter(encoded_BTD, torch.tensor([23]))
    torch.testing.assert_close(speech_BTD[0], reference.hear(encoded_BTD[0, :20]), rtol=1e-4, atol=1e-4)
    assert counts_B.tolist() == [4]
    before, after = torch.tensor([[1, 1, 7, 9]]), torch.tensor([[4, 2]])
    prompt_BTD = torch.cat([parts.llm.embedding(before), speech_BTD, parts.llm.embedding(after)], dim=1)
    want_ids, want_units = reference.say(prompt_BTD[0], tokens)

    state = parts.llm.init_state(1, 20)
    cache, seen = parts.speech_decoder.init_state(1, tokens), init_collapse(1)
    hidden_BTD, ids, units = parts.llm(prompt_BTD, state, live_B)[:, -1:], [], []
    for token in range(tokens):
        scores_BTV = parts.speech_decoder(hidden_BTD, cache, live_B)  # the state that predicts the token
        new_BT, count_B, _ = collapse(scores_BTV.argmax(-1), seen, live_B, blank=9)
        units += new_BT[0, : count_B[0]].tolist()
        assert units == want_units[token]
        ids.append(int(parts.llm.logits(hidden_BTD).argmax()))
        hidden_BTD = parts.llm(parts.llm.embedding(torch.tensor([[ids[-1]]])), state, live_B)
    assert ids == want_ids
    assert len(set(units)) > 2 and len(set(ids)) > 2


def test_loading_can_change_the_precision(tmp_path):
    write_folder(tmp_path, TINY)
    parts = released.load_released(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in parts.llm.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "llama"}, "need model_type = 'omni_speech2s_llama'"),
        ({"speech_generator_type": "ar"}, "speech_generator_type"),
        ({"speech_normalize": True}, "speech_normalize"),
        ({"ctc_decoder_config": "(2,4096)"}, "speech parts cannot be built"),
        ({"ctc_decoder_config": "(2,10,3,4)"}, "heads must divide dim"),
        ({"unit_vocab_size": 10}, r"output_proj\.weight has shape"),
        ({"num_hidden_layers": 3}, r"missing: model\.layers\.2"),
    ],
)
def test_a_folder_that_does_not_fit_is_refused_with_its_reason(tmp_path, change, message):
    write_folder(tmp_path, TINY)
    (tmp_path / "config.json").write_text(json.dumps(TINY | change))
    with pytest.raises(CheckpointError, match=message):
        released.load_released(tmp_path)


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


def test_every_key_of_the_full_vocoder_is_mapped():
    config = released.vocoder_config(VOCODER, where="config.json")
    with torch.device("meta"):
        theirs, ours = vocoder_file(hifigan(VOCODER), VOCODER), CodeGenerator(config)
    kinds = ("weight_g", "weight_v", "bias")
    convs = ["conv_pre", "conv_post", *(f"ups.{i}" for i in range(5))]
    convs += [f"resblocks.{i}.convs{j}.{k}" for i in range(15) for j in (1, 2) for k in range(3)]
    listed = {f"{conv}.{kind}" for conv in convs for kind in kinds} | {"dict.weight"}
    listed |= {f"dur_predictor.{m}.{k}" for m in ("conv1.0", "conv2.0", "ln1", "ln2", "proj") for k in kinds[1:]}
    listed = {name.replace("weight_v", "weight") if "dur_predictor" in name else name for name in listed}
    assert theirs.keys() == listed
    folded = released.fold_weight_norm(theirs)
    tensors = released.to_ours(released.vocoder_table(config), folded, where="vocoder")
    fill(ours, tensors, where="vocoder")
    assert config.hop == 320 and theirs["dict.weight"].shape == (1000, 128)


@torch.no_grad()
def test_the_vocoder_file_sounds_as_its_weights(tmp_path):
    torch.manual_seed(0)
    reference = hifigan(TINY_VOCODER).eval()
    for parameter in reference.parameters():
        nn.init.normal_(parameter, std=0.15)
    tensors = vocoder_file(reference, TINY_VOCODER)
    torch.save({"generator": tensors}, tmp_path / "g_00500000")
    (tmp_path / "config.json").write_text(json.dumps(TINY_VOCODER))
    vocoder, units_BT = released.load_vocoder(tmp_path / "g_00500000"), torch.randint(9, (2, 30))
    want = reference(tensors["dict.weight"][units_BT])
    assert want.std() > 0.01
    torch.testing.assert_close(vocoder.waveform(units_BT), want, rtol=1e-4, atol=1e-4)
    del tensors["ups.0.weight_v"]
    torch.save({"generator": tensors}, tmp_path / "g_00500000")
    with pytest.raises(CheckpointError, match=r"missing: ups\.0\.weight; .*unexpected: ups\.0\.weight_g"):
        released.load_vocoder(tmp_path / "g_00500000")


def test_damaged_vocoder_files_are_named(tmp_path):
    file = tmp_path / "g_00500000"
    (tmp_path / "config.json").write_text(json.dumps(TINY_VOCODER))
    for content, message in ((b"not a model", "not a whole PyTorch weight file"), (None, "No such file")):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        with pytest.raises(CheckpointError, match=message):
            released.load_vocoder(file)
    torch.save({"model": {}}, file)
    with pytest.raises(CheckpointError, match="need a vocoder file with 'generator', got model"):
        released.load_vocoder(file)
    (tmp_path / "config.json").write_text(json.dumps(TINY_VOCODER | {"multispkr": True}))
    with pytest.raises(CheckpointError, match="multispkr"):
        released.load_vocoder(file)


def test_the_prompt_begins_with_two_bos_and_has_the_speech_inside():
    bos, words = 128_000, {}

    def encode(text: str) -> list[int]:
        """Special tokens and characters, each an id."""
        ids = []
        for chunk in text.replace("<|", "\0<|").replace("|>", "|>\0").split("\0"):
            pieces = [chunk] if chunk.startswith("<|") else list(chunk)
            ids += [bos if p == "<|begin_of_text|>" else words.setdefault(p, len(words)) for p in pieces]
        return ids

    before, after = released.prompt_ids(encode, bos=bos)
    texts = {index: word for word, index in words.items()} | {bos: "<|begin_of_text|>"}
    assert before[:2] == [bos, bos] and before.count(bos) == 2 and bos not in after
    assert "".join(texts[i] for i in before[1:]) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "You are a helpful language and speech assistant. You are able to understand the speech content that the user "
        "provides, and assist the user with a variety of tasks using natural language."
        "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
    )
    assert "".join(texts[i] for i in after) == (
        "\nPlease directly answer the questions in the user's speech."
        "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    with pytest.raises(ConfigError, match="<speech> once"):
        released.prompt_ids(encode, bos=bos, instruction="Answer.")


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


@torch.no_grad()
@pytest.mark.parametrize("seconds", [1, 31])
def test_any_length_is_heard_as_300_embeddings(tmp_path, seconds):
    torch.manual_seed(0)
    hf = HFWhisper(WhisperConfig(**HF_TINY)).eval()
    hf.save_pretrained(tmp_path / "whisper")
    reference = write_folder(tmp_path, TINY)
    encoder, parts = released.load_whisper_encoder(tmp_path / "whisper"), released.load_released(tmp_path)
    features_BMT, frames_B = log_mel(released.pad_or_trim(torch.randn(1, seconds * 16_000) * 0.1))
    assert frames_B.tolist() == [3000]
    speech_BTD, counts_B = parts.adapter(*encoder(features_BMT, frames_B))
    assert counts_B.tolist() == [300] and speech_BTD.shape == (1, 300, 32)
    want = reference.hear(hf.model.encoder(features_BMT).last_hidden_state[0])
    torch.testing.assert_close(speech_BTD[0], want, rtol=1e-4, atol=1e-4)
