// One conversation: asks, streams, stops, and remembers.

import { ApiError, eraseConversation, fetchMessages, stopAnswers, streamChat, streamMore, watchAnswer } from "./api.js";
import { branchOff, findTurn } from "./branch.js";
import { recall, remember } from "./memory.js";

const GIVE_UP_MS = 10 * 60 * 1000; // of being told to come back later
const LONGEST_PAUSE_S = 30;

export class Chat {
  /** `onBusy(true|false)` when an answer begins and ends; `onTrouble(error)` when the service balks;
   * `onDraft(text)` when the person is to write, at `text` where it is given;
   * `onReplaced()` when an old conversation has made way. */
  constructor({ transcript, onBusy, onTrouble, onDraft, onReplaced }) {
    Object.assign(this, { transcript, onBusy, onTrouble, onDraft, onReplaced });
    this.questions = []; // their views, the oldest first
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

  /** Ask; resolves when the answer has ended: true where it ended well. Does nothing while one is
   * running. */
  async ask(text) {
    if (this.busy) return false;
    this.sessionId ??= newId(); // ours, so that it is known before anything has come back
    this.addQuestion(text);
    this.messages.push({ role: "user", text });
    remember(this);
    return this.answer(text);
  }

  addQuestion(text) {
    const question = this.transcript.addQuestion(text, {
      onEdit: (edited) => this.askInstead(question, edited),
      onFork: () => this.forkBefore(question),
      isLast: () => this.questions.at(-1) === question,
    });
    this.questions.push(question);
  }

  editLast() {
    if (!this.busy) this.questions.at(-1)?.edit();
  }

  /** What can be done with an answer, besides copying it. */
  deeds(view, cut) {
    const question = this.questions.at(-1);
    if (!question || !this.sessionId) return {};
    return {
      goOn: cut ? () => this.goOn(view) : null,
      again: () => this.askInstead(question, question.text),
      fork: () => this.forkAfter(question),
    };
  }

  /** Ask in the place of a question. What was said there last makes way once the new answer is
   * there; a conversation that has gone on from there is kept, and this one is a copy. */
  async askInstead(question, text) {
    await this.branch(question, async (place) => {
      if (!place) {
        this.drop(question);
        this.onDraft();
        await this.ask(text);
        return;
      }
      const { turn, isLast } = place;
      const original = this.sessionId;
      const anew = turn === 1 && text !== question.text; // its title comes from what it begins with
      const copy = anew ? null : await branchOff(original, turn - 1, !isLast);
      this.drop(question);
      this.onDraft(); // the button that was pressed has gone
      this.sessionId = copy;
      if (!isLast) this.tellCopy(original);
      const well = await this.ask(text);
      // Another device may have gone on with it meanwhile.
      const still = well && isLast && (await findTurn(original, question.text, 0));
      if (still && still.isLast && still.turn === turn) {
        await eraseConversation(original);
        this.onReplaced();
      }
    });
  }

  /** Go on in a copy that ends with the answer to this question. */
  async forkAfter(question) {
    await this.branch(question, async (place) => {
      const original = this.sessionId;
      const { turn } = place ?? nothingKept();
      if (await this.open(await branchOff(original, turn, true))) this.tellCopy(original);
      this.onDraft();
    });
  }

  /** Go on in a copy that ends before this question, which is there to be written on. */
  async forkBefore(question) {
    await this.branch(question, async (place) => {
      const original = this.sessionId;
      const { turn } = place ?? nothingKept();
      if (turn === 1) this.startAnew();
      else if (!(await this.open(await branchOff(original, turn - 1, true)))) return;
      this.tellCopy(original);
      this.onDraft(question.text);
    });
  }

  /** Have `work({turn, isLast})` branch off at a question, unless something else is going on. It
   * gets null for a last question that the service has refused, and so does not keep. */
  async branch(question, work) {
    if (this.busy || this.branching) return;
    this.branching = true;
    try {
      const back = this.questions.length - 1 - this.questions.indexOf(question);
      const place = await findTurn(this.sessionId, question.text, back);
      await work(place ?? (back > 0 ? nothingKept() : null));
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.transcript.tell(error.message);
      this.onTrouble(error);
    } finally {
      this.branching = false;
    }
  }

  /** Take away a question and all that comes after it, on the page. */
  drop(question) {
    const index = this.transcript.indexOf(question.element);
    this.transcript.cut(question.element);
    this.messages = this.messages.slice(0, index);
    this.questions = this.questions.slice(0, this.questions.indexOf(question));
  }

  tellCopy(original) {
    this.transcript.tell("This is a copy. The original is kept.", "Open the original", () => this.open(original));
  }

  /** End the running answer, here and behind. */
  stop() {
    if (!this.busy) return;
    this.abort.abort();
    if (this.begun) stopAnswers(this.sessionId).catch((error) => error.status !== 404 && this.onTrouble(error));
  }

  /** Show a conversation that is kept, and follow what is being written to it; false where there is
   * none. */
  async open(sessionId) {
    let messages;
    try {
      messages = await fetchMessages(sessionId);
    } catch (error) {
      this.onTrouble(error);
      if (error.status === 404) this.startAnew();
      return false;
    }
    this.leave();
    this.sessionId = sessionId;
    const growing = messages.at(-1)?.status === "in_progress";
    this.messages = messages.slice(0, growing ? -1 : undefined).map(toRecord);
    remember(this);
    this.clear();
    this.messages.forEach((message) => this.show(message));
    if (growing) await this.write((answer, signal) => this.follow(answer, signal));
    return true;
  }

  clear() {
    this.questions = [];
    this.transcript.clear();
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
    this.clear();
  }

  show({ role, text, facts, failure, cut }) {
    if (role === "user") return this.addQuestion(text);
    const view = this.transcript.addAnswer();
    view.append(text);
    if (failure) view.fail(failure);
    else view.end(facts, this.deeds(view, cut));
    return undefined;
  }

  answer(text) {
    return this.write((answer, signal) => this.stream(text, answer, signal), text);
  }

  /** Have `work(answer, signal)` write an answer; returns whether it ended well. `text` is what to
   * ask again where it does not. */
  async write(work, text = null) {
    const abort = new AbortController();
    const answer = new Answer(this.transcript.addAnswer());
    this.abort = abort;
    this.begun = false;
    this.partial = () => ({ ...answer.record("Stopped"), unfinished: true });
    this.onBusy(true);
    this.transcript.announce("Answering…");
    const { record, spoken, well = false } = await this.run(work, answer, abort, text);
    if (this.abort !== abort) return false;
    this.abort = this.partial = null;
    this.keep(record);
    this.transcript.announce(spoken);
    this.onBusy(false);
    return well;
  }

  /** Returns what to remember and what to say aloud. */
  async run(work, answer, abort, text) {
    try {
      await work(answer, abort.signal);
      const facts = answer.facts();
      answer.view.end(facts, this.deeds(answer.view, answer.isCut));
      return { record: { ...answer.record(facts), cut: answer.isCut }, spoken: answer.view.text, well: true };
    } catch (error) {
      if (abort.signal.aborted) {
        answer.view.end("Stopped", this.deeds(answer.view, true));
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

  /** Once more after a failure. What there is of an answer is no part of what the next one reads. */
  askAgain(text, failed) {
    if (this.busy) return;
    if (failed.begun) return this.askInstead(this.questions.at(-1), text);
    failed.view.element.remove();
    this.messages = this.messages.filter((message) => message.id !== failed.id);
    return this.answer(text);
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

function nothingKept() {
  throw new ApiError("The service does not keep this message, so nothing can branch off from it.");
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
    this.begun = false; // whether the service keeps it
  }

  /** Whether there is more to be written. */
  get isCut() {
    return this.last.finish_reason === "length" || this.last.finish_reason === "shutdown";
  }

  take(frame) {
    if (frame.session_id) this.begun = true;
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
