// The line to the server: OpenAI Realtime events as JSON over a WebSocket, dialled again when it breaks.

const LATER = [1, 2, 4, 8, 15, 30]; // seconds before the next try
const MOST_WAITING = 1 << 20; // bytes that may wait to be sent: about 16 seconds of speech
const KEY = "duologue.key";

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
    const query = new URLSearchParams({ model: this.model.id, duologue: "1" });
    const url = new URL(`v1/realtime?${query}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = (this.socket = new WebSocket(url, this.key ? ["realtime", `openai-insecure-api-key.${this.key}`] : []));
    const patience = setTimeout(() => socket.close(), 15000);
    socket.onmessage = ({ data }) => {
      if (socket !== this.socket || typeof data !== "string") return;
      const event = parsed(data);
      if (event?.type === "session.created") {
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
