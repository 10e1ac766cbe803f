// A conversation without turns: both speak whenever they want, and what the model thinks is seen as it runs. The Live API.

import { fromBase64 } from "./connection.js";
import { Talker } from "./talker.js";

const PAUSE = 1500; // ms without a word, after which the next begins a line of its own
const STREAM = "live"; // all that it says is one sound

export class Duplex extends Talker {
  constructor(parts) {
    super(parts);
    this.free = this.latched = false; // there is nothing to switch, and nothing to press
    this.reset();
  }

  reset() {
    this.player?.clear();
    this.words?.last?.finish();
    this.muted = false;
    this.last = { you: -Infinity, it: -Infinity }; // when the last word of each came, in ms
    this.ahead = 0; // seconds of its sound that wait to be played
  }

  get phase() {
    if (!this.line.open) return "off";
    return this.muted ? "muted" : "free";
  }

  /** The first press begins the conversation: from then on both are heard. */
  async press() {
    if (this.starting) return;
    if (this.line.open) return this.mute(!this.muted);
    if (this.line.state !== "resting") return;
    this.starting = true;
    const ready = await this.hear();
    this.starting = false;
    if (ready) this.line.begin();
  }

  release() {}

  /** Nothing can be done by turns here; only what was on ends. */
  setFree(free) {
    if (!free) this.shut();
  }

  stop() {
    if (this.line.open) this.line.rest("You have hung up.");
  }

  configure() {}

  mute(muted) {
    this.muted = muted;
    this.line.send({ type: muted ? "session.input_audio.mute" : "session.input_audio.unmute" });
    this.view.glow(0);
    this.view.refresh();
  }

  lost() {
    this.line.rest("The microphone is gone.");
    super.lost();
  }

  block(block) {
    if (this.line.open && !this.muted) this.send("session.input_audio.append", block);
  }

  played(report) {
    this.ahead = report.state.buffered;
    super.played(report);
  }

  /** Where words stand that are said now, by "you" or "it": with those before, but after a pause in a line of their own. */
  turn(who) {
    const turn = this.words.last, now = performance.now(), goesOn = now - this.last[who] < PAUSE;
    this.last[who] = now;
    if (turn?.live && (goesOn || (who === "it" ? !turn.said : turn.blank))) return turn;
    turn?.finish();
    return Object.assign(this.words.begin(), { live: true });
  }

  take(event) {
    EVENTS[event.type]?.(this, event);
  }
}

const EVENTS = {
  "session.started": talk => {
    talk.reset();
    talk.view.refresh();
  },
  "session.output_audio.delta": (talk, { delta }) => talk.player?.flow(STREAM, fromBase64(delta)),
  "session.output_transcript.delta": (talk, { delta }) => {
    const sounds = performance.now() + talk.ahead * 1000 + (talk.player?.latency ?? 0);
    talk.waves.say(delta, sounds);
    const turn = talk.turn("it");
    turn.says(turn.said ? delta : delta.trimStart());
    clearTimeout(talk.over);
    talk.over = setTimeout(() => {
      turn.finish();
      talk.view.announce(turn.said);
    }, PAUSE);
  },
  "session.input_transcript.delta": (talk, { delta }) => {
    const turn = talk.turn("you");
    turn.heard(turn.asked ? delta : delta.trimStart());
  },
  "session.closed": (talk, { reason }) => {
    if (reason === "expired") talk.line.rest("The conversation has reached its longest time.");
  },
  info: (talk, { message }) => talk.words.note(message),
  error: (talk, { error: { code, message } }) => {
    if (code === "session_idle") return talk.line.rest("Nothing was heard for a while.");
    talk.words.note(message ?? "The server did not understand this page.", true);
  },
};
