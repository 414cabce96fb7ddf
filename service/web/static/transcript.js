// The list of messages: adds to it, and follows its end unless the reader went elsewhere.

import { AnswerView } from "./answer.js";
import { make } from "./elements.js";
import { QuestionView } from "./question.js";

const NEAR_END_PX = 60;

export class Transcript {
  /** `live` is the region that screen readers are told about: once per answer, not per token. */
  constructor({ scroller, list, welcome, toEnd, live }) {
    Object.assign(this, { scroller, list, welcome, toEnd, live });
    this.follows = true;
    scroller.addEventListener("scroll", () => this.look(), { passive: true });
    toEnd.addEventListener("click", () => this.goToEnd());
    new ResizeObserver(() => this.keepUp()).observe(scroller);
  }

  /** `deeds` as `QuestionView` takes them. */
  addQuestion(text, deeds) {
    const question = new QuestionView(text, deeds);
    this.add(question.element);
    return question;
  }

  addAnswer() {
    const answer = new AnswerView(() => this.keepUp());
    this.add(answer.element);
    return answer;
  }

  add(element) {
    this.welcome.hidden = true;
    this.list.append(element);
    this.goToEnd();
  }

  /** Take away a message and all that come after it. */
  cut(element) {
    while (element.nextSibling) element.nextSibling.remove();
    element.remove();
  }

  /** Which of the messages this is, from 0. */
  indexOf(element) {
    return [...this.list.querySelectorAll(":scope > .message")].indexOf(element);
  }

  /** While an answer is being written, nothing branches off. */
  setBusy(busy) {
    this.list.dataset.busy = String(busy);
  }

  /** Say something between the messages; `label` and `onClick` make a button beside it. */
  tell(sentence, label, onClick) {
    const line = make("p", "told", sentence);
    if (label) {
      const button = make("button", "quiet go-on", label);
      button.type = "button";
      button.addEventListener("click", onClick);
      line.append(" ", button);
    }
    this.list.append(line);
    this.announce(sentence);
    this.goToEnd();
  }

  clear() {
    this.list.replaceChildren();
    this.welcome.hidden = false;
    this.goToEnd();
  }

  announce(text) {
    this.live.textContent = text;
  }

  goToEnd() {
    this.follows = true;
    this.keepUp();
  }

  keepUp() {
    if (this.follows) this.scroller.scrollTop = this.scroller.scrollHeight;
    this.look();
  }

  /** Whoever scrolls up wants to read there; whoever comes back to the end wants to follow. */
  look() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const atEnd = scrollHeight - scrollTop - clientHeight < NEAR_END_PX;
    if (atEnd || this.lastTop > scrollTop) this.follows = atEnd;
    this.lastTop = scrollTop;
    this.toEnd.hidden = this.follows;
  }
}
