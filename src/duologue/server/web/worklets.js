// What runs on the audio thread: the microphone's samples out, the answer's samples in.
// Everything outside is 16-bit mono at 24 kHz; a context at another rate is resampled here.

const RATE = 24000; // Hz on the wire
const BLOCK = 480; // samples of the microphone that are handed on at once: 20 ms
const REPORT = 512; // frames between two reports of what is played
const LEAST = 0.04, MOST = 0.6; // seconds that the jitter buffer may wait for before it plays
const LONGEST = 330 * RATE; // samples that may wait to be played
const AHEAD = 0.1, FAR = 0.5; // seconds beyond the target from which silence, and anything, of an endless sound is left out
const QUIET = 3e-3; // -50 dB
const AUDIBLE = 1e-3; // -60 dB: from here on a sample counts as sound

/** Resamples a stream by a windowed sinc, one phase of it for each place that an output can have between two inputs. */
class Resampler {
  constructor(from, to) {
    let divisor = from;
    for (let rest = to; rest; ) [divisor, rest] = [rest, divisor % rest];
    this.up = to / divisor;
    this.down = from / divisor; // output k stands at input k * down / up
    const cutoff = 0.94 * Math.min(1, to / from);
    this.half = Math.ceil(16 / cutoff);
    this.kernels = Array.from({ length: this.up }, (_, phase) => this.kernel(phase / this.up, cutoff));
    this.rest = new Float32Array(this.half - 1);
    this.phase = 0;
    this.skip = 0; // inputs to leave out before the next output
  }

  kernel(offset, cutoff) {
    const taps = new Float32Array(2 * this.half);
    let sum = 0;
    for (let tap = 0; tap < taps.length; tap++) {
      const x = tap - this.half + 1 - offset, at = x / this.half;
      const sinc = x === 0 ? 1 : Math.sin(Math.PI * cutoff * x) / (Math.PI * cutoff * x);
      const blackman = Math.abs(at) >= 1 ? 0 : 0.42 + 0.5 * Math.cos(Math.PI * at) + 0.08 * Math.cos(2 * Math.PI * at);
      sum += taps[tap] = sinc * blackman;
    }
    return taps.map(value => value / sum);
  }

  push(samples) {
    const all = new Float32Array(this.rest.length + samples.length);
    all.set(this.rest);
    all.set(samples, this.rest.length);
    const made = [], width = 2 * this.half;
    let begin = this.skip;
    while (begin + width <= all.length) {
      const taps = this.kernels[this.phase];
      let value = 0;
      for (let tap = 0; tap < width; tap++) value += taps[tap] * all[begin + tap];
      made.push(value);
      this.phase += this.down;
      begin += Math.floor(this.phase / this.up);
      this.phase %= this.up;
    }
    this.rest = all.slice(Math.min(begin, all.length));
    this.skip = Math.max(0, begin - all.length);
    return made;
  }
}

const pcm16 = value => Math.round(Math.max(-1, Math.min(1, value)) * 32767);

/** The microphone: posts {pcm, end}, `end` in seconds of the context's clock. Any message flushes the block. */
class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = sampleRate === RATE ? null : new Resampler(sampleRate, RATE);
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
    this.port.onmessage = ({ data }) => {
      this.post();
      this.port.postMessage({ flushed: data });
    };
  }

  process([input]) {
    const heard = input[0];
    if (!heard) return true;
    for (const value of this.resampler ? this.resampler.push(heard) : heard) {
      this.block[this.filled++] = pcm16(value);
      if (this.filled === BLOCK) this.post();
    }
    return true;
  }

  post() {
    const pcm = this.block.slice(0, this.filled);
    this.filled = 0;
    this.port.postMessage({ pcm, end: currentTime + 128 / sampleRate }, [pcm.buffer]);
  }
}

/**
 * The loudspeaker: a queue of answers, each a queue of pieces, behind a jitter buffer.
 *
 * It plays once `target` seconds are there (or the whole answer is). Where the sound runs dry and more of the same
 * answer comes later, the target grows by what was missing; each answer without such a gap takes a tenth off it.
 * Takes {push: Int16Array, id, flows}, {end: id}, {hold}, {go}, {clear: ticket}. What was played of an answer is counted in
 * samples at 24 kHz.
 */
class Playback extends AudioWorkletProcessor {
  constructor() {
    super();
    this.answers = [];
    this.gain = 0; // moves to 1 while something is to sound and to 0 while it is not, so that nothing clicks
    this.level = 0; // the last sample that went out
    this.held = false;
    this.dry = true; // nothing sounds until enough is there
    this.target = 0.06;
    this.calm = true; // no gap in this answer so far
    this.gaps = 0;
    this.clearing = null;
    this.waiting = 0; // samples, of all answers
    this.report = new Int16Array(REPORT);
    this.reported = 0;
    this.port.onmessage = ({ data }) => this.take(data);
  }

