// One message of the person's: shown, copied, and written anew in its place.

import { actionButton } from "./action.js";
import { copyButton } from "./copy.js";

export class QuestionView {
  /** `onEdit(text)` says whether the new text was taken; `onFork()` has the chat branch off before
   * this message; `isLast()` tells whether nothing was said after its answer. */
  constructor(text, { onEdit, onFork, isLast }) {
    Object.assign(this, { text, onEdit, isLast });
    this.element = make("article", "message question");
    this.element.setAttribute("aria-label", "You");
    this.body = make("p", "", text);
    this.foot = make("footer");
    this.pencil = actionButton("rename", "Edit message", () => this.edit());
    const copy = copyButton("Copy message", () => this.text);
    const fork = actionButton("fork", "Fork before this message", onFork);
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
    this.box.addEventListener("input", () => this.grow());
    this.box.addEventListener("keydown", (event) => this.key(event));
    this.element.replaceChildren(this.form);
    this.element.classList.add("edited");
    this.grow();
    this.box.focus();
    this.box.setSelectionRange(this.text.length, this.text.length);
    return undefined;
  }

  key(event) {
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key === "Escape" && !composing) {
      event.stopPropagation(); // it would stop an answer
      this.leave();
    }
    if (event.key !== "Enter" || event.shiftKey || composing) return;
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

  grow() {
    this.box.style.height = "auto";
    this.box.style.height = `${this.box.scrollHeight}px`;
  }
}

function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.textContent = text;
  return element;
}
