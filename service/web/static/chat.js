// One conversation: asks, streams, stops, and remembers.

import { ApiError, fetchMessages, stopAnswers, streamChat, streamMore, watchAnswer } from "./api.js";
import { recall, remember } from "./memory.js";

const GIVE_UP_MS = 10 * 60 * 1000; // of being told to come back later
const LONGEST_PAUSE_S = 30;

export class Chat {
  /** `onBusy(true|false)` when an answer begins and ends; `onTrouble(error)` when the service balks. */
  constructor({ transcript, onBusy, onTrouble }) {
    Object.assign(this, { transcript, onBusy, onTrouble });
    Object.assign(this, recall());
    this.abort = null;
    this.partial = null;
    this.messages.forEach((message) => this.show(message));
    // Whoever leaves in the middle of an answer finds what has become of it.
    addEventListener("pagehide", () => this.partial && this.keep(this.partial()));
    if (this.messages.at(-1)?.unfinished && this.sessionId) this.open(this.sessionId);
  }

  get busy() {
    return this.abort !== null;
  }

  /** Ask; resolves when the answer has ended, whichever way. Does nothing while one is running. */
  async ask(text) {
    if (this.busy) return;
    this.sessionId ??= newId(); // ours, so that it is known before anything has come back
    this.transcript.addQuestion(text);
    this.messages.push({ role: "user", text });
    remember(this);
    await this.answer(text);
  }

  /** End the running answer, here and behind. */
  stop() {
    if (!this.busy) return;
    this.abort.abort();
    if (this.begun) stopAnswers(this.sessionId).catch((error) => error.status !== 404 && this.onTrouble(error));
  }

  /** Show a conversation that is kept, and follow what is being written to it. */
  async open(sessionId) {
    let messages;
    try {
      messages = await fetchMessages(sessionId);
    } catch (error) {
      this.onTrouble(error);
      if (error.status === 404) this.startAnew();
      return;
    }
    this.leave();
    this.sessionId = sessionId;
    const growing = messages.at(-1)?.status === "in_progress";
    this.messages = messages.slice(0, growing ? -1 : undefined).map(toRecord);
    remember(this);
    this.transcript.clear();
    this.messages.forEach((message) => this.show(message));
    if (growing) await this.write((answer, signal) => this.follow(answer, signal));
  }

  /** Listen no more to what is being written; it goes on without us. */
  leave() {
    this.abort?.abort();
    this.abort = this.partial = null;
    this.onBusy(false);
  }

  async follow(answer, signal) {
    this.begun = true;
    for await (const { text, status } of watchAnswer(this.sessionId, signal)) {
      signal.throwIfAborted();
      answer.take({ token: text });
      if (status !== "in_progress") answer.take({ done: true });
    }
  }

  /** Write on at an answer that was cut. */
  async goOn(view) {
    if (this.busy) return;
    const last = this.messages.pop();
    view.element.remove();
    await this.write(async (answer, signal) => {
      answer.view.append(last.text);
      this.begun = true;
      for await (const frame of streamMore({ sessionId: this.sessionId, signal })) {
        signal.throwIfAborted();
        answer.take(frame);
      }
    });
  }

  startAnew() {
    this.stop();
    this.leave(); // what still ends of the old chat is no part of the new one
    this.sessionId = null;
    this.messages = [];
    remember(this);
    this.transcript.clear();
  }

  show({ role, text, facts, failure, cut }) {
    if (role === "user") return this.transcript.addQuestion(text);
    const view = this.transcript.addAnswer();
    view.append(text);
    if (failure) view.fail(failure);
    else view.end(facts, cut && this.sessionId ? () => this.goOn(view) : null);
    return undefined;
  }

  async answer(text) {
    await this.write((answer, signal) => this.stream(text, answer, signal), text);
  }

  /** Have `work(answer, signal)` write an answer. `text` is what to ask again where that fails. */
  async write(work, text = null) {
    const abort = new AbortController();
    const answer = new Answer(this.transcript.addAnswer());
    this.abort = abort;
    this.begun = false;
    this.partial = () => ({ ...answer.record("Stopped"), unfinished: true });
    this.onBusy(true);
    this.transcript.announce("Answering…");
    const { record, spoken } = await this.run(work, answer, abort, text);
    if (this.abort === abort) {
      this.abort = this.partial = null;
      this.keep(record);
      this.transcript.announce(spoken);
      this.onBusy(false);
    }
  }