  take(message) {
    if (message.push) {
      this.push(message.id, message.push);
      if (message.flows) this.catchUp(this.answers[this.answers.length - 1]);
    }
    else if (message.end) for (const answer of this.answers) answer.ended ||= answer.id === message.end;
    else if (message.hold) this.held = true;
    else if (message.go) this.held = false;
    else if ("clear" in message) this.clearing = message.clear;
  }

  push(id, pcm) {
    if (this.waiting + pcm.length > LONGEST) return;
    let answer = this.answers[this.answers.length - 1];
    if (answer?.id !== id) {
      const resampler = sampleRate === RATE ? null : new Resampler(RATE, sampleRate);
      this.answers.push((answer = { id, resampler, pieces: [], at: 0, left: 0, played: 0, ended: false, audible: false, since: currentTime, dryAt: null }));
    }
    const samples = Float32Array.from(pcm, value => value / 32768);
    const piece = answer.resampler ? Float32Array.from(answer.resampler.push(samples)) : samples;
    if (answer.dryAt !== null) this.late(answer);
    answer.pieces.push(piece);
    answer.left += piece.length;
    this.waiting += piece.length;
  }

  /** Leaves out what waits beyond the target: silence soon, sound only where much waits. */
  catchUp(answer) {
    const most = extra => (this.target + extra) * sampleRate;
    const quiet = piece => piece.every(value => Math.abs(value) < QUIET);
    for (let i = answer.pieces.length - 1; i > 0 && answer.left > most(AHEAD); i--) {
      if (answer.left < most(FAR) && !quiet(answer.pieces[i])) continue;
      const [piece] = answer.pieces.splice(i, 1);
      answer.left -= piece.length;
      this.waiting -= piece.length;
    }
  }

  late(answer) { // the loudspeaker has waited for this
    const gap = currentTime - answer.dryAt;
    answer.dryAt = null;
    answer.since = currentTime;
    this.gaps++;
    this.calm = false;
    this.target = Math.min(MOST, Math.max(this.target * 1.5, this.target + gap));
  }

  /** Whether the first answer may sound now. */
  flows(answer) {
    if (!answer || this.held || this.clearing !== null) return false;
    if (!this.dry) return true;
    const enough = answer.ended || answer.left >= this.target * sampleRate || currentTime - answer.since > this.target + 0.1;
    if (answer.left && enough) this.dry = false;
    return !this.dry;
  }

  process(_, [[out]]) {
    const answer = this.answers[0];
    const flows = this.flows(answer), step = 1 / (0.005 * sampleRate);
    for (let i = 0; i < out.length; i++) {
      this.gain = Math.max(0, Math.min(1, this.gain + (flows ? step : -step)));
      const sounds = answer?.pieces.length && this.gain > 0 && !this.dry;
      this.level = sounds ? this.next(answer, i) * this.gain : Math.abs(this.level) < 1e-5 ? 0 : this.level * 0.97;
      out[i] = this.level;
      if (answer && this.reported < REPORT) this.report[this.reported++] = pcm16(this.level);
    }
    if (answer) this.look(answer);
    if (this.clearing !== null && this.gain === 0) this.clear();
    return true;
  }

  next(answer, offset) {
    const piece = answer.pieces[0], value = piece[answer.at++];
    if (answer.at === piece.length) {
      answer.pieces.shift();
      answer.at = 0;
    }
    answer.left--;
    this.waiting--;
    answer.played++;
    if (!answer.audible && Math.abs(value) > AUDIBLE) {
      answer.audible = true;
      this.port.postMessage({ audible: answer.id, at: currentTime + offset / sampleRate });
    }
    return value;
  }

  /** What became of the first answer in this block. */
  look(answer) {
    if (!answer.left && answer.ended) {
      this.tell(answer);
      this.port.postMessage({ drained: answer.id, played: this.played(answer) });
      this.answers.shift();
      if (this.calm) this.target = Math.max(LEAST, this.target * 0.9);
      this.calm = this.dry = true;
      this.gain = 0;
    } else if (!answer.left && !this.dry) {
      this.dry = true;
      this.gain = 0;
      answer.dryAt = currentTime;
    } else if (this.reported >= REPORT) {
      this.tell(answer);
    }
  }

  tell(answer) {
    const pcm = this.report.slice(0, this.reported);
    this.report.fill(0);
    this.reported = 0;
    const state = { buffered: this.waiting / sampleRate, target: this.target, gaps: this.gaps, held: this.held };
    this.port.postMessage({ pcm, rate: sampleRate, end: currentTime + 128 / sampleRate, id: answer.id, played: this.played(answer), state }, [pcm.buffer]);
  }

  played(answer) {
    return Math.round((answer.played * RATE) / sampleRate);
  }

  clear() {
    const answer = this.answers[0];
    if (answer) this.tell(answer);
    this.port.postMessage({ cleared: this.clearing, id: answer?.id ?? null, played: answer ? this.played(answer) : 0 });
    this.answers = [];
    this.waiting = 0;
    this.clearing = null;
    this.held = false;
    this.calm = this.dry = true;
  }
}

registerProcessor("capture", Capture);
registerProcessor("playback", Playback);
