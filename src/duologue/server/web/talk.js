// Wires the page together: what is pressed, and what is seen.

import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { Duplex } from "./duplex.js";
import { Panel } from "./panel.js";
import { Recording } from "./recording.js";
import { insecure } from "./sound.js";
import { recall } from "./store.js";
import { Waves } from "./waves.js";
import { Words } from "./words.js";

const $ = id => document.getElementById(id);
const button = $("talk"), free = $("free");

const HINTS = {
  off: "", idle: "hold to talk, or tap", listening: "listening: let go when you have asked", waiting: "thinking",
  answering: "press to interrupt", paused: "go on speaking to interrupt", free: "just speak", muted: "not listening: press to go on",
};
const DUPLEX_HINTS = { off: "", free: "speak whenever you like, also while it speaks", muted: HINTS.muted };
const LABELS = { listening: "Ask", answering: "Interrupt", paused: "Interrupt", free: "Mute the microphone", muted: "Unmute the microphone" };

// --- what is seen ----------------------------------------------------------------------------------------------------

const view = {
  refresh() {
    const { phase, latched } = talk;
    document.body.dataset.phase = phase;
    const resting = line.state === "resting";
    button.disabled = phase === "off" && !resting;
    document.body.dataset.kind = line.duplex ? "duplex" : "turns";
    free.disabled = phase === "off" || line.duplex;
    free.checked = talk.free;
    const begin = words.turns.length ? "press to begin again" : "press to begin";
    const hint = resting ? begin : line.duplex ? DUPLEX_HINTS[phase] : phase === "listening" && talk.free ? "listening" : latched ? "listening: tap when you have asked" : talk.free && phase === "answering" ? "speak or press to interrupt" : HINTS[phase];
    if ($("hint").textContent !== hint) $("hint").textContent = hint;
    button.setAttribute("aria-label", resting ? "Begin" : LABELS[phase] ?? "Talk");
    button.classList.toggle("held", Boolean(talk.pressed) || latched);
    awake(talk.free || !["off", "idle"].includes(phase));
  },

  glow(level) {
    button.style.setProperty("--glow", Math.min(1, level * 1.6).toFixed(2));
  },

  trouble(error) {
    if (!error && !["open", "connecting", "resting"].includes(line.state)) return; // the line has its own
    show(error?.title, error?.text, error?.retry ? () => talk.hear() : null);
  },

  diagnostics({ buffered, target, gaps }) {
    const now = performance.now();
    if (buffered && now - (view.told ?? 0) < 250) return;
    view.told = now;
    const ms = seconds => `${Math.round(seconds * 1000)} ms`;
    const rate = talk.microphone?.context.sampleRate;
    $("diagnostics").textContent = [
      `${ms(buffered)} ahead`, `buffer ${ms(target)}`, `${gaps} ${gaps === 1 ? "gap" : "gaps"}`,
      `output ${Math.round(talk.player.latency)} ms`, rate && `microphone ${rate / 1000} kHz`,
    ].filter(Boolean).join(" · ");
  },

  announce(text) {
    if ($("announce").checked) $("announced").textContent = text;
  },
};

function show(title, text = "", retry = null) {
  $("trouble").hidden = !title;
  if (!title) return;
  if ($("trouble-title").textContent !== title) $("trouble-title").textContent = title;
  if ($("trouble-text").textContent !== text) $("trouble-text").textContent = text;
  $("trouble-retry").hidden = !retry;
  $("trouble-retry").onclick = retry;
}

function status(text, kind) {
  if ($("status").textContent !== text) $("status").textContent = text;
  $("status").className = kind;
}

function named() {
  $("model").textContent = $("lane").textContent = words.name = line.model?.id ?? "";
}

