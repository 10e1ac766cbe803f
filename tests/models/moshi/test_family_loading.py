"""Folders of Moshi, ours and as published, to a running model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_duplex import CODEC, RAW, codec, sentencepiece_file
from tiny_mimi import moshi_config, speech
from tiny_moshi import CONDITIONED, ours, reference
from tokenizers import Tokenizer, models

from duologue.checkpoints import load_model, save_model
from duologue.codecs.mimi_weights import save_mimi
from duologue.errors import CheckpointError, ConfigError, PartError
from duologue.models.moshi import released_config, released_family
from duologue.models.moshi.conditions import Guidance
from duologue.models.moshi.family import FamilyState, Moshi, PromptConfig
from duologue.models.moshi.generation import GREEDY, Sampling
from duologue.models.moshi.loading import BITS, FamilyConfig, folder_parts
from duologue.models.moshi.released import quantize_moshi, save_moshi
from duologue.models.moshi.released_config import from_kyutai
from duologue.models.moshi.text import load_pieces
from duologue.nn.packed import PackedLinear, can_pack
from duologue.nn.quant4 import Int4Matrix

HIBIKI = {**RAW, "conditioners": CONDITIONED["conditioners"], "fuser": CONDITIONED["fuser"]}
EXACT = {"dtype": "float32", "sampling": {"temperature": 0, "text_temperature": 0}}


@pytest.fixture(autouse=True)
def plain():
    with torch.no_grad():
        yield


def words(folder: Path) -> Path:
    vocabulary = {"<pad>": 0, "▁a": 1, "b": 2, "▁c": 3}
    path = folder / "words.json"
    Tokenizer(models.BPE(vocab=vocabulary, merges=[])).save(str(path))
    return path


def own_folder(folder: Path, raw: dict = RAW, **options) -> Path:
    config = FamilyConfig(
        language_model=from_kyutai(raw), mimi=CODEC, sampling=GREEDY, seed=1, **{"dtype": "float32", **options}
    )
    model = ours(raw, reference(raw))
    if config.dtype in BITS:
        quantize_moshi(model, bits=BITS[config.dtype])
    return save_model(folder / "own", **folder_parts(config, model, codec(), words(folder)))


def release(folder: Path, raw: dict = RAW, *, int8: bool = False, **keys) -> Path:
    """A folder as kyutai publishes it; the codec's shape is given, as the tiny one is not the released one."""
    path, model = folder / "release", ours(raw, reference(raw))
    if int8:
        quantize_moshi(model)
    save_moshi(model, path)
    save_mimi(codec(), path / "tokenizer-e351c8d8-checkpoint125.safetensors")
    sentencepiece_file(path)
    (path / "mimi.json").write_text(json.dumps(moshi_config(CODEC)))
    written = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**written, "mimi_config_name": "mimi.json", **keys}))
    return path


def said(moshi: Moshi, state: FamilyState | None = None) -> torch.Tensor:
    state, live_B, ticks = state or moshi.init_state(1), torch.ones(1, dtype=torch.bool), []
    for tick_BN in speech(6).split(moshi.spec.input_samples, dim=1):
        moshi.listen(state, tick_BN, live_B)
        ticks.append(moshi.speak(state, live_B).audio_BN)
    return torch.cat(ticks)


def test_our_own_folder(tmp_path):
    moshi = load_model(own_folder(tmp_path))
    assert moshi.spec.duplex and moshi.spec.input_rate == 24_000 and moshi.spec.input_samples == 1920
    assert moshi.seed == 1 and moshi.generator.sampling == GREEDY and moshi.text([1, 2, 0, 3]) == " ab"
    assert isinstance(moshi.model.text_head, PackedLinear) == can_pack()
    plain = Moshi(ours(RAW, reference(RAW)), codec(), moshi.pieces, sampling=GREEDY)
    torch.testing.assert_close(said(moshi), said(plain), atol=1e-4, rtol=0)


def test_settings_are_chosen_at_loading(tmp_path):
    folder = own_folder(tmp_path)
    moshi = load_model(folder, settings={"sampling.temperature": 0.9, "sampling.top_k": 7, "seed": None})
    assert moshi.generator.sampling == replace(GREEDY, temperature=0.9, top_k=7) and moshi.seed is None
    with pytest.raises(ConfigError, match="top_kay"):
        load_model(folder, settings={"sampling.top_kay": 7})
    with pytest.raises(PartError, match="vocoder"):
        load_model(folder, vocoder=None)


