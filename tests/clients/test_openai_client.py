"""The `openai` package as it is, against a running server: what its users do in a realtime conversation."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest
from fakes import ANSWER, EchoConfig, EchoModel, tone
from openai import AsyncOpenAI, OpenAI
from realtime_talk import RATE, served, silence

from duologue.audio import io

TOOL = {"type": "function", "name": "weather", "description": "The weather.", "parameters": {"type": "object"}}


def router(transcript: str, tools, *, forced: bool):
    return (tools[0]["name"], json.dumps({"heard": transcript})) if transcript else None


def talk(conversation, **server):
    """Runs a conversation that is written for a connection."""

    async def run(address: str) -> None:
        urls = {"base_url": f"http://{address}/v1", "websocket_base_url": f"ws://{address}/v1"}
        async with (
            AsyncOpenAI(api_key="none", **urls) as client,
            client.realtime.connect(model="mini", websocket_connection_options={"close_timeout": 1}) as connection,
        ):
            assert (await connection.recv()).type == "session.created"
            await conversation(connection)

    with served(**server) as (address, _):
        asyncio.run(asyncio.wait_for(run(address), 60))


async def say(connection, *pieces) -> None:
    for piece in pieces:
        for begin in range(0, len(piece), 2_400):
            audio = base64.b64encode(io.encode_pcm16(piece[begin : begin + 2_400])).decode()
            await connection.input_audio_buffer.append(audio=audio)


async def until(connection, kind: str) -> list:
    events = [await connection.recv()]
    while events[-1].type != kind:
        assert events[-1].type != "error", events[-1]
        events.append(await connection.recv())
    return events


def test_a_conversation_with_a_barge_in():
    async def conversation(connection):
        await connection.session.update(
            session={"type": "realtime", "audio": {"input": {"transcription": {"model": "whisper-1"}}}}
        )
        await say(connection, tone(1.0, rate=RATE), silence(1.0))
        events = await until(connection, "response.output_audio.delta")
        item = events[-1].item_id
        await say(connection, tone(0.5, rate=RATE))
        events = await until(connection, "response.done")
        assert events[-1].response.status == "cancelled"
        assert events[-1].response.status_details.reason == "turn_detected"
        await connection.conversation.item.truncate(item_id=item, content_index=0, audio_end_ms=80)
        assert (await until(connection, "conversation.item.truncated"))[-1].audio_end_ms == 80
        await say(connection, silence(1.0))
        events = await until(connection, "response.output_audio.delta")
        assert any(event.type == "conversation.item.input_audio_transcription.completed" for event in events)

    talk(conversation, model=EchoModel(EchoConfig(audio_ticks=300)))


def test_turns_by_hand_and_what_is_done_with_items():
    async def conversation(connection):
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        await until(connection, "session.updated")
        await say(connection, tone(1.0, rate=RATE))
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        done = (await until(connection, "response.done"))[-1].response
        item = done.output[0]
        assert item.content[0].transcript == ANSWER and done.usage.total_tokens > 0
        await connection.conversation.item.retrieve(item_id=item.id)
        shown = (await until(connection, "conversation.item.retrieved"))[-1].item
        assert len(base64.b64decode(shown.content[0].audio)) == 28_800
        await connection.conversation.item.delete(item_id=item.id)
        assert (await until(connection, "conversation.item.deleted"))[-1].item_id == item.id
        await say(connection, tone(1.0, rate=RATE))
        await connection.input_audio_buffer.clear()
        await until(connection, "input_audio_buffer.cleared")
        await connection.input_audio_buffer.commit()
        error = await connection.recv()
        while error.type != "error":
            error = await connection.recv()
        assert error.error.code == "input_audio_buffer_commit_empty"

    talk(conversation)


def test_text_in_text_out_and_a_cancellation():
    async def conversation(connection):
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        content = [{"type": "input_text", "text": "Say hello!"}]
        await connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await connection.response.create()
        events = await until(connection, "response.done")
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == ANSWER
        await connection.response.create(response={"output_modalities": ["audio"], "metadata": {"n": "2"}})
        await until(connection, "response.output_audio.delta")
        await connection.response.cancel()
        done = (await until(connection, "response.done"))[-1].response
        assert done.status_details.reason == "client_cancelled" and done.metadata == {"n": "2"}
        await connection.response.create(response={"conversation": "none", "output_modalities": ["text"], "input": []})
        assert (await until(connection, "response.done"))[-1].response.output[0].content[0].text == ANSWER

    talk(conversation, model=EchoModel(EchoConfig(audio_ticks=60)))


def test_a_function_is_called():
    async def conversation(connection):
        await connection.session.update(session={"type": "realtime", "tools": [TOOL], "tool_choice": "auto"})
        await say(connection, tone(1.0, rate=RATE), silence(1.0))
        events = await until(connection, "response.done")
        (called,) = [event for event in events if event.type == "response.function_call_arguments.done"]
        assert json.loads(called.arguments)["heard"].startswith("sound") and called.name == "weather"
        output = {"type": "function_call_output", "call_id": called.call_id, "output": "Snow."}
        await connection.conversation.item.create(item=output)
        await connection.response.create()
        assert (await until(connection, "response.done"))[-1].response.output[0].content[0].transcript == ANSWER

    talk(conversation, router=router)


@pytest.mark.parametrize("kind", ["realtime", "transcription"])
def test_a_secret_is_made_and_used(kind):
    with served() as (address, _):
        urls = {"base_url": f"http://{address}/v1", "websocket_base_url": f"ws://{address}/v1"}
        secret = OpenAI(api_key="none", **urls).realtime.client_secrets.create(session={"type": kind})
        assert secret.session.type == kind
        with OpenAI(api_key=secret.value, **urls).realtime.connect(model="mini") as connection:
            assert connection.recv().session.type == kind
