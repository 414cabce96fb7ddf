// A block of code with its language and a button that copies it.

import { copyButton } from "./copy.js";

export function codeBlock(text, language) {
  const figure = document.createElement("figure");
  figure.className = "code";
  const caption = document.createElement("figcaption");
  const label = document.createElement("span");
  label.textContent = language || "text";
  const pre = document.createElement("pre");
  pre.tabIndex = 0; // it scrolls sideways, so the keyboard must be able to reach it
  const code = document.createElement("code");
  code.append(document.createTextNode(text)); // exists even when empty: text is appended to it
  pre.append(code);
  caption.append(label, copyButton("Copy code", () => code.textContent));
  figure.append(caption, pre);
  return figure;
}
