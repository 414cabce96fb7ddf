// The models that there are: which one answers, and a change of it, told as it goes on.

import { fetchModels, switchModel, watchModels } from "./api.js";

const PHASES = {
  fetching: "Fetching",
  weighing: "Looking for memory",
  draining: "Waiting for running answers",
  loading: "Loading",
  trying: "Trying it out",
};

export class Models {
  /** `onSwitched()` when another model answers; `onTrouble(error)` when the service balks. */
  constructor({ dialog, opener, list, said }, { onSwitched, onTrouble }) {
    Object.assign(this, { dialog, list, said, onSwitched, onTrouble });
    opener.addEventListener("click", () => this.open());
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => this.watching?.abort());
  }

  async open() {
    this.say("");
    this.list.replaceChildren();
    this.dialog.showModal();
    await this.refresh();
    this.watch();
  }

  async refresh() {
    try {
      const { models } = await fetchModels();
      const focused = this.list.contains(document.activeElement);
      this.list.replaceChildren(...models.map((model) => this.row(model)));
      if (focused) this.list.querySelector("button")?.focus();
    } catch (error) {
      this.fail(error);
    }
  }

  row({ name, status, description }) {
    const item = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.className = "chosen";
    button.setAttribute("aria-pressed", String(status === "Loaded"));
    button.append(line("title", name), line("when", description));
    if (status === "Loaded") button.append(line("badge", "answers"));
    button.addEventListener("click", () => this.choose(name));
    item.append(button);
    return item;
  }

  /** Ask for another model; the events tell the rest, and the last word is the reply's. */
  async choose(name) {
    this.say(`Asking for ${name} …`);
    try {
      await switchModel(name);
    } catch (error) {
      this.fail(error);
    }
  }

  /** Follow the service's own account of it for as long as the list is open. */
  async watch() {
    const watching = new AbortController();
    this.watching?.abort();
    this.watching = watching;
    let ended = null;
    try {
      for await (const { switch: change } of watchModels(watching.signal)) {
        ended = this.tell(change, ended);
      }
    } catch (error) {
      if (!watching.signal.aborted) this.fail(error);
    }
  }

  /** `ended` is the last change that was over; returns what is now. */
  tell(change, ended) {
    if (!change) return 0;
    if (change.phase === "failed") {
      if (ended !== null && ended !== change.id) this.say(change.reason, true);
      return change.id;
    }
    if (change.phase === "done") {
      if (ended !== null && ended !== change.id) this.say(`${change.model} answers now.`);
      this.refresh();
      this.onSwitched();
      return change.id;
    }
    const share = change.progress > 0 ? ` ${Math.round(change.progress * 100)} %` : "";
    this.say(`${PHASES[change.phase] ?? change.phase} ${change.model}${share}`);
    return ended ?? 0;
  }

  fail(error) {
    this.say(error.message, true);
    this.onTrouble(error);
  }

  say(sentence, isFault = false) {
    this.said.hidden = !sentence;
    this.said.classList.toggle("fault", isFault);
    if (this.said.textContent !== sentence) this.said.textContent = sentence;
  }
}

function line(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}
