// @openai/agents-realtime over its stock WebSocket: a barge-in, a function, text, an interruption.
import assert from 'node:assert';
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';

const RATE = 24000, BLOCK = 1920;
const cities = [], seen = [];
const weather = tool({
  name: 'weather', description: 'The weather.', parameters: z.object({ city: z.string() }),
  execute: async ({ city }) => { cities.push(city); return 'Snow'; },
});
const agent = new RealtimeAgent({ name: 'mini', instructions: 'Be brief.', tools: [weather] });
const transport = new OpenAIRealtimeWebSocket({
  url: `ws://${process.argv[2]}/v1/realtime?model=mini`, useInsecureApiKey: true,
});
const config = { audio: { input: { transcription: { model: 'whisper-1' } } } };
const session = new RealtimeSession(agent, { transport, model: 'mini', config });
let bytes = 0, interruptions = 0;
session.on('audio', (event) => { bytes += event.data.byteLength; });
session.on('audio_interrupted', () => { interruptions++; });
session.on('transport_event', (event) => { seen.push(event.type); });
session.on('error', (event) => { throw new Error(JSON.stringify(event)); });
await session.connect({ apiKey: 'none' });

async function say(seconds, level) {
  const tone = Int16Array.from({ length: BLOCK }, (_, n) => level * 32767 * Math.sin(2 * Math.PI * 300 * n / RATE));
  for (let at = 0; at < seconds; at += BLOCK / RATE) {
    session.sendAudio(tone.buffer);
    await new Promise((done) => setTimeout(done, 1000 * BLOCK / RATE));
  }
}
for (const [seconds, level] of [[1.0, 0.3], [1.6, 0], [0.6, 0.3], [3.0, 0]]) await say(seconds, level);
session.sendMessage('Hello in text');
await say(2.0, 0);
session.interrupt();
await say(1.0, 0);
const roles = session.history.map((item) => item.role ?? item.type);
assert.deepEqual(roles, ['user', 'assistant', 'user', 'function_call', 'assistant', 'user', 'assistant']);
assert.deepEqual(cities, ['Oslo']);
assert(bytes > 3 * RATE && interruptions >= 2 && !seen.includes('error') && seen.includes('conversation.item.truncated'));
console.log('agents: good');
process.exit(0);
