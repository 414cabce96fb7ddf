// The small buttons under a message.

import { icon } from "./icons.js";

/** A button of an icon alone; `label` is what it is called, aloud and when pointed at. */
export function actionButton(name, label, onClick) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "quiet action";
  button.setAttribute("aria-label", label);
  button.title = label;
  button.append(icon(name));
  button.addEventListener("click", onClick);
  return button;
}
