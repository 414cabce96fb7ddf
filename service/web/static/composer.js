// The box to write in: grows with the text, sends with Enter, and turns into Stop while busy.

import { grow, sends } from "./textbox.js";

export class Composer {
  /** `onUp()` when the arrow is pressed in an empty box. */
  constructor({ form, input, send, stop }, { onSend, onStop, onUp }) {
    Object.assign(this, { form, input, send, stop, onSend, onUp });
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    input.addEventListener("input", () => this.refresh());
    input.addEventListener("keydown", (event) => this.key(event));
    stop.addEventListener("click", () => { onStop(); input.focus(); });
    this.busy = false;
    this.refresh();
  }

  setBusy(busy) {
    this.busy = busy;
    this.stop.hidden = !busy;
    this.send.hidden = busy;
    this.refresh();
  }

  /** Put a text in and send it, as if it had been typed. */
  sendText(text) {
    this.input.value = text;
    this.submit();
  }

  /** Come back to it; a `text` is put in to be written on. */
  write(text = null) {
    if (text !== null) {
      this.input.value = text;
      this.refresh();
    }
    this.input.focus();
  }

  key(event) {
    if (event.key === "ArrowUp" && !this.input.value) {
      event.preventDefault();
      this.onUp();
      return;
    }
    if (!sends(event)) return;
    event.preventDefault();
    this.submit();
  }

  submit() {
    const text = this.input.value.trim();
    if (!text || this.busy) return;
    this.input.value = "";
    this.refresh();
    this.input.focus();
    this.onSend(text);
  }

  refresh() {
    this.send.disabled = !this.input.value.trim();
    grow(this.input);
  }
}
