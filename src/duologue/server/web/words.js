// The conversation as text: one turn after another, as it comes.

const MOST = 300; // turns that stay

export class Words {
  /** @param log where it is shown; @param empty what stands there before */
  constructor(log, empty) {
    this.log = log;
    this.empty = empty;
    this.turns = [];
    this.name = "mini";
  }

  get last() {
    return this.turns.at(-1) ?? null;
  }

  begin() {
    this.empty.remove();
    if (this.last?.blank && this.last.ended === null) this.last.drop(); // nothing came of it
    const turn = new Turn(this);
    this.turns.push(turn);
    if (this.turns.length > MOST) this.turns.shift().root.remove();
    this.follow();
    return turn;
  }

  note(text, bad = false) {
    const last = this.log.lastElementChild;
    if (last?.classList.contains("note") && last.textContent === text) return;
    this.empty.remove();
    if (this.log.children.length > 2 * MOST) this.log.firstElementChild.remove();
    this.made("p", bad ? "note bad" : "note", this.log).textContent = text;
    this.follow();
  }

  clear() {
    this.turns = [];
    this.log.replaceChildren(this.empty);
  }

  /** Keeps the newest in sight, unless somebody is reading further up. */
  follow() {
    const { log } = this, away = log.scrollHeight - log.scrollTop - log.clientHeight;
    if (away < 160) log.scrollTop = log.scrollHeight;
  }

  made(tag, name, parent) {
    const made = document.createElement(tag);
    made.className = name;
    parent.append(made);
    return made;
  }

  /** What was said, as (role, text). */
  get history() {
    return this.turns.flatMap(turn => [["user", turn.asked], ["assistant", turn.said]]).filter(([, text]) => text);
  }

  get text() {
    const began = this.turns[0]?.began ?? 0;
    const at = ms => new Date(Math.max(0, ms - began)).toISOString().slice(11, 21);
    return this.turns
      .flatMap(turn => [
        turn.asked && `[${at(turn.began)}] you: ${turn.asked}`,
        turn.said && `[${at(turn.answered)}] ${this.name}: ${turn.said}${turn.cut ? " [interrupted]" : ""}`,
        turn.numbers && `             (${[...turn.numbers.children].map(each => each.textContent).join("; ")})`,
      ])
      .filter(Boolean)
      .join("\n") + "\n";
  }
}

class Turn {
  constructor(words) {
    this.words = words;
    this.root = words.made("div", "turn", words.log);
    this.began = performance.now();
    this.ended = this.answered = null; // when the question ended, when its answer began, in ms
    this.cut = false;
    this.numbers = null;
  }

  line(who, name) {
    const line = this.words.made("p", `line ${who} going`, this.root);
    if (this.numbers) this.root.append(this.numbers);
    this.words.made("span", "who", line).textContent = name;
    this.words.made("span", "said", line);
    this.words.follow();
    return line;
  }

  get you() { return (this.yourLine ??= this.line("you", "you")).lastElementChild; }
  get it() { return (this.itsLine ??= this.line("it", this.words.name)).lastElementChild; }
  get asked() { return this.yourLine?.lastElementChild.textContent.trim() ?? ""; }
  get said() { return this.itsLine?.lastElementChild.textContent.trim() ?? ""; }
  get blank() { return !this.asked && !this.said; }

  /** Shows what the user said: more of it, or all of it. */
  heard(text, { final = false } = {}) {
    if (final) this.you.textContent = text;
    else this.you.textContent += text;
    this.words.follow();
  }

  hush() { this.yourLine?.classList.remove("going"); }

  says(text) {
    this.hush();
    this.answered ??= performance.now();
    this.it.textContent += text;
    this.words.follow();
  }

  finish(cut = false) {
    this.hush();
    this.itsLine?.classList.remove("going");
    if (this.itsLine) this.it.textContent = this.said;
    if (cut) this.cut = true;
    this.itsLine?.classList.toggle("cut", this.cut);
  }

  /** Adds a number: what it is in bold, and what it means. */
  number(value, meaning, title = "") {
    this.numbers ??= this.words.made("div", "numbers", this.root);
    const chip = this.words.made("span", "", this.numbers);
    if (value) this.words.made("b", "", chip).textContent = value;
    chip.append(value ? ` ${meaning}` : meaning);
    chip.title = title;
    this.words.follow();
  }

  drop() {
    this.root.remove();
    this.words.turns = this.words.turns.filter(turn => turn !== this);
  }
}
