// The microphone and the loudspeaker, on the page's own time line (milliseconds of performance.now()).

export const RATE = 24000; // Hz, 16-bit mono, everywhere outside the worklets

const WORKLETS = new URL("worklets.js", import.meta.url);

/** What keeps the page from hearing, as {title, text, retry}. */
export class Trouble extends Error {
  constructor(title, text, { retry = true } = {}) {
    super(text);
    Object.assign(this, { title, text, retry });
  }
}

/** Maps the seconds of an audio context to the page's milliseconds. */
class Clock {
  constructor(context) {
    this.context = context;
  }

  at(seconds) {
    const now = performance.now() - this.context.currentTime * 1000;
    const jumped = this.offset === undefined || Math.abs(now - this.offset) > 250; // it was suspended
    this.offset = jumped ? now : Math.min(now, this.offset + 0.02); // messages come late, never early; clocks drift
    return this.offset + seconds * 1000;
  }
}

async function open(rate) {
  let context;
  try {
    context = new AudioContext({ sampleRate: rate, latencyHint: "interactive" });
  } catch {
    context = new AudioContext({ latencyHint: "interactive" }); // the worklets resample
  }
  if (!context.audioWorklet) throw new Trouble("This browser is too old", "It has no AudioWorklet. Use a current Chromium, Firefox or Safari.", { retry: false });
  await context.audioWorklet.addModule(WORKLETS);
  return context;
}

/** Plays answers. `on.played({pcm, end, state})`, `on.audible(id, at)`, `on.drained(id)`; times in milliseconds. */
export class Player {
  static async open(on) {
    const player = new Player();
    player.context = await open(RATE);
    player.clock = new Clock(player.context);
    player.node = new AudioWorkletNode(player.context, "playback", { numberOfInputs: 0, outputChannelCount: [1] });
    player.node.connect(player.context.destination);
    player.node.port.onmessage = ({ data }) => player.take(data, on);
    player.tickets = new Map();
    player.ticket = 0;
    return player;
  }

  take(data, on) {
    if (data.pcm) on.played({ ...data, end: this.clock.at(data.end) + this.latency });
    else if (data.audible) on.audible(data.audible, this.clock.at(data.at) + this.latency);
    else if (data.drained) on.drained(data.drained);
    else if ("cleared" in data) this.tickets.get(data.cleared)?.(data);
  }

  /** Milliseconds from the worklet to the ear, as far as the browser knows. */
  get latency() {
    return 1000 * (this.context.outputLatency || this.context.baseLatency || 0);
  }

  push(id, pcm) { this.node.port.postMessage({ push: pcm, id }, [pcm.buffer]); }
  /** More of a sound that has no end: what waits for too long is left out, silence first. */
  flow(id, pcm) { this.node.port.postMessage({ push: pcm, id, flows: true }, [pcm.buffer]); }
  end(id) { this.node.port.postMessage({ end: id }); }
  hold() { this.node.port.postMessage({ hold: true }); }
  go() { this.node.port.postMessage({ go: true }); }

  /** Silences what sounds. Returns which answer that was, and how many milliseconds of it were heard. */
  async clear() {
    const ticket = ++this.ticket;
    const cleared = new Promise(done => this.tickets.set(ticket, done));
    this.node.port.postMessage({ clear: ticket });
    const late = new Promise(done => setTimeout(done, 300, { id: null, played: 0 }));
    const { id, played } = await Promise.race([cleared, late]);
    this.tickets.delete(ticket);
    return { id, heard: Math.max(0, Math.floor(played / (RATE / 1000) - this.latency)) };
  }

  /** Wakes the loudspeaker. Without one, browsers wait for it for ever. */
  async resume() {
    const silent = new Trouble("There is no loudspeaker", "The browser found nothing to play sound with. Plug something in or choose an output in the system's settings, then try again.");
    await Promise.race([this.context.resume(), new Promise((_, fail) => setTimeout(fail, 4000, silent))]);
  }
}

/** Hears the microphone. `on.block({pcm, end})`, `on.lost()`. */
export class Microphone {
  /** @param shared the player's context, where the browser lets a microphone into it */
  static async open(deviceId, shared, on) {
    if (!window.isSecureContext || !navigator.mediaDevices?.getUserMedia) throw insecure();
    const microphone = new Microphone();
    microphone.stream = await ask(deviceId);
    microphone.track = microphone.stream.getAudioTracks()[0];
    microphone.track.onended = () => on.lost();
    try {
      await microphone.connect(shared, on);
    } catch (error) {
      microphone.close();
      throw error;
    }
    return microphone;
  }

  async connect(shared, on) {
    let context = shared, source;
    try {
      source = context.createMediaStreamSource(this.stream);
    } catch { // Firefox: a microphone keeps its own rate
      context = this.own = await open(undefined);
      source = context.createMediaStreamSource(this.stream);
    }
    const clock = new Clock(context);
    this.context = context;
    this.source = source;
    this.node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.node.port.onmessage = ({ data }) => {
      if ("flushed" in data) this.flushed?.();
      else if (data.pcm.length) on.block({ pcm: data.pcm, end: clock.at(data.end) });
    };
    source.connect(this.node);
    context.resume();
  }

  get deviceId() { return this.track.getSettings().deviceId; }
  get label() { return this.track.label; }

  /** Has what was heard up to now handed on. */
  async flush() {
    const flushed = new Promise(done => (this.flushed = done));
    this.node.port.postMessage(0);
    await Promise.race([flushed, new Promise(done => setTimeout(done, 200))]);
  }

  close() {
    this.source?.disconnect();
    this.node?.port.close();
    this.own?.close();
    this.track.onended = null;
    for (const track of this.stream.getTracks()) track.stop();
  }
}

async function ask(deviceId) {
  const audio = { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true };
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: deviceId ? { ...audio, deviceId: { exact: deviceId } } : audio });
  } catch (error) {
    if (deviceId && ["OverconstrainedError", "NotFoundError"].includes(error.name)) return ask(null); // it was unplugged
    throw explained(error);
  }
}

export function insecure() {
  const there = `https://${location.host}`;
  return new Trouble(
    "The microphone needs https or localhost",
    `Browsers give a page the microphone only over https or from this very computer, and this page came from ${location.origin}. ` +
      `Start the server with --tls and open ${there}, or reach it through a tunnel (ssh -L 8998:localhost:8998 …) as http://localhost:8998.`,
    { retry: false },
  );
}

function explained(error) {
  const { name, message } = error;
  if (name === "NotAllowedError" && /system/i.test(message))
    return new Trouble("The system keeps the microphone from the browser", "Allow this browser to use it in the system's privacy settings, then try again.");
  if (name === "NotAllowedError" && /dismiss/i.test(message))
    return new Trouble("The microphone was not allowed yet", "The browser asked and got no answer. Try again and choose “Allow”.");
  if (name === "NotAllowedError" || name === "SecurityError")
    return new Trouble("The microphone is not allowed for this page", "Click the sign left of the address, allow the microphone, then try again.");
  if (name === "NotFoundError" || name === "OverconstrainedError")
    return new Trouble("There is no microphone", "Plug one in or switch it on, then try again.");
  if (name === "NotReadableError" || name === "AbortError")
    return new Trouble("The microphone is taken", "Another program or tab holds it, or it stopped working. Close that one, then try again.");
  return new Trouble("The microphone cannot be used", `${name}: ${message}`);
}
