"""OpenAI's plain endpoints, over real sockets, with the unmodified client."""

from __future__ import annotations

import base64
import io as bytes_io
import json
import socket
import threading
import time

import httpx
import numpy as np
import openai
import pytest
import soundfile
from fakes import ANSWER, EchoConfig, EchoModel, tone
from serving import all_free, served

from duologue.server.http_api import HttpLimits, sentences


@pytest.fixture(scope="module")
def server():
    with served(EchoModel(EchoConfig(audio_ticks=4))) as (address, server):
        yield address, server


@pytest.fixture
def client(server):
    return openai.OpenAI(base_url=f"http://{server[0]}/v1", api_key="unused", max_retries=0)


def wav(seconds: float, rate: int = 16_000, channels: int = 1) -> bytes:
    file = bytes_io.BytesIO()
    samples = np.repeat(tone(seconds, rate=rate)[:, None], channels, axis=1)
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "opus", "pcm"])
def test_a_text_is_said(client, form):
    answer = client.audio.speech.create(model="echo", voice="alloy", input="One. Two, three.", response_format=form)
    data = answer.read()
    if form == "pcm":
        samples, rate = np.frombuffer(data, "<i2") / 32_768, 24_000
    else:
        samples, rate = soundfile.read(bytes_io.BytesIO(data))
    assert rate in (24_000, 48_000) and len(samples) / rate == pytest.approx(2 * 3.5 * 0.08, abs=0.1)  # two sentences
    assert np.abs(samples).max() > 0.2


@pytest.mark.parametrize("channels,rate", [(1, 16_000), (2, 44_100), (1, 8_000)])
def test_audio_is_written_down(client, channels, rate):
    file = ("question.wav", wav(1.0, rate, channels))
    assert client.audio.transcriptions.create(model="echo", file=file).text == "sound for 13 ticks in turn 1"
    assert client.audio.transcriptions.create(model="echo", file=file, response_format="text").startswith("sound")
    found = client.audio.transcriptions.create(model="echo", file=file, response_format="verbose_json")
    assert found.duration == 1.0


def test_a_written_question_is_answered(client):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How are you?"}]
    answer = client.chat.completions.create(model="echo", messages=messages)
    assert answer.choices[0].message.content == ANSWER and answer.choices[0].finish_reason == "stop"


def test_a_spoken_question_is_answered_in_speech(client):
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(1.0)).decode(), "format": "wav"}}
    answer = client.chat.completions.create(
        model="echo",
        modalities=["text", "audio"],
        audio={"voice": "alloy", "format": "wav"},
        messages=[{"role": "user", "content": [part]}],
    )
    spoken = answer.choices[0].message.audio
    samples, rate = soundfile.read(bytes_io.BytesIO(base64.b64decode(spoken.data)))
    assert spoken.transcript == ANSWER and rate == 24_000 and len(samples) == round(3.5 * 1_920)


def test_an_answer_comes_as_it_is_made(client):
    chunks = list(
        client.chat.completions.create(
            model="echo",
            stream=True,
            modalities=["text", "audio"],
            audio={"voice": "alloy", "format": "pcm16"},
            messages=[{"role": "user", "content": "Hello"}],
        )
    )
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == ANSWER
    pcm = b"".join(base64.b64decode(delta.audio.data) for delta in deltas if getattr(delta, "audio", None))
    assert len(pcm) == 2 * round(3.5 * 1_920) and chunks[-1].choices[0].finish_reason == "stop"


USER = [{"role": "user", "content": "Hi"}]
BAD = [
    ("audio/speech", {"input": "", "voice": "a"}, "input: need a text"),
    ("audio/speech", {"input": "x" * 5_000}, "1 to 4096 characters"),
    ("audio/speech", {"input": "x", "response_format": "aac"}, "response_format: need one of"),
    ("audio/speech", {"input": "x", "speed": 2}, "speed 1 only"),
    ("audio/speech", {"input": "x", "response_format": []}, "response_format: need one of"),
    ("audio/speech", {"input": "x", "response_format": {}}, "response_format: need one of"),
    ("audio/speech", [], "not a JSON object"),
    ("chat/completions", {"messages": USER, "modalities": [[]]}, "modalities"),
    ("chat/completions", {"messages": USER, "modalities": ["text", "audio"], "audio": 5}, "audio: need an object"),
    ("chat/completions", {"messages": USER, "modalities": ["text", "audio"], "audio": {"format": []}}, "audio.format"),
    ("chat/completions", {"messages": []}, "1 to 64 messages"),
    ("chat/completions", {"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    ("chat/completions", {"messages": [{"role": "assistant", "content": "x"}]}, "last one must be the user's"),
    ("chat/completions", {"messages": USER, "n": 3}, "n: this model"),
    ("chat/completions", {"messages": USER, "tools": [{}]}, "tools: this model"),
    ("chat/completions", {"messages": USER, "modalities": ["video"]}, "modalities"),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        "need parts of the types",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "?"}}]}]},
        "not base64",
    ),
    (
        "chat/completions",
        {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "UklGRg=="}}]}]},
        "cannot be read",
    ),
]