@pytest.mark.parametrize("saved", ["int8", "float32", "q8 release"])
def test_int8(tmp_path, saved):
    if saved == "q8 release":
        moshi = load_model(release(tmp_path, int8=True))
    else:
        moshi = load_model(own_folder(tmp_path, dtype=saved), settings={"dtype": "int8"})
    assert any(tensor.dtype == torch.int8 for tensor in moshi.model.state_dict().values())
    assert said(moshi).abs().max() > 1e-3


@pytest.mark.parametrize("saved", ["int4", "float32", "release"])
def test_int4(tmp_path, saved):
    folder = release(tmp_path) if saved == "release" else own_folder(tmp_path, dtype=saved)
    moshi = load_model(folder, settings={"dtype": "int4", "sampling": {"temperature": 0, "text_temperature": 0}})
    assert isinstance(moshi.model.depth.layers[0].sets[0].qkv.weight, Int4Matrix)
    if saved == "int4":
        kept, held = load_file(folder / "moshi.safetensors"), moshi.model.state_dict()
        few = [name for name in kept if name.endswith((".int4", ".scale"))]
        assert few and all(torch.equal(held[name], kept[name]) for name in few)
    assert said(moshi).abs().max() > 1e-3


def test_the_published_layout_is_a_model_folder(tmp_path):
    moshi = load_model(
        release(tmp_path), settings={"dtype": "float32", "sampling": {"temperature": 0, "text_temperature": 0}}
    )
    own = load_model(own_folder(tmp_path))
    torch.testing.assert_close(said(moshi), said(own), atol=1e-5, rtol=0)
    assert moshi.prompt is None and moshi.seed is None
    ids = moshi.pieces.encode("spoken words")
    assert moshi.text([ids[0], 3, *ids[1:], 0]) == " spoken words"


@pytest.mark.parametrize("left", [None, {"moshi_name": "model.safetensors"}, {"model_type": "moshi"}])
def test_a_release_that_does_not_tell_its_shape_is_the_7b(tmp_path, monkeypatch, left):
    folder = release(tmp_path)
    if left is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(json.dumps(left))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: \d+ tensors missing: depformer\.layers"):
        load_model(folder)
    monkeypatch.setattr(released_config, "SEVEN_B", RAW)  # as if the released ones were so small
    monkeypatch.setattr(released_family, "_mimi_config", lambda *_: CODEC)
    moshi = load_model(folder)
    assert moshi.model.config == from_kyutai(RAW) and moshi.prompt is None and said(moshi).abs().max() > 1e-3


def test_a_shape_without_a_model_type_is_a_release(tmp_path):
    folder = release(tmp_path)
    written = json.loads((folder / "config.json").read_text())
    kept = {key: value for key, value in written.items() if key not in ("model_type", "moshi_name")}
    (folder / "config.json").write_text(json.dumps(kept))
    assert load_model(folder).model.config == from_kyutai(RAW)


def test_voices_without_a_config_are_personaplex(tmp_path):
    (tmp_path / "voices.tgz").touch()
    assert from_kyutai(released_config.read_config(tmp_path)).depth_steps == 16


def test_a_folder_that_points_to_a_release(tmp_path):
    release(tmp_path, lm_gen_config={"temp": 0.5, "top_k_text": 9, "use_sampling": True})
    pointer = tmp_path / "pointer"
    pointer.mkdir()
    model = {"release": "../release", "seed": 4}
    written = {"format": 1, "family": "moshi_release", "model": model, "files": {}}
    (pointer / "config.json").write_text(json.dumps(written))
    moshi = load_model(pointer)
    assert moshi.seed == 4 and moshi.generator.sampling == Sampling(temperature=0.5, text_top_k=9)
    assert moshi.model.norm.weight.dtype == torch.bfloat16 and said(moshi).dtype == torch.float32


