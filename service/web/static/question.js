// One message of the person's: shown, copied, and written anew in its place.

import { copyButton } from "./copy.js";
import { iconButton, make } from "./elements.js";
import { composes, grow, sends } from "./textbox.js";

export class QuestionView {
  /** `onEdit(text)` asks the new text in its place; `onFork()` has the chat branch off before
   * this message; `isLast()` tells whether nothing was said after its answer. */
  constructor(text, { onEdit, onFork, isLast }) {
    Object.assign(this, { text, onEdit, isLast });
    this.element = make("article", "message question");
    this.element.setAttribute("aria-label", "You");
    this.body = make("p", "", text);
    this.foot = make("footer");
    this.pencil = iconButton("action", "rename", "Edit message", () => this.edit());
    const copy = copyButton("Copy message", () => this.text);
    const fork = iconButton("action", "fork", "Fork before this message", onFork);
    this.foot.append(copy, this.pencil, fork);
    this.element.append(this.body, this.foot);
  }

  /** Put a box in the place of the message. Enter sends, Escape leaves everything as it was. */
  edit() {
    if (this.form) return this.box.focus();
    this.form = make("form", "edit");
    this.box = make("textarea");
    this.box.value = this.text;
    this.box.rows = 1;
    this.box.setAttribute("aria-label", "Edit message");
    const hint = make("p", "edit-hint", this.isLast() ? "" : "This conversation is kept; the new message goes on in a copy.");
    const cancel = make("button", "quiet", "Cancel");
    const send = make("button", "enter", "Send");
    cancel.type = "button";
    cancel.addEventListener("click", () => this.leave());
    const row = make("div", "edit-row");
    row.append(hint, cancel, send);
    this.form.append(this.box, row);
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.box.addEventListener("input", () => grow(this.box));
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.element.replaceChildren(this.form);
    this.element.classList.add("edited");
    grow(this.box);
    this.box.focus();
    this.box.setSelectionRange(this.text.length, this.text.length);
    return undefined;
  }

  key(event) {
    if (event.key === "Escape" && !composes(event)) {
      event.stopPropagation(); // it would stop an answer
      this.leave();
    }
    if (!sends(event)) return;
    event.preventDefault();
    this.submit();
  }

  submit() {
    const text = this.box.value.trim();
    if (text) this.onEdit(text);
  }

  leave() {
    this.form = null;
    this.element.classList.remove("edited");
    this.element.replaceChildren(this.body, this.foot);
    this.pencil.focus();
  }
}
