// Both voices as one calm trace: yours above the line, the model's below, now at the right edge.

import { RATE } from "./sound.js";

const STEP = 50; // ms that one bar stands for
const PITCH = 5; // pixels from bar to bar
const BEHIND = 140; // ms by which the picture lags, so that what it shows is complete
const KEPT = 512; // bars
const LANE = 18; // pixels
const WORD = 40; // pixels between pieces of a word, at most
const FRAME = 30; // ms from picture to picture, at least: the model may compute on the same machine

export class Waves {
  constructor(canvas) {
    this.canvas = canvas;
    this.bars = { you: new Map(), it: new Map() }; // number of the step: loudest sample
    this.marks = [];
    this.said = []; // words, and when they sound
    this.still = matchMedia("(prefers-reduced-motion: reduce)");
    this.until = 0; // when the last of it has left the picture
    this.drawn = -FRAME; // when it was drawn last
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  /** @param end when the piece's last sample was heard, in ms */
  add(track, pcm, end, rate = RATE) {
    const bars = this.bars[track], begin = end - (pcm.length / rate) * 1000;
    for (let i = 0; i < pcm.length; i++) {
      const step = Math.floor((begin + (i / rate) * 1000) / STEP), level = Math.abs(pcm[i]) / 32768;
      if (level > (bars.get(step) ?? -1)) bars.set(step, level);
    }
    while (bars.size > KEPT) bars.delete(bars.keys().next().value);
    this.wake(end);
  }

  /** Notes how long the answer took: from the end of the question to the first sound. */
  mark(from, to) {
    this.marks.push({ from, to, text: `${Math.round(to - from)} ms` });
    if (this.marks.length > 8) this.marks.shift();
    this.wake(to);
  }

  /** Writes a piece of text where the model says it, in ms; with a space before it where it begins a word. */
  say(text, at) {
    if (!text.trim()) return;
    this.said.push({ text, at });
    if (this.said.length > KEPT) this.said.shift();
    this.wake(at);
  }

  wake(end) {
    this.until = Math.max(this.until, end + (this.canvas.clientWidth / PITCH) * STEP + BEHIND);
    if (this.going) return;
    this.going = true;
    this.loop();
  }

  loop() {
    const now = performance.now();
    if (now - this.drawn >= FRAME) {
      this.drawn = now;
      this.draw();
    }
    this.going = now < this.until;
    if (!this.going) return;
    if (this.still.matches) setTimeout(() => this.loop(), 500);
    else requestAnimationFrame(() => this.loop());
  }

  draw() {
    const { canvas } = this, scale = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width) return;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const pen = canvas.getContext("2d"), style = getComputedStyle(canvas), colour = name => style.getPropertyValue(name).trim();
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, width, height);
    const lane = this.said.length ? LANE : 0; // of words, below the sound
    const middle = (height - lane) / 2, now = performance.now() - BEHIND, x = ms => width - ((now - ms) / STEP) * PITCH;
    pen.fillStyle = colour("--line");
    pen.fillRect(0, middle - 0.5, width, 1);
    for (const [track, side] of [["you", -1], ["it", 1]]) {
      pen.fillStyle = colour(track === "you" ? "--you" : "--it");
      pen.beginPath();
      for (const [step, level] of this.bars[track]) {
        const left = x((step + 1) * STEP), tall = Math.min(1, level ** 0.6 * 1.15) * (middle - 3);
        if (left < -PITCH || left > width || tall < 1.5) continue;
        pen.roundRect(left, side < 0 ? middle - 1.5 - tall : middle + 1.5, PITCH - 2, tall, 1.5);
      }
      pen.fill();
    }
    if (lane) this.words(pen, x, height, colour);
    for (const { from, to, text } of this.marks) this.bracket(pen, x(from), x(to), middle, text, colour);
  }

  /** Words stand where they sound, or behind the one before; pieces of a word stand together. */
  words(pen, x, height, colour) {
    pen.font = "600 11px system-ui, sans-serif";
    pen.textAlign = "left";
    pen.fillStyle = colour("--it");
    let free = -Infinity;
    for (const { text, at } of this.said) {
      const shown = text.trim(), goes = shown === text && x(at) - free < WORD;
      const left = goes ? free : Math.max(x(at), free + 4);
      free = left + pen.measureText(shown).width;
      if (free < 0 || left > this.canvas.clientWidth) continue;
      pen.fillText(shown, left, height - 4);
    }
  }

  bracket(pen, from, to, middle, text, colour) {
    if (to < -60 || from > this.canvas.clientWidth) return;
    pen.strokeStyle = pen.fillStyle = colour("--ink");
    pen.lineWidth = 1.25;
    pen.beginPath();
    pen.moveTo(from, middle - 5); pen.lineTo(from, middle + 5);
    pen.moveTo(to, middle - 5); pen.lineTo(to, middle + 5);
    pen.moveTo(from, middle); pen.lineTo(to, middle);
    pen.stroke();
    pen.font = "600 11px system-ui, sans-serif";
    pen.textAlign = "center";
    pen.lineJoin = "round";
    pen.lineWidth = 4;
    pen.strokeStyle = colour("--ground");
    pen.strokeText(text, (from + to) / 2, middle - 10);
    pen.fillText(text, (from + to) / 2, middle - 10);
  }
}
