"""Malformed events: the grammar, and that each kind of wrong answer is found."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import pytest
from fakes import EchoConfig, EchoModel
from watching import watched

from duologue.eval import (
    hostile_calls,
    hostile_events,
    hostile_fields,
    hostile_http,
    hostile_moshi,
    hostile_requests,
    hostile_run,
    hostile_sockets,
)
from duologue.eval.hostile_events import Case
from duologue.eval.hostile_talk import judge, over_websocket
from duologue.eval.wire import Answer, frame, frames
from duologue.server import app, http_api, moshi_ws
from duologue.server.moshi_ws import MoshiConfig
from duologue.server.realtime import connection, webrtc

LONG = EchoModel(EchoConfig(audio_ticks=60))


def drawn(seed: int, count: int = 400, **how) -> list[Case]:
    return list(itertools.islice(hostile_events.cases(random.Random(seed), **how), count))


def test_the_same_seed_draws_the_same():
    assert drawn(1) == drawn(1) != drawn(2)
    for draw in (
        hostile_http.some_body,
        hostile_requests.some_request,
        hostile_sockets.some_frames,
        hostile_moshi.ends,
    ):
        assert repr(draw(random.Random(5))) == repr(draw(random.Random(5)))


def test_every_field_is_spoiled_in_every_way():
    names = {case.name for seed in range(10) for case in drawn(seed, 1_000)}
    for kind, fields in hostile_fields.FIELDS.items():
        for field in fields:
            ways = ["type"] + ["missing"] * field.required + ["range"] * bool(field.wrong)
            assert {f"{kind}: {field.path}: {way}" for way in ways} <= names


def test_a_data_channel_is_given_what_it_takes():
    assert max(len(raw) for case in drawn(1, 2_000, webrtc=True) for raw in case.raw) < 2**18
    assert "no output buffer" not in {case.name for case in drawn(1, 2_000, webrtc=True)}


def error(code="invalid_value", event_id="bad_1", kind="invalid_request_error"):
    return {"type": "error", "error": {"type": kind, "code": code, "message": "No.", "event_id": event_id}}


BAD, GOOD = Case("x", ("{}",), ("invalid_value",), "bad_1"), Case("x", ("{}",), (), answer="session.updated")


@pytest.mark.parametrize(
    ("case", "events", "good"),
    [
        (BAD, [error()], True),
        (BAD, [{"type": "response.done"}, error()], True),  # of an answer that went on
        (BAD, [], False),
        (BAD, [error(), error()], False),
        (BAD, [error("invalid_type")], False),
        (BAD, [error(event_id="bad_2")], False),
        (BAD, [error(kind="server_error")], False),
        (GOOD, [{"type": "session.updated"}], True),
        (GOOD, [], False),
        (GOOD, [{"type": "session.updated"}, error()], False),
        (GOOD, [{"type": "session.updated", "x": "(Infinity is no JSON)"}], False),
    ],
)
def test_an_answer_is_judged(case, events, good):
    assert (judge(case, events) is None) == good


def test_frames_and_answers_are_read():
    async def read():
        reader = asyncio.StreamReader()
        reader.feed_data(frame(1, b"x" * 300, masked=False) + frame(8, b"", masked=False))
        reader.feed_eof()
        return [found async for found in frames(reader)]

    assert asyncio.run(read()) == [(1, b"x" * 300), (8, b"")]
    assert Answer(400, {}, b'{"error": {"message": "No."}}').error == {"message": "No."}
    assert Answer(400, {}, b"No.").error is None and Answer(400, {}, b'{"error": "x"}').error is None


def test_a_server_stands_a_little_of_everything():
    with watched(LONG) as (server, _):
        found = asyncio.run(hostile_run.run(server, count=120, rest=0.0))
    assert found.wrong == [] and found.complaints == [] and found.lost == 0 and found.same
    assert set(found.sent) == set(hostile_run.SHARES) and sum(found.sent.values()) == 120 + 1
    assert all(value.value == 0 for value in hostile_run.outcome(found).values.values())


def websocket(server, name):
    cases = [case for case in drawn(3, 2_000) if case.name == name][:2]
    assert cases, name
    return asyncio.run(over_websocket(server.address, cases))


def test_an_event_that_ends_the_session_is_found(monkeypatch):
    monkeypatch.setattr(connection, "check", lambda event: None)
    with watched() as (server, _):
        wrong = websocket(server, "an unknown type")
        assert len(wrong) == 2 and "the session ended" in wrong[0].got  # each ends one
        assert any("Traceback" in row for row in server.complaints())


def test_an_event_that_is_taken_is_found(monkeypatch):
    monkeypatch.setitem(connection._HANDLERS, "response.cancel", lambda *_: None)
    with watched() as (server, _):
        (wrong, *_) = websocket(server, "response.cancel of what there is not")
    assert wrong.got.startswith("0 errors")


def test_a_status_that_blames_the_server_is_found(monkeypatch):
    monkeypatch.setattr(http_api, "_STATUS", {})
    case = hostile_http.Case("x", (hostile_http.request("POST", hostile_http.SPEECH, b"{", headers=hostile_http.JSON),))
    with watched() as (server, _):
        assert asyncio.run(hostile_http.check(server.address, case)).got.startswith("500")


def test_an_error_that_no_client_can_read_is_found(monkeypatch):
    monkeypatch.setattr(app, "_refused", lambda request, error: app.PlainTextResponse("No.", error.status_code))
    case = hostile_http.Case("x", (hostile_http.request("POST", "/v1/x", b"{"),))
    with watched() as (server, _):
        assert asyncio.run(hostile_http.check(server.address, case)).got == "404 b'No.'"


def test_another_end_of_a_conversation_is_found():
    chance = next(
        seed for seed in range(99) if hostile_moshi.ends(random.Random(seed)).name == "a message past every limit"
    )
    with watched(moshi=MoshiConfig(largest=2**20)) as (server, _):
        (wrong,) = asyncio.run(hostile_moshi.check(server.address, random.Random(chance), 0))
    assert wrong.got.startswith("1008") and moshi_ws.MoshiConfig().largest == 65_536


def test_an_offer_that_breaks_the_server_is_found(monkeypatch):
    def breaks(sdp):
        raise KeyError(sdp)

    monkeypatch.setattr(webrtc, "check", breaks)
    offer = hostile_calls.Offer(
        "x", hostile_http.request("POST", hostile_calls.PATH, b"v=0", headers={"Content-Type": "application/sdp"})
    )
    with watched() as (server, _):
        assert "500" in asyncio.run(hostile_calls.check(server.address, offer)).got


def test_frames_that_are_taken_are_found():
    case = hostile_sockets.Frames("x", frame(1, json.dumps({"type": "x"}).encode()) + frame(8, b""), (1002,))
    with watched() as (server, _):
        assert asyncio.run(hostile_sockets.send_frames(server.address, case, "/v1/realtime")) is not None
        handshake = hostile_sockets.Handshake("x", hostile_sockets.upgrade("/v1/realtime", host=server.address), (400,))
        assert asyncio.run(hostile_sockets.shake_hands(server.address, handshake)).got == "101"
