// Whose turn it is: from presses, sounds and the server's events to what is sent, played and shown.

import { EVENTS, SILENCE } from "./events.js";
import { RATE } from "./sound.js";
import { Talker } from "./talker.js";

const TAP = 300; // ms: a shorter press is a tap, after which the next press ends the question
const BEFORE = 10; // blocks of 20 ms from before the press that belong to it: people speak as they press
const SHORTEST = 120; // ms of a question
const LONGEST = 55000; // ms of a question: a forgotten tap ends by itself
const PATIENCE = 40000; // ms for an answer to begin
const EXPECTED = ["response_cancel_not_active", "item_truncate_invalid_item_id"]; // races that harm nobody

/** A conversation by turns: the Realtime API. */
export class Conversation extends Talker {
  constructor(parts) {
    super(parts);
    this.free = this.muted = false; // hands-free; ... and not listening
    this.pressed = 0; // when the button went down, in ms
    this.reset();
  }

  /** Nothing is going on: a new session begins. */
  reset() {
    this.player?.clear();
    this.words?.last?.finish();
    clearTimeout(this.patience);
    clearTimeout(this.still);
    this.answers = new Map(); // response id: the answers that are made or played
    this.items = new Map(); // user item id: its turn
    this.turn = null;
    this.listening = this.latched = this.hearing = this.waiting = this.held = false;
    this.before = []; // blocks from before the press
    this.written = 0; // ms of audio that the session was sent
    this.writtenEnd = 0; // when the last of it was heard here
    this.silence = SILENCE;
  }

  get phase() {
    if (!this.line.open) return "off";
    if (this.listening || this.hearing) return "listening";
    if (this.held) return "paused";
    if (this.answers.size) return "answering";
    if (this.waiting) return "waiting";
    return this.free ? (this.muted ? "muted" : "free") : "idle";
  }

  // -- sound ----------------------------------------------------------------------------------------------------------

  lost() {
    if (this.listening) this.drop();
    this.setFree(false);
    super.lost();
  }

  block(block) {
    if (this.listening || (this.free && !this.muted && this.line.open)) return this.write(block);
    this.before.push(block);
    if (this.before.length > BEFORE) this.before.shift();
  }

  write(block) {
    if (!this.send("input_audio_buffer.append", block)) return;
    this.written += (block.pcm.length / RATE) * 1000;
    this.writtenEnd = block.end;
    if (this.listening && !this.free && this.asked() > LONGEST) this.ask();
  }

  // -- press and talk -------------------------------------------------------------------------------------------------

  async press() {
    if (this.pressed || this.starting) return;
    if (this.line.state === "resting") return this.line.dial();
    if (!this.line.open) return;
    if (this.free) return this.answers.size ? this.interrupt({ tell: true }) : this.mute(!this.muted);
    if (this.latched) return this.ask();
    if (this.listening) return; // the last question is on its way
    this.pressed = performance.now();
    this.tapped = false;
    this.starting = true;
    const ready = await this.start();
    this.starting = false;
    if (ready && this.line.open && (this.pressed || this.tapped)) {
      this.latched = this.tapped; // let go already
      return this.listen();
    }
    this.pressed = 0;
    this.view.refresh();
  }

  /** Makes it quiet, and hears. */
  async start() {
    this.cutting = this.answers.size > 0;
    if (this.cutting) {
      this.before = []; // the answer is in it
      await this.interrupt({ tell: true });
    }
    return this.hear();
  }

  listen() {
    this.listening = true;
    this.waiting = false;
    this.turn = this.words.begin();
    this.turn.heard("");
    this.turn.from = this.written;
    for (const block of this.before.splice(0)) this.write(block);
    this.view.refresh();
  }

  release() {
    const tapped = performance.now() - this.pressed < TAP;
    if (!this.pressed) return;
    this.pressed = 0;
    if (!this.listening) return void (this.tapped = tapped && !this.cutting);
    if (!tapped) return this.ask();
    if (this.cutting) return this.drop(); // it was meant to stop the answer
    this.latched = true;
    this.view.refresh();
  }

  asked() {
    return this.written - this.turn.from;
  }

  /** The question is complete. */
  async ask() {
    if (!this.listening || this.asking) return;
    this.asking = true;
    this.latched = false;
    const ended = performance.now(), { turn } = this;
    await this.microphone?.flush();
    this.asking = false;
    if (!this.listening || turn !== this.turn) return;
    if (this.asked() < SHORTEST) return this.drop();
    this.listening = false;
    turn.ended = ended;
    this.line.send({ type: "input_audio_buffer.commit" });
    this.line.send({ type: "response.create" });
    this.wait();
  }

  /** Forgets the question. */
  drop() {
    this.line.send({ type: "input_audio_buffer.clear" });
    this.listening = this.latched = false;
    this.turn?.drop();
    this.turn = null;
    this.view.glow(0);
    this.view.refresh();
  }

