"""The Live API as part of the whole server, over a family with turns and over a duplex one."""

from __future__ import annotations

import json

import httpx
import pytest
from fakes import DuplexEcho, EchoModel
from live_talk import valid
from serving import all_free, served
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

KEY = "a key of enough characters"


@pytest.mark.parametrize("model", [EchoModel, DuplexEcho])
def test_a_session_begins_behind_the_door_and_ends(model):
    with served(model(), keys=[KEY]) as (address, server):
        url = f"ws://{address}/v1/live/sessions"
        with pytest.raises(InvalidStatus), connect(url):
            pass
        with connect(url, additional_headers={"Authorization": f"Bearer {KEY}"}) as socket:
            socket.send(json.dumps({"type": "session.start", "session": {"model": "echo"}}))
            started = json.loads(socket.recv(timeout=20))
            valid(started)
            path = f"http://{address}/v1/live/sessions/{started['session']['id']}"
            assert httpx.post(f"{path}/hangup").status_code == 401
            assert httpx.post(f"{path}/hangup", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
        assert all_free(server)


def test_what_needs_turns_says_where_else_to_go_with_a_duplex_family():
    with served(DuplexEcho()) as (address, _):
        with connect(f"ws://{address}/v1/realtime") as socket:
            error = json.loads(socket.recv(timeout=20))["error"]
            assert error["code"] == "unsupported_model" and "/v1/live/sessions" in error["message"]
        for path in ("/v1/chat/completions", "/v1/audio/speech", "/v1/realtime/calls"):
            answer = httpx.post(f"http://{address}{path}", json={})
            assert answer.status_code == 501 and "/api/chat" in answer.json()["error"]["message"]
        assert httpx.get(f"http://{address}/v1/models").json()["data"][0]["id"] == "echo"


def test_misses_and_late_audio_are_counted_for_operators():
    with served(DuplexEcho()) as (address, server):
        server.metrics.missed(3)
        text = httpx.get(f"http://{address}/metrics").text
        assert "duologue_deadline_misses_total 3.0" in text and "duologue_late_audio_seconds_total 0.0" in text
