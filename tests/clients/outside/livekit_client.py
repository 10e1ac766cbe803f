"""livekit-plugins-openai's RealtimeModel: a barge-in, a function, replies on request, cutting and deleting."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from livekit import rtc
from livekit.agents import function_tool, llm, utils
from livekit.plugins import openai

RATE, BLOCK = 24_000, 480


async def say(session, seconds: float, level: float) -> None:
    tone = (level * 32_767 * np.sin(2 * np.pi * 300 * np.arange(BLOCK) / RATE)).astype(np.int16).tobytes()
    for _ in range(int(seconds * RATE / BLOCK)):
        session.push_audio(rtc.AudioFrame(tone, RATE, 1, BLOCK))
        await asyncio.sleep(BLOCK / RATE)


async def talk(address: str) -> None:
    model = openai.realtime.RealtimeModel(base_url=f"http://{address}/v1", api_key="none", model="mini")
    session, heard, messages, calls, errors, tasks = model.session(), [], [], [], [], []

    @function_tool
    async def weather(city: str) -> str:
        """The weather."""
        return "Snow"

    async def consume(generation) -> None:
        async for message in generation.message_stream:
            text = "".join([str(piece) async for piece in message.text_stream])
            samples = sum([frame.samples_per_channel async for frame in message.audio_stream])
            messages.append((message.message_id, text, samples))
        async for call in generation.function_stream:
            calls.append(call)

    session.on("generation_created", lambda event: tasks.append(asyncio.create_task(consume(event))))
    session.on("input_speech_started", lambda event: session.interrupt())
    session.on(
        "input_audio_transcription_completed", lambda event: heard.append(event.transcript) if event.is_final else None
    )
    session.on("error", errors.append)
    await session.update_instructions("Be brief.")
    await session.update_tools([weather])
    for seconds, level in ((1.0, 0.3), (2.0, 0), (0.6, 0.3), (2.5, 0)):
        await say(session, seconds, level)
    assert len(heard) == 2 and heard[0].endswith("turn 1") and len(messages) == 1, (heard, messages)
    assert [call.name for call in calls] == ["weather"]
    context = session.chat_ctx.copy()
    context.items.append(
        llm.FunctionCallOutput(call_id=calls[0].call_id, name="weather", output="Snow", is_error=False)
    )
    await session.update_chat_ctx(context)
    await asyncio.wait_for(session.generate_reply(), 10)
    await asyncio.sleep(2.5)
    context = session.chat_ctx.copy()
    context.add_message(role="user", content="What now?")
    await session.update_chat_ctx(context)
    await asyncio.wait_for(session.generate_reply(instructions="Be kind."), 10)
    await asyncio.sleep(2.5)
    assert len(messages) == 3 and all(samples > RATE for _, _, samples in messages)
    session.truncate(message_id=messages[-1][0], modalities=["audio", "text"], audio_end_ms=300)
    session.interrupt()
    context = session.chat_ctx.copy()
    context.items = context.items[2:]
    await session.update_chat_ctx(context)
    assert not errors, errors
    await session.aclose()


async def main() -> None:
    async with utils.http_context.open():
        await talk(sys.argv[1])


asyncio.run(main())
print("livekit: good")
