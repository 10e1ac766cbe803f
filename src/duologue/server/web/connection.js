// The line to the server: events as JSON over a WebSocket, dialled again when it breaks. A model with turns is spoken to by
// OpenAI's Realtime API, one without by its Live API, and only once somebody has begun.

const LATER = [1, 2, 4, 8, 15, 30]; // seconds before the next try
const MOST_WAITING = 1 << 20; // bytes that may wait to be sent: about 16 seconds of speech
const KEY = "duologue.key";
const TURNS = {
  path: model => `v1/realtime?${new URLSearchParams({ model: model.id, duologue: "1" })}`,
  greeting: "session.created",
};
const DUPLEX = {
  path: () => "v1/live/sessions",
  hello: model => ({ type: "session.start", session: { model: model.id, audio: { format: { type: "audio/pcm", rate: 24000 } } } }),
  greeting: "session.started",
};

/**
 * `on.event(event)` takes the server's events; `on.state(name, details)` what became of the line:
 * connecting, open, full, gone, key (the server wants one), refused, resting (until `dial`).
 */
export class Connection {
  constructor(on) {
    this.on = on;
    this.failures = 0;
    this.model = null; // chosen, or the server's first
    this.models = [];
    this.begun = false; // whether a conversation without turns is wanted
    addEventListener("online", () => this.timer && this.dial());
    addEventListener("pagehide", () => this.socket?.close());
  }

  set key(key) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  }

  get key() {
    return sessionStorage.getItem(KEY);
  }

  get open() {
    return this.state === "open";
  }

  /** Connects, or connects anew. */
  async dial() {
    this.hangUp();
    const call = (this.call = {}); // a later call makes this one void
    this.tell("connecting");
    const trouble = await this.look();
    if (call !== this.call) return;
    if (trouble) return this.failed(...trouble);
    if (this.duplex && !this.begun) return this.tell("resting");
    const dialect = this.duplex ? DUPLEX : TURNS;
    const url = new URL(dialect.path(this.model), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(url, this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : []));
    socket.onopen = () => dialect.hello && socket.send(JSON.stringify(dialect.hello(this.model)));
    const patience = setTimeout(() => socket.close(), 15000);
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || typeof data !== "string") return;
      const event = parsed(data);
      if (event?.type === dialect.greeting) {
        clearTimeout(patience);
        this.since = performance.now();
        this.tell("open", event.session);
      } else if (event?.type === "error" && !this.open) {
        this.said = event.error; // why it will hang up
      }
      if (event && this.open) this.on.event(event);
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(patience);
      if (socket === this.socket) this.closed(code, reason);
    };
  }

  /** Whether the model has no turns. */
  get duplex() {
    return Boolean(this.model?.duplex);
  }

  /** Begins a conversation without turns. */
  begin() {
    this.begun = true;
    return this.dial();
  }

  hangUp() {
    clearTimeout(this.timer);
    this.timer = this.call = this.said = null;
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }

  /** Lets the line go until somebody wants it again. */
  rest(message) {
    this.hangUp();
    this.begun = false;
    this.tell("resting", { message });
  }

  send(event) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    if (this.socket.bufferedAmount > MOST_WAITING) return false;
    this.socket.send(JSON.stringify(event));
    return true;
  }

  /** Asks what there is. A WebSocket that is turned away does not say why; this does. Returns what is wrong. */
  async look() {
    const headers = this.key ? { authorization: `Bearer ${this.key}` } : {};
    let response;
    try {
      response = await fetch("v1/models", { headers, cache: "no-store", signal: AbortSignal.timeout(8000) });
    } catch {
      return ["gone"];
    }
    if (response.status === 401) return ["key", { wrong: Boolean(this.key) }];
    const body = await response.json().catch(() => null);
    const message = body?.error?.message;
    if (response.status === 429) return ["full", { message }];
    if (response.status === 403) return ["refused", { message }];
    if (!response.ok || !body?.data?.length) return ["gone", { message: message ?? `It answers with status ${response.status}.` }];
    this.models = body.data;
    this.model = this.models.find(each => each.id === this.model?.id) ?? this.models[0];
    return null;
  }

  async closed(code, reason) {
    const lasted = this.open ? performance.now() - this.since : 0;
    if (lasted > 5000) this.failures = 0;
    this.socket = null;
    const message = this.said?.message ?? reason;
    if (code === 1013) return this.failed("full", { message });
    if (this.open) return this.failed("gone", { broke: true });
    const places = await fetch("readyz", { cache: "no-store", signal: AbortSignal.timeout(5000) }).then(answer => answer.json()).catch(() => null);
    this.failed(places?.free === 0 ? "full" : "gone", { message, places: places?.places });
  }

  failed(state, details = {}) {
    if (["key", "refused"].includes(state)) return this.tell(state, details);
    const seconds = LATER[Math.min(this.failures++, LATER.length - 1)] * (0.8 + 0.4 * Math.random());
    this.timer = setTimeout(() => this.dial(), seconds * 1000);
    this.tell(state, { ...details, seconds: Math.ceil(seconds) });
  }

  tell(state, details = {}) {
    this.state = state;
    this.on.state(state, details);
  }
}

function parsed(text) {
  try {
    const event = JSON.parse(text);
    return typeof event?.type === "string" ? event : null;
  } catch {
    return null;
  }
}

const CHUNK = 8192; // bytes that become characters at once

export function toBase64(pcm) {
  const bytes = new Uint8Array(pcm.buffer, pcm.byteOffset, pcm.byteLength);
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  return btoa(text);
}

export function fromBase64(text) {
  const characters = atob(text), bytes = new Uint8Array(characters.length & ~1);
  for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at);
  return new Int16Array(bytes.buffer);
}
