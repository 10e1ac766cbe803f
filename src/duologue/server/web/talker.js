// What every conversation does with sound: the microphone to the server, the answer to the loudspeaker, both seen and kept.

import { toBase64 } from "./connection.js";
import { Microphone, Player, RATE, Trouble } from "./sound.js";
import { recall, remember } from "./store.js";

/** `view` shows: refresh(), glow(level), trouble(error or null), diagnostics(state), announce(text). */
export class Talker {
  constructor(parts) {
    Object.assign(this, parts); // line, words, waves, recording, view
    this.voice = recall("voice");
    this.omega = recall("omega");
  }

  /** Opens loudspeaker and microphone, once. Returns whether they are there. */
  async hear() {
    this.opening ??= this.open();
    try {
      await this.opening;
      this.view.trouble(null);
      return true;
    } catch (error) {
      this.shut();
      this.view.trouble(error instanceof Trouble ? error : new Trouble("The sound cannot be used", error.message));
      return false;
    }
  }

  async open() {
    this.player ??= await Player.open({
      played: report => this.played(report),
      audible: (id, at) => this.audible(id, at),
      drained: id => this.drained(id),
    });
    this.player.context.resume(); // while the press counts as leave to
    this.microphone = await Microphone.open(recall("microphone"), this.player.context, {
      block: block => this.block(block),
      lost: () => this.lost(),
    });
    await this.player.resume();
    this.view.refresh();
  }

  async choose(deviceId) {
    remember("microphone", deviceId);
    if (!this.microphone) return;
    this.shut();
    await this.hear();
  }

  shut() {
    this.microphone?.close();
    this.microphone = this.opening = null;
  }

  lost() {
    this.shut();
    this.view.trouble(new Trouble("The microphone is gone", "It was unplugged or taken away. Plug it in or choose another, then try again."));
  }

  /** Sends a block of the microphone as events of this type. Returns whether it went out. */
  send(type, { pcm, end }) {
    this.view.glow(loudest(pcm));
    if (!this.line.send({ type, audio: toBase64(pcm) })) {
      if (this.line.open) this.words.note("The line to the server is too slow for your voice; some of it was lost.", true);
      return false;
    }
    this.waves.add("you", pcm, end);
    this.recording.add("you", pcm, end);
    return true;
  }

  audible() {}
  drained() {}

  played({ pcm, rate, end, state }) {
    this.waves.add("it", pcm, end, rate);
    this.recording.add("it", rate === RATE ? pcm : thinned(pcm, rate), end);
    if (this.phase !== "listening") this.view.glow(loudest(pcm));
    this.view.diagnostics(state);
  }
}

function loudest(pcm) {
  return pcm.reduce((most, value) => Math.max(most, Math.abs(value)), 0) / 32768;
}

/** Samples at the recording's rate, where the loudspeaker has its own: good enough to be kept. */
function thinned(pcm, rate) {
  return Int16Array.from({ length: Math.round((pcm.length * RATE) / rate) }, (_, i) => pcm[Math.min(pcm.length - 1, Math.round((i * rate) / RATE))]);
}
