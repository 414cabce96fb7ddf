// The list of messages: adds to it, and follows its end unless the reader went elsewhere.

import { AnswerView } from "./answer.js";

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

  addQuestion(text) {
    const article = document.createElement("article");
    article.className = "message question";
    article.setAttribute("aria-label", "You");
    const body = document.createElement("p");
    body.textContent = text;
    article.append(body);
    this.add(article);
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
