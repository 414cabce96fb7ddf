// How one answer looks: while it is awaited, while it grows, and when it has ended.

import { copyButton } from "./copy.js";
import { iconButton, make } from "./elements.js";
import { icon } from "./icons.js";
import { MarkdownStream } from "./markdown.js";

export class AnswerView {
  /** `onGrow` is called after each change of height. */
  constructor(onGrow) {
    this.onGrow = onGrow;
    this.text = "";
    this.unshown = "";
    this.frame = 0;
    this.element = make("article", "message answer");
    this.element.setAttribute("aria-label", "Answer");
    this.element.setAttribute("aria-busy", "true");
    this.body = make("div", "prose");
    this.waiting = make("p", "waiting");
    this.element.append(this.body, this.waiting);
    this.stream = new MarkdownStream(this.body);
    this.wait("");
  }

  /** Say why nothing is there yet; without a reason only the dots move. */
  wait(reason) {
    const dots = make("span", "dots");
    dots.append(make("i"), make("i"), make("i"));
    this.waiting.replaceChildren(dots, reason);
    this.waiting.hidden = false;
    this.onGrow();
  }

  /** Add text; it is shown with the next frame, however many pieces come before that. */
  append(text) {
    this.text += text;
    this.unshown += text;
    this.frame ||= requestAnimationFrame(() => this.flush());
  }

  flush() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    if (!this.unshown) return;
    this.waiting.hidden = true;
    this.stream.append(this.unshown);
    this.unshown = "";
    this.onGrow();
  }

  /** The answer is over. `facts` go under it, beside buttons for what can be done with it: `again`
   * has another one written, `fork` has the chat branch off behind it, `goOn` has it written on. */
  end(facts = "", { goOn = null, again = null, fork = null } = {}) {
    this.flush();
    this.stream.finish();
    this.waiting.remove();
    this.element.setAttribute("aria-busy", "false");
    const foot = make("footer");
    if (this.text) foot.append(copyButton("Copy answer", () => this.text));
    if (again) foot.append(iconButton("action", "retry", "Answer again", again));
    if (fork && this.text) foot.append(iconButton("action", "fork", "Fork after this answer", fork));
    if (facts) foot.append(make("span", "facts", facts));
    if (goOn && this.text) foot.append(moreButton(goOn));
    if (foot.hasChildNodes()) this.element.append(foot);
    this.onGrow();
  }

  /** It ended badly. `retry`, when given, is offered as a button. */
  fail(sentence, retry) {
    this.end();
    const box = make("div", "failure");
    box.append(make("p", "", sentence));
    if (retry) box.append(retryButton(retry));
    this.element.append(box);
    this.onGrow();
  }

  note(sentence) {
    this.element.prepend(make("p", "note", sentence));
    this.onGrow();
  }
}

function moreButton(goOn) {
  const button = make("button", "quiet go-on", "Continue");
  button.type = "button";
  button.addEventListener("click", goOn, { once: true });
  return button;
}

function retryButton(retry) {
  const button = make("button", "retry");
  button.type = "button";
  button.append(icon("retry"), "Try again");
  button.addEventListener("click", retry);
  return button;
}
