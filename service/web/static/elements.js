// Elements that all parts of the page are made of.

import { icon } from "./icons.js";

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}

/** A button of an icon alone; `label` is what it is called, aloud and when pointed at. */
export function iconButton(className, name, label, onClick) {
  const button = make("button", `quiet ${className}`);
  button.type = "button";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.append(icon(name));
  button.addEventListener("click", onClick);
  return button;
}
