// What is kept of the conversation while the page is open, for whoever wants to take it along.

import { RATE } from "./sound.js";

const LONGEST = 20 * 60 * RATE; // samples: the last 20 minutes
const SAME = RATE / 20; // samples by which a piece may miss the end of the one before and still go on from it

/** Two tracks on one time line: what was sent of the microphone, and what sounded of the answers. */
export class Recording {
  constructor() {
    this.origin = null; // ms: sample 0
    this.tracks = { you: [], it: [] };
  }

  /** @param end when the piece's last sample was heard, in ms */
  add(track, pcm, end) {
    const begin = end - (pcm.length / RATE) * 1000;
    this.origin ??= begin;
    const pieces = this.tracks[track], last = pieces.at(-1);
    const place = Math.round(((begin - this.origin) / 1000) * RATE), next = last ? last.at + last.pcm.length : 0;
    pieces.push({ at: Math.abs(place - next) < SAME || place < next ? next : place, pcm });
    const oldest = this.end - LONGEST;
    for (const each of Object.values(this.tracks)) while (each.length && each[0].at < oldest) each.shift();
  }

  get begin() {
    return Math.min(...Object.values(this.tracks).map(pieces => pieces[0]?.at ?? Infinity));
  }

  get end() {
    return Math.max(0, ...Object.values(this.tracks).map(pieces => (pieces.length ? pieces.at(-1).at + pieces.at(-1).pcm.length : 0)));
  }

  get seconds() {
    return this.end ? (this.end - this.begin) / RATE : 0;
  }

  /** Left you, right the model; second by second, so that no long buffer is needed. */
  wav() {
    const begin = this.begin, samples = this.end - begin, parts = [header(samples)];
    const places = { you: 0, it: 0 };
    for (let at = begin; at < this.end; at += RATE) {
      const size = Math.min(RATE, this.end - at), stereo = new Int16Array(2 * size);
      Object.keys(this.tracks).forEach((track, side) => {
        const pieces = this.tracks[track];
        let place = places[track];
        for (; place < pieces.length && pieces[place].at < at + size; place++) {
          const piece = pieces[place], from = Math.max(0, at - piece.at), to = Math.min(piece.pcm.length, at + size - piece.at);
          for (let i = from; i < to; i++) stereo[2 * (piece.at + i - at) + side] = piece.pcm[i];
          if (piece.at + piece.pcm.length > at + size) break; // it goes on in the next second
        }
        places[track] = place;
      });
      parts.push(stereo);
    }
    return new Blob(parts, { type: "audio/wav" });
  }
}

function header(samples) {
  const view = new DataView(new ArrayBuffer(44)), size = samples * 4;
  const word = (at, text) => [...text].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + size, true);
  word(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 2, true); // PCM, two channels
  view.setUint32(24, RATE, true); view.setUint32(28, RATE * 4, true);
  view.setUint16(32, 4, true); view.setUint16(34, 16, true);
  word(36, "data"); view.setUint32(40, size, true);
  return view;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
}