  /** Returns what to remember and what to say aloud. */
  async run(work, answer, abort, text) {
    try {
      await work(answer, abort.signal);
      const facts = answer.facts();
      answer.view.end(facts);
      return { record: answer.record(facts), spoken: answer.view.text };
    } catch (error) {
      if (abort.signal.aborted) {
        answer.view.end("Stopped", this.sessionId ? () => this.goOn(answer.view) : null);
        return { record: { ...answer.record("Stopped"), cut: true }, spoken: "Stopped." };
      }
      return this.failed(error, answer, text);
    }
  }

  failed(error, answer, text) {
    if (!(error instanceof ApiError)) console.error(error);
    const failure = error instanceof ApiError ? error.message : "Something went wrong in this page.";
    // What was refused for what it says (4xx) would be refused again; a token can be had (401).
    const hopeless = error.status >= 400 && error.status < 500 && error.status !== 401;
    answer.view.fail(failure, hopeless || !text ? null : () => this.askAgain(text, answer));
    this.onTrouble(error);
    return { record: { ...answer.record(""), failure }, spoken: failure };
  }

  askAgain(text, failed) {
    if (this.busy) return;
    failed.view.element.remove();
    this.messages = this.messages.filter((message) => message.id !== failed.id);
    this.answer(text);
  }

  async stream(text, answer, signal) {
    const since = performance.now();
    for (;;) {
      try {
        this.begun = true; // it may have, before a word of it is here
        const frames = streamChat({ message: text, sessionId: this.sessionId, signal });
        for await (const frame of frames) {
          signal.throwIfAborted();
          answer.take(frame);
        }
        return;
      } catch (error) {
        const mayWait = error.status === 503 || error.status === 429;
        if (!mayWait || performance.now() - since > GIVE_UP_MS) throw error;
        this.begun = false;
        this.onTrouble(error);
        await this.pause(error, answer.view, signal);
      }
    }
  }

  /** Wait as long as the service asks, counting down where the answer will be. */
  async pause(error, view, signal) {
    const seconds = Math.ceil(Math.min(LONGEST_PAUSE_S, Math.max(1, error.retryAfterSeconds ?? 2)));
    for (let left = seconds; left > 0; left -= 1) {
      view.wait(`${error.message} Trying again in ${left} s.`);
      await delay(1000, signal);
    }
    view.wait("");
  }

  keep(record) {
    this.messages.push(record);
    remember(this);
  }
}

/** A message as the service keeps it, as this page remembers it. */
function toRecord({ role, text, status }) {
  if (role === "user") return { role, text };
  return { role: "assistant", text, facts: status === "incomplete" ? "Ended early" : "", cut: status === "incomplete" };
}

/** The frames of one answer, put where they belong. */
class Answer {
  constructor(view) {
    this.view = view;
    this.id = newId();
    this.numPieces = 0;
    this.last = {};
  }

  take(frame) {
    if (frame.dropped_messages) {
      this.view.note("The beginning of this chat no longer fits the model's memory and was left out.");
    }
    if (frame.token) {
      this.began ??= performance.now();
      this.numPieces += 1;
      this.view.append(frame.token);
    }
    if (frame.done) {
      this.ended = performance.now();
      this.last = frame;
    }
  }

  /** "212 tokens · 24.1 tokens/s", and why it ended when that is not plain to see. */
  facts() {
    const count = this.last.completion_tokens ?? this.numPieces;
    const facts = [`${count} ${count === 1 ? "token" : "tokens"}`];
    const seconds = (this.ended - this.began) / 1000;
    // The first token came with the start of the clock, so it is not part of the pace.
    if (count > 1 && seconds > 0) facts.push(`${((count - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.last.finish_reason === "length") facts.push("ended at the length limit");
    if (this.last.finish_reason === "shutdown") facts.push("ended early: the service is restarting");
    return facts.join(" · ");
  }

  record(facts) {
    return { role: "assistant", id: this.id, text: this.view.text, facts };
  }
}

const newId = () => crypto.getRandomValues(new Uint32Array(4)).join("-");

function delay(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => { clearTimeout(timer); reject(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); resolve(); }, milliseconds);
    signal.addEventListener("abort", stop, { once: true });
  });
}
