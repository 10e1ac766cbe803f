// What each of the server's events does to the conversation.

import { fromBase64 } from "./connection.js";

export const SILENCE = 500; // ms of silence that end a turn, hands-free
const STILL = 5000; // ms that an answer stands still for somebody who speaks over it
const MEMORY = 10; // turns that a new session is told about

export const EVENTS = {
  "session.created": (talk, { session }) => {
    talk.reset();
    talk.offered = session.duologue ?? null; // what the server has beyond the protocol
    talk.given = session.audio?.output?.voice;
    talk.configure();
    for (const [role, text] of talk.words.history.slice(-2 * MEMORY)) {
      const content = [{ type: role === "user" ? "input_text" : "output_text", text }];
      talk.line.send({ type: "conversation.item.create", item: { type: "message", role, content } });
    }
  },
  "session.updated": (talk, { session }) => {
    talk.silence = session.audio?.input?.turn_detection?.silence_duration_ms ?? SILENCE;
  },
  "input_audio_buffer.speech_started": (talk, { item_id }) => {
    if (!talk.free) return;
    talk.interrupt();
    talk.turn = talk.words.begin();
    talk.turn.heard("");
    talk.items.set(item_id, talk.turn);
    talk.hearing = true;
    talk.view.refresh();
  },
  "input_audio_buffer.speech_stopped": (talk, { item_id, audio_end_ms }) => {
    const turn = talk.items.get(item_id);
    if (!turn) return;
    turn.ended = talk.moment(audio_end_ms - talk.silence);
    turn.silence = talk.silence;
    talk.hearing = false;
    talk.wait();
  },
  "input_audio_buffer.committed": (talk, { item_id }) => {
    if (talk.turn && !talk.items.has(item_id)) talk.items.set(item_id, talk.turn);
    while (talk.items.size > 50) talk.items.delete(talk.items.keys().next().value);
  },
  "conversation.item.input_audio_transcription.delta": (talk, { item_id, delta }) => {
    (talk.items.get(item_id) ?? (talk.listening ? talk.turn : null))?.heard(delta ?? "");
  },
  "conversation.item.input_audio_transcription.completed": (talk, { item_id, transcript }) => {
    const turn = talk.items.get(item_id);
    turn?.heard(transcript.trim() || "…", { final: true });
    turn?.hush();
    if (turn && transcript.trim()) talk.view.announce(`You: ${transcript}`);
  },
  "conversation.item.input_audio_transcription.failed": (talk, { item_id }) => talk.items.get(item_id)?.hush(),
  "response.created": (talk, { response }) => {
    talk.waiting = false;
    talk.hearing = false;
    const asked = [...talk.items.values(), talk.turn].findLast(turn => turn && turn.ended !== null && !turn.taken);
    const turn = asked ?? talk.words.begin(); // an alarm asks nobody
    turn.taken = true;
    talk.answers.set(response.id, { id: response.id, turn, item: null, samples: 0, done: false });
    talk.view.refresh();
  },
  "response.output_item.added": (talk, { response_id, item }) => {
    const answer = talk.answers.get(response_id);
    if (answer && item.type === "message") answer.item = item.id;
  },
  "response.output_audio.delta": (talk, { response_id, delta }) => {
    const answer = talk.answers.get(response_id);
    if (!answer || !talk.player) return;
    const pcm = fromBase64(delta);
    answer.samples += pcm.length;
    talk.player.push(response_id, pcm);
  },
  "response.output_audio.done": (talk, { response_id }) => talk.player?.end(response_id),
  "response.output_audio_transcript.delta": (talk, { response_id, delta }) => talk.answers.get(response_id)?.turn.says(delta),
  "response.output_text.delta": (talk, { response_id, delta }) => talk.answers.get(response_id)?.turn.says(delta),
  "response.done": (talk, { response }) => talk.done(response),
  "duologue.paused": (talk) => {
    if (!talk.answers.size) return;
    talk.held = true;
    talk.player?.hold();
    clearTimeout(talk.still);
    talk.still = setTimeout(() => talk.goOn(), STILL);
    talk.view.refresh();
  },
  "duologue.resumed": (talk) => talk.goOn(),
  "duologue.metrics": (talk, { response_id, first_audio_ms, audio_seconds, real_time_factor }) => {
    const turn = talk.answers.get(response_id)?.turn;
    if (turn && first_audio_ms >= 1) turn.number(`${Math.round(first_audio_ms)} ms`, "in the model");
    else if (turn && first_audio_ms != null) turn.number("", "made in your pause", "the answer was ready when it was clear that you had finished");
    if (turn && real_time_factor != null) turn.number("", `${audio_seconds.toFixed(1)} s · ${real_time_factor.toFixed(2)}× real time`, "seconds of speech, and the time it took to make one of them");
  },
  error: (talk, { error }) => talk.refused(error),
};
