// Puts the parts of the page together.

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Door } from "./door.js";
import { Models } from "./models.js";
import { Shelf } from "./shelf.js";
import { Status } from "./status.js";
import { Transcript } from "./transcript.js";

const part = (id) => document.getElementById(id);

const status = new Status({
  badge: part("status"),
  notice: part("notice"),
  bar: part("notice-bar"),
  hide: part("hide-notice"),
  progress: part("progress"),
});

const transcript = new Transcript({
  scroller: part("scroller"),
  list: part("messages"),
  welcome: part("welcome"),
  toEnd: part("to-end"),
  live: part("live"),
});

const chat = new Chat({
  transcript,
  onBusy: (busy) => {
    composer.setBusy(busy);
    transcript.setBusy(busy);
  },
  onDraft: (text) => composer.write(text),
  onReplaced: () => shelf.dialog.open && shelf.refresh(),
  onTrouble: (error) => {
    status.check();
    if (error.status === 401) door.show();
  },
});

const composer = new Composer(
  { form: part("composer"), input: part("input"), send: part("send"), stop: part("stop") },
  { onSend: (text) => chat.ask(text), onStop: () => chat.stop(), onUp: () => chat.editLast() },
);

const door = new Door({
  form: part("door"),
  input: part("access-token"),
  fault: part("door-fault"),
  composer: part("composer"),
});
door.look();

const shelf = new Shelf(
  {
    dialog: part("shelf"),
    opener: part("open-shelf"),
    search: part("shelf-search"),
    list: part("shelf-list"),
    empty: part("shelf-empty"),
    more: part("shelf-more"),
  },
  {
    onOpen: ({ id }) => {
      chat.open(id);
      part("input").focus();
    },
    onForgotten: (id) => id === chat.sessionId && chat.startAnew(),
    onTrouble: (error) => refused(error, shelf.dialog),
  },
);

const models = new Models(
  {
    dialog: part("models"),
    opener: part("open-models"),
    list: part("models-list"),
    said: part("models-said"),
  },
  { onSwitched: () => status.check(), onTrouble: (error) => refused(error, models.dialog) },
);

/** Where a token is missing, ask for one instead. */
function refused(error, dialog) {
  if (error.status !== 401) return;
  dialog.close();
  door.show();
}

part("new-chat").addEventListener("click", () => {
  chat.startAnew();
  part("input").focus();
});

for (const suggestion of document.querySelectorAll("[data-suggestion]")) {
  suggestion.addEventListener("click", () => composer.sendText(suggestion.textContent.trim()));
}

addEventListener("keydown", (event) => {
  const inDrawer = document.querySelector("dialog[open]");
  if (event.key === "Escape" && chat.busy && !inDrawer) chat.stop();
});

document.documentElement.dataset.ready = "true"; // the page answers to clicks from here on
