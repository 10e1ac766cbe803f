"""The released layout as a running model: from three downloads to speech, against transformers' parts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_omni import TICK, ask, sounds
from tiny_release import HF_TINY, MARKS, TALKING, TINY_VOCODER, Release, write_release
from transformers import WhisperConfig, WhisperForConditionalGeneration
from typer.testing import CliRunner

from duologue.checkpoints import load_model, save_model
from duologue.cli import app
from duologue.errors import CheckpointError, ConfigError, PartError
from duologue.models.llama_omni.model import LlamaOmni
from duologue.pipeline import Audio, Done, Heard, Pipeline, Text

TOKENS = 8
SETTINGS = {"dtype": "float32", "longest_answer": 12, "omega": 2}


class Recorder:
    """A vocoder that remembers what it was given."""

    def __init__(self, vocoder):
        self.vocoder, self.chunks = vocoder, []
        self.sample_rate, self.num_units, self.init_state = vocoder.sample_rate, vocoder.num_units, vocoder.init_state

    def forward(self, units_BT, counts_B, state, live_B, final_B, prosody_BTP=None):
        self.chunks.append(units_BT[0, : counts_B[0]].clone())
        return self.vocoder(units_BT, counts_B, state, live_B, final_B, prosody_BTP)


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Release:
    """The layout on disk; its end token is one that the model will choose, so that an answer ends of itself."""
    made = write_release(tmp_path_factory.mktemp("release"))
    audio_N = sounds(1.3, 1).numpy()
    soundfile.write(made.folder / "question.wav", audio_N, 16_000, subtype="FLOAT")
    ids, _ = made.answer(audio_N, 12)
    stop = next(token for place, token in enumerate(ids) if place >= TOKENS - 3 and token not in ids[:place])
    (made.folder / "config.json").write_text(json.dumps(TALKING | {"eos_token_id": [257, stop, 260]}))
    made.ids = ids[: ids.index(stop)]
    made.units = made.answer(audio_N, len(made.ids) + 1)[1][-1]  # with the state that chose the end
    return made


@pytest.fixture(autouse=True)
def no_grad():
    with torch.inference_mode():
        yield


def load(release: Release, **settings) -> LlamaOmni:
    return load_model(release.folder, settings=SETTINGS | settings)


def test_a_question_in_a_file_is_answered_as_the_release_answers(release):
    pipe = Pipeline.from_pretrained(release.folder, settings=SETTINGS)
    vocoder = pipe.model.vocoder
    recorder = Recorder(vocoder)
    pipe.replace(vocoder=recorder)
    events = list(pipe.stream(release.folder / "question.wav"))
    assert events[0] == Heard("", final=True) and isinstance(events[-1], Done)  # the release writes no transcript
    text = "".join(event.text for event in events if isinstance(event, Text))
    assert len(release.ids) >= 4 and text == pipe.model.text(release.ids)
    units_T = torch.cat(recorder.chunks)
    assert units_T.tolist() == release.units and len(recorder.chunks) > 2
    audio = np.concatenate([event.samples for event in events if isinstance(event, Audio)])
    want = release.sound(units_T, vocoder.frames(units_T)).numpy()
    assert pipe.output_rate == 16_000 and want.std() > 0.01
    np.testing.assert_allclose(audio, want, rtol=1e-4, atol=1e-4)  # in chunks as in one piece


def test_every_state_and_score_is_the_reference_s(release):
    model, live_B = load(release), torch.tensor([True])
    release.answer(sounds(1.3, 1).numpy(), len(release.ids) + 1)
    state, step = model.init_state(1), 0
    for tick in torch.nn.functional.pad(sounds(1.3, 1), (0, -20_800 % TICK)).split(TICK):
        model.listen(state, tick[None], live_B)
    model.end_turn(state, live_B)
    for want_D in release.llm.hidden_TD:
        torch.testing.assert_close(state.hidden_BD[0], want_D, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(
            model.llm.logits(state.hidden_BD)[0], release.llm.lm_head(want_D), rtol=1e-4, atol=1e-4
        )
        while int(state.written_B[0]) == step and int(state.phase_B[0]) == 1:
            model.speak(state, live_B)
        step += 1
    assert step == len(release.ids) + 1


def test_a_conversation_is_the_same_alone_and_beside_others(release):
    model = load(release)
    alone, crowd = model.init_state(1), model.init_state(3)
    ask(model, crowd, 0, sounds(0.6, 9))
    before = crowd.save(0)
    for seed in (1, 2):  # two turns
        want, got = ask(model, alone, 0, sounds(1.3, seed)), ask(model, crowd, 2, sounds(1.3, seed))
        assert got[1] == want[1] and want[1]
        torch.testing.assert_close(got[2], want[2], atol=1e-4, rtol=1e-3)
    for name, tensor in crowd.save(0).items():  # who idles keeps every number
        assert torch.equal(tensor, before[name]), name


def test_saved_and_loaded_elsewhere_or_reset_it_goes_on(release):
    model = load(release)
    here, there = model.init_state(1), model.init_state(2)
    first = ask(model, here, 0, sounds(0.8, 1))
    there.load(1, here.save(0))
    want, got = ask(model, here, 0, sounds(0.7, 2)), ask(model, there, 1, sounds(0.7, 2))
    assert got[1] == want[1]
    torch.testing.assert_close(got[2], want[2], atol=1e-4, rtol=1e-3)
    here.reset(torch.tensor([True]))
    again = ask(model, here, 0, sounds(0.8, 1))
    assert again[1] == first[1] and torch.equal(again[2], first[2])


def test_speech_does_not_depend_on_omega_unless_chunks_are_independent(release):
    whole = ask(m := load(release, omega=1000), m.init_state(1), 0, sounds(1.3, 1))
    pieces = ask(m := load(release, omega=1), m.init_state(1), 0, sounds(1.3, 1))
    torch.testing.assert_close(pieces[2], whole[2], atol=1e-4, rtol=1e-3)
    model = load(release, independent_chunks=True)
    model.vocoder = recorder = Recorder(model.vocoder)
    published = ask(model, model.init_state(1), 0, sounds(1.3, 1))
    assert torch.cat(recorder.chunks).tolist() == release.units
    want = [
        release.sound(units_T, model.vocoder.vocoder.frames(units_T)) for units_T in recorder.chunks if len(units_T)
    ]
    torch.testing.assert_close(published[2], torch.cat(want), atol=1e-4, rtol=1e-4)
    assert len(published[2]) != len(whole[2]) or not torch.allclose(published[2], whole[2], atol=1e-3)


def test_after_barge_in_the_unheard_words_are_forgotten(release):
    model = load(release, omega=2)
    state, live_B = model.init_state(1), torch.tensor([True])
    model.listen(state, sounds(0.08, 1)[None], live_B)
    model.end_turn(state, live_B)
    begin = int(state.cache.length_B[0])
    while not model.speak(state, live_B).done_B[0]:
        pass
    assert int(state.cache.length_B[0]) == begin + int(state.written_B[0])
    model.truncate(state, live_B, torch.tensor([0]))
    assert begin <= int(state.cache.length_B[0]) < begin + 12
    assert ask(model, state, 0, sounds(0.8, 2))[1]


def test_silence_gets_no_answer_and_a_long_question_is_read_in_segments(release):
    pipe = Pipeline.from_pretrained(release.folder, settings=SETTINGS)
    assert [type(event) for event in pipe.stream(np.zeros(16_000))] == [Heard, Done]
    model = pipe.model
    state, before = model.init_state(1), len(model.framing.opening)
    ask(model, state, 0, sounds(31.0, 4))
    assert int(state.answer_length_B[0]) == before + 2 * 300 + len(model.framing.to_answer)


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_smaller_weights_answer_too(release, dtype):
    model = load(release, dtype=dtype)
    assert model.speech_decoder.decoder.input_proj.weight.dtype == torch.bfloat16
    _, ids, speech = ask(model, model.init_state(1), 0, sounds(1.3, 1))
    assert ids and len(speech)


def test_the_command_line_answers_with_the_release(release, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["ask", str(release.folder / "question.wav"), "-m", str(release.folder), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads([line for line in result.output.splitlines() if line.startswith("{")][-1])
    assert found["transcript"] == "" and found["text"] and found["audio_seconds"] > 0
    assert soundfile.info("answer.wav").samplerate == 16_000


def test_a_folder_of_ours_can_point_to_the_release(release, tmp_path):
    paths = {"whisper": str(release.folder.parent / "whisper-large-v3"), "vocoder": str(release.folder / "vocoder")}
    settings = SETTINGS | paths | {"release": str(release.folder)}
    save_model(tmp_path / "mine", family="llama_omni_release", model=settings, tensors={})
    model = load_model(tmp_path / "mine")
    assert model.options.omega == 2 and ask(model, model.init_state(1), 0, sounds(1.3, 1))[1] == release.ids
    with pytest.raises(ConfigError, match="unknown key 'omeg'; did you mean 'omega'"):
        load_model(tmp_path / "mine", settings={"omeg": 3})


@pytest.fixture
def copy(release, tmp_path) -> Path:
    """The layout once more, to be damaged."""
    shutil.copytree(release.folder.parent, tmp_path / "copy")
    return tmp_path / "copy" / release.folder.name


def test_what_is_missing_is_named_with_the_way_out(copy):
    shutil.rmtree(copy / "vocoder")
    with pytest.raises(CheckpointError, match=r"the unit vocoder is missing: .*vocoder/g_00500000.*vocoder=PATH"):
        load_model(copy)
    with pytest.raises(CheckpointError, match=r"nowhere: the unit vocoder is not there"):
        load_model(copy, vocoder="nowhere")
    shutil.rmtree(copy.parent / "whisper-large-v3")
    with pytest.raises(CheckpointError, match=r"Whisper large-v3 is missing: .*large-v3\.pt.*whisper=PATH"):
        load_model(copy)
    (copy / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: cannot read"):
        load_model(copy)


def test_other_models_and_parts_of_other_sizes_are_refused(copy, release):
    with pytest.raises(PartError, match="there is no part 'ears'"):
        load_model(copy, ears=None)
    (copy / "vocoder" / "config.json").write_text(json.dumps(TINY_VOCODER | {"num_embeddings": 10}))
    with pytest.raises(CheckpointError, match=r"embedding\.weight has shape \(9, 8\)"):
        load_model(copy)
    (copy / "vocoder" / "config.json").write_text(json.dumps(TINY_VOCODER))
    other = load(release).vocoder
    other.num_units = 10
    with pytest.raises(CheckpointError, match="need a vocoder of 9 units, got 10"):
        load_model(copy, vocoder=other)
    WhisperForConditionalGeneration(WhisperConfig(**HF_TINY | {"d_model": 8})).save_pretrained(copy.parent / "small")
    with pytest.raises(CheckpointError, match=r"small: need a Whisper of width 16 and 1500 steps, got 8 and 1500"):
        load_model(copy, whisper=copy.parent / "small")
    words = json.loads((copy / "tokenizer.json").read_text())
    words["added_tokens"] = [entry for entry in words["added_tokens"] if entry["content"] != MARKS[-2]]
    del words["model"]["vocab"][MARKS[-2]]
    (copy / "tokenizer.json").write_text(json.dumps(words))
    with pytest.raises(CheckpointError, match=r"need Llama 3's tokenizer .* <\|eot_id\|> missing"):
        load_model(copy)
    (copy / "config.json").write_text(json.dumps(TALKING | {"model_type": "mistral"}))
    with pytest.raises(
        CheckpointError, match=r"not a duologue model .*mistral.* or the model_type omni_speech2s_llama"
    ):
        load_model(copy)


def test_a_part_is_exchanged_only_for_one_that_fits(release):
    model = load(release)
    wrong = torch.nn.Module()
    wrong.config, wrong.forward = type("C", (), {"encoder_dim": 99, "llm_dim": 32}), None
    with pytest.raises(PartError, match=r"need config\.encoder_dim 16, got 99"):
        model.replace_part("adapter", wrong)