const STATES = {
  connecting() { status("connecting", "wait"); },
  open() {
    status("ready", "on");
    show();
    named();
    if (!window.isSecureContext) view.trouble(insecure());
    if (talk.words.turns.length) words.note("Connected again.");
  },
  full({ message, places, seconds }) {
    status("full", "wait");
    const all = places ? `All ${places} places` : "All places";
    show("The server is full", `${message || `${all} are taken.`} Trying again in ${seconds} s.`, () => line.dial());
  },
  gone({ broke, message, seconds }) {
    status("disconnected", "bad");
    show(broke ? "The connection broke" : "The server does not answer", `${message ? `${message} ` : ""}Trying again in ${seconds} s.`, () => line.dial());
  },
  refused({ message }) {
    status("refused", "bad");
    show("The server refused this page", message ?? "", () => line.dial());
  },
  resting({ message }) {
    status(message ? "resting" : "ready", message ? "wait" : "on");
    named();
    if (message) show("The conversation is resting", `${message} Press the button to begin again.`);
    else if (window.isSecureContext) show();
    else view.trouble(insecure());
  },
  key({ wrong }) {
    status("key wanted", "wait");
    show();
    $("key-note").textContent = wrong ? "The server does not know that key. Try another." : "It is kept until you close this tab.";
    $("key-form").hidden = false;
    $("key").focus();
  },
};

$("key-form").addEventListener("submit", event => {
  event.preventDefault();
  line.key = $("key").value.trim();
  $("key").value = "";
  $("key-form").hidden = true;
  line.dial();
});

// --- the parts -------------------------------------------------------------------------------------------------------

const words = new Words($("log"), $("empty"));
const waves = new Waves($("waves"));
const recording = new Recording();
const line = new Connection({
  event: event => talk.take(event),
  state(state, details) {
    if (state !== "key") $("key-form").hidden = true;
    const [chosen, other] = line.duplex ? [duplex, turns] : [turns, duplex];
    if (talk !== chosen) other.shut();
    talk = chosen;
    if (state !== "open") talk.reset();
    if (["refused", "key", "resting"].includes(state)) talk.setFree(false);
    STATES[state](details);
    view.refresh();
  },
});
const parts = { line, words, waves, recording, view };
const turns = new Conversation(parts), duplex = new Duplex(parts);
let talk = turns;
new Panel({ line, conversation: () => talk, words, recording });

// --- what is pressed -------------------------------------------------------------------------------------------------

let byPointer = -Infinity; // when the pointer let go: the click that follows is the same press

button.addEventListener("pointerdown", event => {
  if (event.button !== 0) return;
  button.setPointerCapture(event.pointerId);
  talk.press();
});
for (const end of ["pointerup", "pointercancel"]) button.addEventListener(end, () => { byPointer = performance.now(); talk.release(); });
button.addEventListener("click", () => { // Enter, or a screen reader: one click to begin, one to end
  if (performance.now() - byPointer < 500) return;
  talk.press();
  talk.release();
});
button.addEventListener("contextmenu", event => event.preventDefault());

const mine = event => !event.ctrlKey && !event.metaKey && !event.altKey && !document.querySelector("dialog[open]")
  && (event.target === button || !event.target.closest("button, input, select, a, textarea"));
addEventListener("keydown", event => {
  if (event.code === "Escape" && !document.querySelector("dialog[open]")) return talk.stop();
  if (event.code !== "Space" || !mine(event)) return;
  event.preventDefault();
  if (!event.repeat) talk.press();
});
addEventListener("keyup", event => {
  if (event.code !== "Space" || !mine(event)) return;
  event.preventDefault();
  talk.release();
});
addEventListener("blur", () => talk.release());
free.addEventListener("change", () => talk.setFree(free.checked));

// --- a phone stays awake while somebody talks ------------------------------------------------------------------------

let lock = null, wanted = false;
async function awake(want) {
  wanted = want;
  if (!want) {
    lock?.release();
    lock = null;
  } else if (!lock && document.visibilityState === "visible") {
    lock = await navigator.wakeLock?.request("screen").catch(() => null);
    lock?.addEventListener("release", () => (lock = null));
    if (!wanted) awake(false);
  }
}
document.addEventListener("visibilitychange", () => awake(wanted));

line.model = recall("model") ? { id: recall("model") } : null;
line.dial();