@pytest.mark.parametrize("path,body,message", BAD)
def test_bad_requests_are_told_what_was_wanted(server, path, body, message):
    found = httpx.post(f"http://{server[0]}/v1/{path}", json=body)
    assert found.status_code == 400 and message in found.json()["error"]["message"]
    assert all_free(server[1])


def test_broken_json_and_large_bodies_are_refused(server):
    url = f"http://{server[0]}/v1/chat/completions"
    assert "not JSON" in httpx.post(url, content=b"{" * 100_000).json()["error"]["message"]
    host, _, port = server[0].partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(f"POST /v1/audio/speech HTTP/1.1\r\nHost: {server[0]}\r\nContent-Length: {10**12}\r\n\r\n".encode())
        raw.shutdown(socket.SHUT_WR)
        assert b"a request may have" in b"".join(iter(lambda: raw.recv(10_000), b""))
    for text in (b'{"input": "\\ud800"}', b'{"input": "x", "speed": NaN}', b'{"input": "x", "x": 1e999}', b"\xff"):
        assert "not JSON" in httpx.post(f"http://{server[0]}/v1/audio/speech", content=text).json()["error"]["message"]
    form = httpx.post(f"http://{server[0]}/v1/audio/transcriptions", files={"file": b"not audio"})
    assert form.status_code == 400 and "cannot be read" in form.text


def test_a_full_server_says_so_and_who_hangs_up_makes_room():
    class Slow(EchoModel):
        def speak(self, state, live_B):
            time.sleep(0.01)
            return super().speak(state, live_B)

    with served(Slow(EchoConfig(audio_ticks=100_000)), max_sessions=1) as (address, server):
        url, body = f"http://{address}/v1/chat/completions", {"messages": USER, "stream": True}
        with httpx.stream("POST", url, json=body, timeout=10) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines).removeprefix("data: "))["model"] == "echo"
            busy = httpx.post(url, json=body)
            assert busy.status_code == 503 and "all 1 places are taken" in busy.text
        assert all_free(server)


def test_many_at_once_get_their_own_answers(server):
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        file = {"file": wav(0.5 + 0.16 * number)}
        found[number] = httpx.post(f"http://{server[0]}/v1/audio/transcriptions", files=file, timeout=30).json()["text"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == [
        f"sound for {7 + 2 * number} ticks in turn 1" for number in range(6)
    ]


def test_the_numbers_are_there_for_prometheus(server, client):
    client.chat.completions.create(model="echo", messages=USER)
    text = httpx.get(f"http://{server[0]}/metrics").text
    assert "duologue_places 8.0" in text and "duologue_step_seconds_count" in text
    answers = next(line for line in text.splitlines() if line.startswith("duologue_answers_total"))
    assert float(answers.split()[1]) > 0


def test_long_texts_are_said_sentence_by_sentence():
    text = "One sentence. Another one! " + "word " * 100
    pieces = sentences(text, longest=120)
    assert pieces[:2] == ["One sentence.", "Another one!"] and max(map(len, pieces)) <= 120
    assert " ".join(pieces).split() == text.split()
    assert sentences("x" * 500, longest=100) == ["x" * 100] * 5


FORM = "multipart/form-data; boundary=x"
PART = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("multipart/form-data", b"--x--", "boundary"),
        (FORM, b"nonsense", "Invalid multipart"),
        (
            FORM,
            PART % (b"file", b'; filename="a"', b"a") + PART % (b"b", b'; filename="b"', b"b") + b"--x--",
            "Too many files",
        ),
        (f"{FORM}; charset=rot13", PART % (b"model", b"", b"mini") + b"--x--", "file: need the audio"),
        ("text/plain", b"x", "file: need the audio"),
    ],
)
def test_forms_that_are_none_are_refused(server, kind, body, message):
    url = f"http://{server[0]}/v1/audio/transcriptions"
    found = httpx.post(url, content=body, headers={"content-type": kind})
    assert found.status_code == 400 and message in found.json()["error"]["message"]


def test_a_form_without_a_length_is_cut_off_where_it_becomes_too_large():
    def body():
        yield PART % (b"file", b'; filename="a"', b"")
        for _ in range(100):
            yield bytes(10_000)

    with served(http=HttpLimits(body=100_000)) as (address, server):
        found = httpx.post(f"http://{address}/v1/audio/transcriptions", content=body(), headers={"content-type": FORM})
        assert found.status_code == 400 and "100000 bytes" in found.json()["error"]["message"] and all_free(server)


def test_what_there_is_not_is_said_as_clients_read_it(server):
    for method, path, status in (("GET", "/v1/x", 404), ("PUT", "/v1/audio/speech", 405)):
        found = httpx.request(method, f"http://{server[0]}{path}")
        assert found.status_code == status and found.json()["error"]["type"] == "invalid_request_error"
