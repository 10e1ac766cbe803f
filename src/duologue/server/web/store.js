// What the browser remembers of the page's settings. Where it may not, nothing is lost but that.

const PREFIX = "duologue.";

export function recall(name, otherwise = null) {
  try {
    return localStorage.getItem(PREFIX + name) ?? otherwise;
  } catch {
    return otherwise;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, value);
  } catch { /* private windows */ }
}
