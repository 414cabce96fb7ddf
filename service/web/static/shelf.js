// The conversations that are kept: found, opened, renamed and forgotten, in a drawer of their own.

import { eraseConversation, fetchConversations, renameConversation, searchConversations } from "./api.js";
import { iconButton, make } from "./elements.js";

const TYPING_MS = 250;

export class Shelf {
  /** `onOpen(conversation)` when one is chosen, `onForgotten(id)` when one is gone for good;
   * `onTrouble(error)` when the service balks. */
  constructor({ dialog, opener, search, list, empty, more }, { onOpen, onForgotten, onTrouble }) {
    Object.assign(this, { dialog, search, list, empty, more, onOpen, onForgotten, onTrouble });
    this.asked = 0;
    opener.addEventListener("click", () => this.open());
    dialog.addEventListener("click", (event) => this.closeOutside(event));
    search.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.refresh();
    });
    search.addEventListener("input", () => {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.refresh(), TYPING_MS);
    });
    more.addEventListener("click", () => this.add());
  }

  open() {
    this.search.value = "";
    this.dialog.showModal();
    this.refresh();
  }

  close() {
    this.dialog.close();
  }

  closeOutside(event) {
    if (event.target === this.dialog) this.close(); // the backdrop is the dialog itself
  }

  /** Show the latest, or what the search finds; an answer that comes late is not shown. */
  async refresh() {
    const asked = ++this.asked;
    const words = this.search.value.trim();
    try {
      const page = words ? { data: await searchConversations(words) } : await fetchConversations();
      if (asked !== this.asked) return;
      this.list.replaceChildren(...page.data.map((one) => this.row(one)));
      this.say(page.data.length ? "" : words ? "Nobody said that here." : "Nothing is kept yet.");
      this.turn(page);
    } catch (error) {
      if (asked === this.asked) this.fail(error);
    }
  }

  /** The next page of the list. */
  async add() {
    try {
      const page = await fetchConversations(this.last);
      this.list.append(...page.data.map((one) => this.row(one)));
      this.turn(page);
    } catch (error) {
      this.fail(error);
    }
  }

  turn({ data, has_more: hasMore = false }) {
    this.last = data.at(-1)?.updated_at;
    this.more.hidden = !hasMore;
  }

  row(one) {
    const item = document.createElement("li");
    item.dataset.id = one.id;
    this.fill(item, one);
    return item;
  }

  fill(item, one) {
    const open = make("button", "chosen", "");
    open.type = "button";
    open.append(make("span", "title", one.title || "Without a title"));
    open.append(make("span", "when", one.snippet ?? said(one)));
    open.addEventListener("click", () => {
      this.close();
      this.onOpen(one);
    });
    const rename = iconButton("act", "rename", `Rename ${one.title}`, () => this.rename(item, one));
    const forget = iconButton("act", "forget", `Forget ${one.title}`, () => this.confirm(item, one));
    item.replaceChildren(open, rename, forget);
    return open;
  }

  rename(item, one) {
    const form = make("form", "rename", "");
    const input = make("input", "", "");
    input.value = one.title;
    input.maxLength = 200;
    input.setAttribute("aria-label", "Title");
    const save = make("button", "quiet", "Save");
    form.append(input, save);
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      await this.attempt(async () => {
        const title = input.value.trim();
        if (title) Object.assign(one, await renameConversation(one.id, title));
        this.fill(item, one).focus();
      });
    });
    input.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      event.preventDefault(); // it would close the drawer
      this.fill(item, one).focus();
    });
    item.replaceChildren(form);
    input.select();
  }

  confirm(item, one) {
    const question = make("p", "", `Forget “${one.title}” for good?`);
    const forget = make("button", "danger", "Forget");
    const keep = make("button", "quiet", "Keep");
    forget.type = keep.type = "button";
    forget.addEventListener("click", () => this.attempt(async () => {
      await eraseConversation(one.id);
      const next = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      (next?.querySelector("button") ?? this.search).focus();
      this.onForgotten(one.id);
    }));
    keep.addEventListener("click", () => this.fill(item, one).focus());
    const row = make("div", "confirm", "");
    row.append(question, forget, keep);
    item.replaceChildren(row);
    keep.focus();
  }

  async attempt(work) {
    try {
      this.say("");
      await work();
    } catch (error) {
      this.fail(error);
    }
  }

  fail(error) {
    this.say(error.message);
    this.onTrouble(error);
  }

  say(sentence) {
    this.empty.hidden = !sentence;
    this.empty.textContent = sentence;
  }
}

/** "12 November · 3 turns" */
function said({ updated_at: at, num_turns: turns }) {
  const day = new Date(at * 1000);
  const today = day.toDateString() === new Date().toDateString();
  const options = today ? { hour: "2-digit", minute: "2-digit" } : { day: "numeric", month: "long" };
  return `${day.toLocaleString(undefined, options)} · ${turns} ${turns === 1 ? "turn" : "turns"}`;
}
