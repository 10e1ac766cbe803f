"""The released LLaMA-Omni layout: every key at full size on the meta device, every number at a tiny size."""

import json

import pytest
import torch
from tiny_release import FULL, HF_TINY, TINY, TINY_VOCODER, VOCODER, Reference, hifigan, vocoder_file, write_folder
from torch import nn
from transformers import WhisperConfig
from transformers import WhisperForConditionalGeneration as HFWhisper

from duologue.audio.features import log_mel
from duologue.errors import CheckpointError, ConfigError
from duologue.models.llama_omni import released
from duologue.models.llama_omni.adapter import StackingAdapter
from duologue.models.llama_omni.ctc_decoder import PaperUnitDecoder
from duologue.nn.ctc import collapse, init_collapse
from duologue.nn.transformer import Transformer
from duologue.nn.weight_files import fill
from duologue.vocoders.unit_vocoder import CodeGenerator


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
