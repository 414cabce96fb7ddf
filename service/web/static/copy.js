// A button that puts text on the clipboard.

import { icon } from "./icons.js";

const CONFIRM_MS = 1600;

/** `text` is called when pressed, so it may still be growing. */
export function copyButton(label, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet copy";
  button.setAttribute("aria-label", label);
  button.title = label;
  const word = document.createElement("span");
  word.textContent = "Copy";
  button.append(icon("copy"), word);
  button.addEventListener("click", async () => {
    word.textContent = (await copy(text())) ? "Copied" : "Not copied";
    setTimeout(() => { word.textContent = "Copy"; }, CONFIRM_MS);
  });
  return button;
}

async function copy(text) {
  if (!navigator.clipboard) return copyBySelection(text);
  return navigator.clipboard.writeText(text).then(() => true, () => copyBySelection(text));
}

/** The older way; the only one on plain HTTP from another machine. */
function copyBySelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  area.className = "offscreen";
  document.body.append(area);
  const before = document.activeElement;
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  before?.focus();
  return copied;
}
