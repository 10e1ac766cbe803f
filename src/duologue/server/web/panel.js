// The two dialogs: settings, and what can be saved.

import { save } from "./recording.js";
import { recall, remember } from "./store.js";

const $ = id => document.getElementById(id);

export class Panel {
  constructor({ line, conversation, words, recording }) {
    Object.assign(this, { line, words, recording });
    this.now = conversation; // the one that is held: there are two kinds
    $("open-settings").addEventListener("click", () => this.openSettings());
    $("open-save").addEventListener("click", () => this.openSave());
    for (const dialog of document.querySelectorAll("dialog"))
      dialog.addEventListener("click", event => event.target === dialog && dialog.close()); // beside it
    $("microphone").addEventListener("change", () => this.conversation.choose($("microphone").value));
    $("models").addEventListener("change", () => this.chooseModel());
    $("voices").addEventListener("change", () => this.chooseVoice());
    $("omega").addEventListener("input", () => ($("omega-shown").textContent = $("omega").value));
    $("omega").addEventListener("change", () => this.chooseOmega());
    $("announce").checked = recall("announce") === "yes";
    $("announce").addEventListener("change", () => remember("announce", $("announce").checked ? "yes" : "no"));
    $("anew").addEventListener("click", () => this.anew());
    $("save-sound").addEventListener("click", () => save(recording.wav(), `${name()}.wav`));
    $("save-words").addEventListener("click", () => save(new Blob([words.text], { type: "text/plain" }), `${name()}.txt`));
    navigator.mediaDevices?.addEventListener?.("devicechange", () => this.listMicrophones());
  }

  get conversation() { return this.now(); }

  openSettings() {
    this.listMicrophones();
    const { line, conversation } = this;
    options($("models"), line.models.map(({ id }) => [id, id]), line.model?.id);
    const voices = line.model?.voices ?? [conversation.given ?? line.model?.id].filter(Boolean);
    options($("voices"), voices.map(voice => [voice, voice]), conversation.voice ?? conversation.given);
    const omega = conversation.offered?.omega;
    $("omega-row").hidden = !omega;
    if (omega) {
      Object.assign($("omega"), { min: omega.min, max: omega.max, value: conversation.omega ?? omega.value });
      $("omega-shown").textContent = $("omega").value;
    }
    $("settings").showModal();
  }

  /** Names come only after the microphone was allowed once. */
  async listMicrophones() {
    const devices = (await navigator.mediaDevices?.enumerateDevices?.().catch(() => [])) ?? [];
    const found = devices.filter(({ kind, deviceId }) => kind === "audioinput" && deviceId && deviceId !== "default");
    const named = found.map(({ deviceId, label }, number) => [deviceId, label || `Microphone ${number + 1}`]);
    const chosen = recall("microphone", "");
    options($("microphone"), [["", "The system's choice"], ...named], named.some(([id]) => id === chosen) ? chosen : "");
  }

  chooseModel() {
    this.line.model = this.line.models.find(({ id }) => id === $("models").value);
    this.conversation.voice = null;
    remember("model", $("models").value);
    this.anew();
  }

  chooseVoice() {
    this.conversation.voice = $("voices").value;
    remember("voice", this.conversation.voice);
    this.anew(); // a voice stays for as long as a conversation
  }

  chooseOmega() {
    this.conversation.omega = $("omega").value;
    remember("omega", $("omega").value);
    this.conversation.configure();
  }

  anew() {
    this.words.clear();
    this.conversation.reset();
    this.line.dial();
  }

  openSave() {
    const { recording, words } = this, minutes = Math.floor(recording.seconds / 60), turns = words.turns.length;
    const empty = !recording.seconds && !turns;
    $("save-about").textContent = empty
      ? "Nothing has been said yet."
      : `${minutes}:${String(Math.floor(recording.seconds % 60)).padStart(2, "0")} of sound, ${turns} ${turns === 1 ? "turn" : "turns"}.`;
    $("save-sound").disabled = !recording.seconds;
    $("save-words").disabled = !turns;
    $("save").showModal();
  }
}

function options(select, pairs, chosen) {
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value, false, value === chosen)));
  select.disabled = !pairs.length;
}

function name() {
  return `duologue ${new Date().toISOString().slice(0, 19).replaceAll(":", ".").replace("T", " ")}`;
}
