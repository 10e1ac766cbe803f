"""Connections that begin wrongly, or do not go on: each gets an answer or an end, and no traceback."""

from __future__ import annotations

import asyncio
import json

import pytest
from serving import all_free, served
from watching import watched

from duologue.eval.wire import TEXT, ask, closed, frame, line, read_answer, request, upgrade
from duologue.server.upgrades import Http

PATH = "/v1/realtime"


@pytest.mark.parametrize(
    ("method", "version", "status"), [("POST", "1.1", 404), ("DELETE", "1.1", 404), ("GET", "1.0", 404)]
)
def test_what_is_no_request_for_a_websocket_is_refused(method, version, status):
    with served() as (address, server):
        raw = upgrade(PATH, method=method, host=address).replace(b"HTTP/1.1", f"HTTP/{version}".encode(), 1)
        assert asyncio.run(ask(address, raw, within=10)).status == status
        assert all_free(server)


def test_a_refused_websocket_is_no_error_in_the_log():
    with watched() as (server, _):
        raw = upgrade(PATH, {"Origin": "https://evil.example"}, host=server.address)
        assert asyncio.run(ask(server.address, raw)).status == 403
    assert server.complaints() == []


def test_text_that_is_none_ends_the_websocket_and_leaves_no_traceback():
    async def talk(address):
        async with line(address) as (reader, writer):
            await writer.send(upgrade(PATH, host=address))
            await reader.readuntil(b"\r\n\r\n")
            await writer.send(frame(TEXT, b'{"a": "\xe2', final=False) + frame(0, b'\x82"}'))
            return await closed(reader)

    with watched() as (server, running):
        assert asyncio.run(talk(server.address)) == 1007 and all_free(running)
    assert server.complaints() == []


def test_a_character_may_be_cut_by_frames():
    async def talk(address):
        async with line(address) as (reader, writer):
            await writer.send(upgrade(PATH, host=address))
            await reader.readuntil(b"\r\n\r\n")
            text = json.dumps({"type": "é"}, ensure_ascii=False).encode()
            await writer.send(frame(TEXT, text[:11], final=False) + frame(0, text[11:]))
            while b"Supported values" not in (found := await asyncio.wait_for(reader.read(10_000), 10)):
                assert found

    with served() as (address, _):
        asyncio.run(talk(address))


def test_a_head_that_does_not_come_ends_the_connection(monkeypatch):
    async def talk(address, *sent):
        async with line(address) as (reader, writer):
            for each in sent:
                await writer.send(each)
                await read_answer(reader) if each.endswith(b"\r\n\r\n") else None
            return await asyncio.wait_for(reader.read(), 5)

    again = request("GET", "/healthz", headers={"Connection": "keep-alive"})
    monkeypatch.setattr(Http, "slowest", 0.2)
    with served() as (address, _):
        for sent in ((), (b"GET / HT",), (again, b"GET"), (again,)):
            assert asyncio.run(talk(address, *sent)) == b""


def test_an_answer_may_take_longer_than_a_head(monkeypatch):
    monkeypatch.setattr(Http, "slowest", 0.2)

    async def talk(address):
        async with line(address) as (reader, writer):
            await writer.send(upgrade(PATH, host=address))
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.5)
            await writer.send(frame(TEXT, b"{}"))
            while b"missing_required_parameter" not in (found := await asyncio.wait_for(reader.read(10_000), 10)):
                assert found

    with served() as (address, _):
        asyncio.run(talk(address))


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/v1/audio/transcriptions", "/v1/realtime/client_secrets"])
def test_a_body_that_does_not_go_on_is_given_up(path):
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    raw = request(
        "POST", path, b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + bytes(90), headers=kind
    )[:-9]
    with watched(slowest=0.2) as (server, running):
        answer = asyncio.run(ask(server.address, raw, within=10))
        assert answer.status == 408 and "in time" in answer.error["message"]
        assert asyncio.run(ask(server.address, raw, within=10, end=True)).status in (0, 408)  # or leaves
        assert all_free(running)
    assert server.complaints() == []


def test_calls_that_are_never_whole_do_not_keep_others_out():
    async def talk(address):
        raw = request("POST", "/v1/realtime/calls", b"v=0" * 9, headers={"Content-Type": "application/sdp"})
        return await asyncio.gather(
            *(ask(address, raw[:-3], within=10) for _ in range(3)), ask(address, raw, within=10)
        )

    with served(slowest=0.2) as (address, _):
        assert [answer.status for answer in asyncio.run(talk(address))] == [400] * 4


def test_a_body_in_broken_pieces_is_refused_once():
    """Also where the endpoint does not want to read it."""
    with watched() as (server, _):
        for path in ("/v1/audio/speech", "/v1/audio/transcriptions"):
            head = request("POST", path, headers={"Transfer-Encoding": "chunked"})
            raw = head.replace(b"Content-Length: 0\r\n", b"") + b"zz\r\nx\r\n"
            assert asyncio.run(ask(server.address, raw)).status == 400
    assert server.complaints() == []


def test_who_takes_nothing_any_more_is_dropped_when_no_answer_comes():
    async def talk(address, server):
        async with line(address, narrow=True) as (_, writer):
            await writer.send(upgrade(PATH, host=address))
            item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x" * 32_000}]}
            put = frame(TEXT, json.dumps({"type": "conversation.item.create", "item": item}).encode())
            sending = asyncio.create_task(writer.send(*[put] * 200))
            while server.engine.free == server.config.max_sessions:
                await asyncio.sleep(0.01)
            freed = await asyncio.to_thread(all_free, server, within=8.0)
            sending.cancel()
            return freed

    with served(ping=0.5) as (address, server):
        assert asyncio.run(talk(address, server))
