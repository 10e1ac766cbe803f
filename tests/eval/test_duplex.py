"""The whole evaluation of a full-duplex model, and the inner monologue's perplexity."""

import json
import re
from dataclasses import replace

import pytest
import torch
from eval.duplex_helpers import Scripted, user
from eval.helpers import Buzz, make_context
from eval.test_duplex_official import sample, word
from loudness import Loudness
from tiny_duplex import RAW, tiny_duplex

from duologue.audio.vad import VoiceActivity
from duologue.errors import DataError
from duologue.eval import duplex, runner
from duologue.eval.duplex_cases import DIALOGUE
from duologue.eval.duplex_monologue import has_monologue, perplexity, scored
from duologue.pipeline import Pipeline


@pytest.fixture
def context(tmp_path, monkeypatch):
    monkeypatch.setattr(VoiceActivity, "load", Loudness)
    monkeypatch.setattr(duplex, "QUICK", 1)
    made = duplex.make_dialogues
    monkeypatch.setattr(duplex, "make_dialogues", lambda *a, **k: made(*a, assistant=Buzz("assistant"), **k))
    made_context, _ = make_context(tmp_path, load=lambda _: Pipeline(Scripted(after=5, ticks=20)))
    rows = [{"question": f"What is the number {n} good for, please?", "answer": "It is good."} for n in range(150)]
    (made_context.data / "spoken_qa.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return made_context


def test_all_of_it_fits_into_a_report_with_timelines(context):
    pause = [word("[PAUSE]", 1.0, 2.0)]
    sample(context.cache / duplex.OFFICIAL, "v1_0/candor_pause_handling", "1", pause=pause)
    page = runner.run_tasks(context, runner.EVALUATIONS["duplex"])
    text = page.read_text()
    assert "failed:" not in text
    values = {key: v for path in (context.out / "results").glob("*.json") for key, v in _values(path).items()}
    assert values["turn_tor"] == 1.0 and values["turn_latency"] == pytest.approx(400, abs=120)
    assert values["pause_tor"] == 1.0 and values["backchannel_tor"] == 1.0, "it waits for 0.4 s and talks for 1.6 s"
    assert values["interruption_tor"] == 1.0 and values["ipu_count"] > 0
    assert values["answers_over"] == 1.0 and values["answers_right"] == 0.0, "it counts whatever is asked"
    assert values["v1_0_candor_pause_handling_tor"] == 0.0, "nobody spoke"
    timelines = (context.out / "duplex.html").read_text()
    assert timelines.count("<svg") == 5 + 6 + 1 and "data:audio/mpeg" in timelines and "the number after" in timelines
    assert not re.findall(r"(?:src|href)=['\"](?!data:|raw\.json)", timelines), "nothing is fetched from elsewhere"
    monologue = json.loads((context.out / "results" / "duplex_monologue.json").read_text())
    assert monologue["details"] == {"left out": "Scripted has no inner monologue"}


def _values(path):
    return {key: value["value"] for key, value in json.loads(path.read_text())["values"].items()}


def test_right_answers_are_told_from_wrong_ones(context, monkeypatch):
    """One that thinks what is known of every other question; the judge hears all of it but for a word. It writes down
    all of a question but for its last two words."""
    known = duplex.short_answers(context.data)
    assert set(known.values()) == {"It is good."}
    monkeypatch.setattr(context.judge, "transcribe", lambda audio, rate: "It is" if len(audio) else "")
    real, count = duplex.Line.run, iter(range(100))

    def run(line, case):
        take = real(line, case)
        heard = ((0.8, " ".join(case.said[0][0].split()[:3])), (0.9, " ".join(case.said[0][0].split()[3:-2])))
        texts = ((1.0, "It is"), (1.1, " good.")) if next(count) % 2 else ((1.0, "It is bad."),)
        return replace(take, texts=texts, heard=heard)

    monkeypatch.setattr(duplex.Line, "run", run)
    found = {key: interval.value for key, interval in duplex.answers(context).values.items()}
    assert found["answers_right"] == 0.5 and found["answers_told"] == 0 and found["answers_over"] == 1
    assert found["answers_heard"] == pytest.approx(2 / 8, abs=0.05)
    assert found["answers_wer"] == pytest.approx(1 / 3) and 1 <= found["answers_dnsmos"] <= 5
    (context.data / "spoken_qa.jsonl").write_text(json.dumps({"question": "Why is it?", "answer": "So " * 20}))
    with pytest.raises(DataError, match="7 words or fewer"):
        duplex.short_answers(context.data)


def test_a_run_is_the_same_again(context):
    first, again = (duplex.behaviour(context, "turn") for _ in range(2))
    assert first == again and context.pipe().model.seed == duplex.SEED


def test_real_time_has_its_own_names():
    assert [task.name for task in duplex.DUPLEX_LIVE][:2] == ["duplex_pause_live", "duplex_backchannel_live"]
    assert duplex.DUPLEX_LIVE[0].rows[0].title == "in real time: take-over while the user pauses"
    names = [task.name for task in (*duplex.DUPLEX, *duplex.DUPLEX_LIVE)]
    assert len(set(names)) == len(names)


def conversation(folder, **fields):
    mine = user(folder, DIALOGUE, [(0.5, 1.5)], seconds=3.0, name="user")
    other = user(folder, DIALOGUE, [(1.7, 2.5)], seconds=3.0, name="assistant").path
    return user(folder, DIALOGUE, [(0.5, 1.5)], seconds=3.0, name="user", other=other, **fields) if fields else mine


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_pieces(tmp_path):
    model = tiny_duplex()
    assert has_monologue(model) and not has_monologue(Scripted())
    with torch.no_grad():
        model.model.text_head.weight.zero_()
    case = conversation(tmp_path, words=(("hello", 1.7, 2.0), ("there", 2.1, 2.5)))
    found = scored(model, case)
    assert found.frames == 38 and 2 <= found.words <= 11
    assert perplexity([found]) == pytest.approx(RAW["text_card"], rel=1e-5)
    assert perplexity([found, found], words=True) == pytest.approx(RAW["text_card"], rel=1e-5)


def test_the_words_alone_are_scored_where_words_are(tmp_path):
    model = tiny_duplex()
    with torch.no_grad():
        model.model.text_head.weight.zero_()
        model.model.text_head.bias = torch.nn.Parameter(torch.zeros(RAW["text_card"]))
        model.model.text_head.bias[model.config.padding_id] = 50.0  # sure of silence
    silent = scored(model, conversation(tmp_path, words=(("hello", 9.0, 9.1),)))
    assert silent.words == 0 and perplexity([silent]) == pytest.approx(1.0, abs=1e-6)
    spoken = scored(model, conversation(tmp_path, words=(("a", 1.7, 2.0),)))
    assert spoken.word_nats / spoken.words == pytest.approx(50.0, abs=0.1)


def test_one_side_alone_has_no_monologue(tmp_path):
    with pytest.raises(DataError, match="need the assistant's channel"):
        scored(tiny_duplex(), conversation(tmp_path))
