// The box to write in: grows with the text, sends with Enter, and turns into Stop while busy.

export class Composer {
  constructor({ form, input, send, stop }, { onSend, onStop }) {
    Object.assign(this, { form, input, send, stop, onSend });
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

  key(event) {
    // While an input method composes, Enter chooses a word; it does not send.
    const composing = event.isComposing || event.keyCode === 229;
    if (event.key !== "Enter" || event.shiftKey || composing) return;
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
    this.input.style.height = "auto";
    this.input.style.height = `${this.input.scrollHeight}px`;
  }
}