  /** Stops whatever is going on. */
  stop() {
    if (this.listening) this.drop();
    else if (this.answers.size) this.interrupt({ tell: true });
  }

  wait() {
    this.waiting = true;
    this.view.glow(0);
    this.view.refresh();
    clearTimeout(this.patience);
    this.patience = setTimeout(() => {
      if (!this.waiting) return;
      this.waiting = false;
      this.words.note("The server took the question and has not answered.", true);
      this.view.refresh();
    }, PATIENCE);
  }

  // -- hands-free -----------------------------------------------------------------------------------------------------

  async setFree(free) {
    if (free && !(await this.hear())) free = false;
    if (free !== this.free) {
      if (this.listening) this.drop();
      this.free = free;
      this.muted = this.hearing = false;
      this.configure();
    }
    this.view.refresh();
  }

  mute(muted) {
    this.muted = muted;
    if (muted) this.line.send({ type: "input_audio_buffer.clear" });
    if (muted) this.hearing = false;
    this.view.glow(0);
    this.view.refresh();
  }

  /** Tells the session how it is to be. */
  configure() {
    const input = { format: { type: "audio/pcm", rate: RATE }, transcription: { model: this.line.model.id } };
    input.turn_detection = this.free ? { type: "server_vad", silence_duration_ms: SILENCE } : null;
    const output = { format: { type: "audio/pcm", rate: RATE } };
    if (this.voice) output.voice = this.voice;
    const session = { type: "realtime", audio: { input, output } };
    const offered = this.offered?.omega;
    if (offered && this.omega !== null) {
      session.duologue = { omega: Math.min(offered.max, Math.max(offered.min, Number(this.omega))) };
    }
    this.line.send({ type: "session.update", session });
  }

  // -- answers --------------------------------------------------------------------------------------------------------

  /** Cuts short what is made and played. `tell`: the server does not know yet. */
  async interrupt({ tell = false } = {}) {
    const cut = [...this.answers.values()];
    if (!cut.length) return;
    this.answers.clear(); // what still comes of them finds nobody
    clearTimeout(this.still);
    this.held = false;
    this.view.refresh();
    const { id, heard } = await this.player.clear();
    for (const answer of cut) {
      const ms = Math.min(answer.id === id ? heard : 0, Math.floor((answer.samples / RATE) * 1000));
      if (answer.item && answer.samples) this.line.send({ type: "conversation.item.truncate", item_id: answer.item, content_index: 0, audio_end_ms: ms });
      if (tell && !answer.done) this.line.send({ type: "response.cancel", response_id: answer.id }); // after how much was heard
      answer.turn.number("", ms < 100 ? "interrupted before a word" : `interrupted after ${(ms / 1000).toFixed(1)} s`);
      answer.turn.finish(true);
    }
    this.view.glow(0);
    this.view.refresh();
  }

  audible(id, at) {
    const answer = this.answers.get(id);
    if (!answer || answer.turn.ended === null) return;
    const { ended } = answer.turn, silence = answer.turn.silence;
    const title = "from the end of your words to the first sound out of the loudspeaker" + (silence ? `, the ${silence} ms of silence that end a turn included` : "");
    answer.turn.number(`${Math.round(at - ended)} ms`, "to first sound, heard here", title);
    answer.turn.ended = null; // once
    this.waves.mark(ended, at);
  }

  drained(id) {
    const answer = this.answers.get(id);
    if (!answer) return;
    this.answers.delete(id);
    this.view.announce(answer.turn.said);
    this.view.glow(0);
    this.view.refresh();
  }

  /** When a place in the session's audio was heard here, in ms. */
  moment(ms) {
    return this.writtenEnd - (this.written - ms);
  }

  take(event) {
    EVENTS[event.type]?.(this, event);
  }

  goOn() {
    clearTimeout(this.still);
    if (!this.held) return;
    this.held = false;
    this.player?.go();
    this.view.refresh();
  }

  done({ id, status, status_details: details }) {
    const answer = this.answers.get(id);
    if (!answer) return;
    answer.done = true;
    answer.turn.finish(status === "cancelled");
    if (status === "failed") this.words.note(details?.error?.message ?? "The answer failed.", true);
    if (answer.samples) return this.player.end(id);
    this.answers.delete(id);
    if (status === "completed" && !answer.turn.said) {
      if (!answer.turn.asked || answer.turn.asked === "…") answer.turn.drop();
      this.words.note("I heard no speech in that.");
    }
    this.view.refresh();
  }

  refused({ code, message }) {
    if (EXPECTED.includes(code)) return;
    if (code === "session_idle") return this.line.rest("Nobody spoke for a while.");
    this.waiting = false;
    if (this.turn?.blank && !this.listening && !this.hearing) this.turn.drop();
    if (code === "input_audio_buffer_commit_empty") this.words.note("I heard no speech in that.");
    else this.words.note(message ?? "The server did not understand this page.", true);
    this.view.refresh();
  }
}