def test_a_hibiki_has_its_conditions_and_goes_on(tmp_path):
    folder = release(tmp_path, HIBIKI)
    moshi = load_model(folder, settings=EXACT)
    good, bad = {"description": "very_good"}, {"description": "very_bad"}
    assert moshi.generator.guidance == Guidance(conditions=good, against=bad)
    table = moshi.model.text_embedding.table.weight
    assert torch.equal(table[2], table[3]) and moshi.model.conditions.tables[0].table.weight.dtype == torch.float32
    led = load_model(folder, settings={**EXACT, "guidance": 3.0})
    assert led.generator.guidance == Guidance(conditions=good, against=bad, coefficient=3.0)
    other = load_model(folder, settings={**EXACT, "conditions": {"description": "bad", "style": "calm"}})
    frames = [said(each) for each in (moshi, led, other)]
    assert not any(torch.equal(frames[i], frames[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    state = moshi.init_state(1)
    moshi.guide(state, 0, led.generator.guidance)
    assert torch.equal(said(moshi, state), frames[1])


def test_conditions_and_guidance_of_a_folder_of_our_own(tmp_path):
    chosen = {"conditions": {"description": "bad"}, "against": {"style": "loud"}, "guidance": 2.0}
    moshi = load_model(own_folder(tmp_path, HIBIKI, **chosen))
    want = Guidance(conditions={"description": "bad"}, against={"style": "loud"}, coefficient=2.0)
    assert moshi.generator.guidance == want and said(moshi).abs().max() > 1e-3
    moshi = load_model(tmp_path / "own", settings={"guidance": 1, "conditions.description": "very_good"})
    assert moshi.generator.guidance == replace(want, coefficient=1.0, conditions={"description": "very_good"})


@pytest.mark.parametrize(
    ("raw", "settings", "message"),
    [
        (RAW, {"guidance": 3.0, "conditions": {"description": "good"}}, "has no conditions"),
        (RAW, {"guidance": 3.0}, "has no conditions"),
        ("hibiki", {"guidance": 3.0, "conditions": {}, "against": {}}, "need conditions other than those"),
        ("hibiki", {"conditions": {"descripton": "bad"}}, "there are description, style"),
        ("hibiki", {"conditions": {"description": "good"}}, "only very_bad, bad, very_good"),
        ("hibiki", {"conditions": {"description": 3}}, "need str"),
    ],
)
def test_conditions_that_there_are_not_are_refused(tmp_path, raw, settings, message):
    with pytest.raises(ConfigError, match=message):
        load_model(release(tmp_path, HIBIKI if raw == "hibiki" else raw), settings=settings)


def test_a_release_tells_how_it_is_drawn(tmp_path):
    folder = release(tmp_path, HIBIKI, lm_gen_config={"cfg_coef": 2.5, "use_sampling": False})
    generator = load_model(folder).generator
    assert generator.guidance.coefficient == 2.5 and generator.sampling == GREEDY
    assert load_model(folder, settings={"guidance": 1}).generator.guidance.coefficient == 1
    written = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**written, "lm_gen_config": {"cfg_is_no_text": True}}))
    with pytest.raises(CheckpointError, match="cfg_is_no_text = True is not supported"):
        load_model(folder)


@pytest.mark.parametrize("name", ["tokenizer-e351c8d8-checkpoint125.safetensors", "tokenizer_spm_32k_3.model"])
def test_a_file_that_is_missing_is_named(tmp_path, name):
    folder = release(tmp_path)
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_model(folder)


def test_personaplex_takes_instructions(tmp_path):
    with pytest.raises(PartError, match="prompt's frames"):  # which has 8 codebooks; this one has 3
        load_model(release(tmp_path, model_type="personaplex"))
    assert len(PromptConfig().said) == len(PromptConfig().heard) == 8


@pytest.mark.parametrize("content", [None, b"no tokenizer"])
@pytest.mark.parametrize("name", ["text.model", "text.json"])
def test_a_tokenizer_that_is_none(tmp_path, name, content):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        load_pieces(tmp_path / name)


def test_text_comes_as_whole_characters(tmp_path):
    from tokenizers import decoders, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "bytes.json"))
    pieces = load_pieces(tmp_path / "bytes.json")
    ids = pieces.encode("a café")
    assert len(ids) == 7 and pieces.decode(ids) == "a café" and pieces.decode(ids[:-1]) == "a caf"
    assert pieces.decode([-1, -2, 10_000]) == ""


def test_bytes_of_sentencepiece_come_as_whole_characters(tmp_path):
    from sentencepiece import SentencePieceTrainer

    SentencePieceTrainer.train(
        sentence_iterator=iter(["some words and more words"] * 4),
        model_prefix=str(tmp_path / "fallback"),
        vocab_size=280,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    pieces = load_pieces(tmp_path / "fallback.model")
    ids = pieces.encode("words é")
    assert pieces.decode(ids) == " words é" and pieces.decode(ids[:-1]) == " words "
