// Puts the parts of the page together.

import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { Door } from "./door.js";
import { Status } from "./status.js";
import { Transcript } from "./transcript.js";

const part = (id) => document.getElementById(id);

const status = new Status({
  badge: part("status"),
  notice: part("notice"),
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
  onBusy: (busy) => composer.setBusy(busy),
  onTrouble: (error) => {
    status.check();
    if (error.status === 401) door.show();
  },
});

const composer = new Composer(
  { form: part("composer"), input: part("input"), send: part("send"), stop: part("stop") },
  { onSend: (text) => chat.ask(text), onStop: () => chat.stop() },
);

const door = new Door({
  form: part("door"),
  input: part("access-token"),
  fault: part("door-fault"),
  composer: part("composer"),
});
door.look();

part("new-chat").addEventListener("click", () => {
  chat.startAnew();
  part("input").focus();
});

for (const suggestion of document.querySelectorAll("[data-suggestion]")) {
  suggestion.addEventListener("click", () => composer.sendText(suggestion.textContent.trim()));
}

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && chat.busy) chat.stop();
});

document.documentElement.dataset.ready = "true"; // the page answers to clicks from here on
