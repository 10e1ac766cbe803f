"""pipecat's OpenAIRealtimeLLMService: a written question, spoken turns, barge-ins, a function."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
from pipecat.adapters.schemas.function_schema import FunctionSchema
from pipecat.adapters.schemas.tools_schema import ToolsSchema
from pipecat.frames.frames import EndFrame, ErrorFrame, InputAudioRawFrame, InterruptionFrame, LLMRunFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.runner import PipelineRunner
from pipecat.pipeline.task import PipelineParams, PipelineTask
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService

RATE, BLOCK = 24_000, 480
seen: list = []


class Tap(FrameProcessor):
    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        if isinstance(frame, (ErrorFrame, InterruptionFrame)):
            seen.append(frame)
        await self.push_frame(frame, direction)


async def weather(params) -> None:
    seen.append(dict(params.arguments))
    await params.result_callback({"weather": "Snow"})


async def drive(task) -> None:
    await asyncio.sleep(1)
    await task.queue_frame(LLMRunFrame())
    for seconds, level in ((1.0, 0), (1.0, 0.3), (2.0, 0), (0.6, 0.3), (3.0, 0), (0.6, 0.3), (3.0, 0)):
        tone = (level * 32_767 * np.sin(2 * np.pi * 300 * np.arange(BLOCK) / RATE)).astype(np.int16).tobytes()
        for _ in range(int(seconds * RATE / BLOCK)):
            await task.queue_frame(InputAudioRawFrame(tone, RATE, 1))
            await asyncio.sleep(BLOCK / RATE)
    await task.queue_frame(EndFrame())


async def main() -> None:
    incoming = events.AudioInput(
        transcription=events.InputAudioTranscription(), turn_detection=events.TurnDetection(type="server_vad")
    )
    properties = events.SessionProperties(instructions="Be brief.", audio=events.AudioConfiguration(input=incoming))
    settings = OpenAIRealtimeLLMService.Settings(model="mini", session_properties=properties)
    service = OpenAIRealtimeLLMService(api_key="none", base_url=f"ws://{sys.argv[1]}/v1/realtime", settings=settings)
    service.register_function("weather", weather)
    function = FunctionSchema(
        name="weather", description="The weather.", properties={"city": {"type": "string"}}, required=["city"]
    )
    context = LLMContext([{"role": "user", "content": "Hello"}], ToolsSchema(standard_tools=[function]))
    both = LLMContextAggregatorPair(context)
    task = PipelineTask(
        Pipeline([Tap(), both.user(), service, Tap(), both.assistant()]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=RATE),
    )
    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), drive(task))
    roles = [message["role"] for message in context.get_messages()]
    assert roles == [
        "user",
        "assistant",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert {"city": "Oslo"} in seen and any(isinstance(each, InterruptionFrame) for each in seen)
    assert not [each for each in seen if isinstance(each, ErrorFrame)]


asyncio.run(main())
print("pipecat: good")
