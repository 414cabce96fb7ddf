// Markdown within a line: text in, DOM nodes out. Text only ever becomes text nodes.

const MAX_OPEN = 32; // emphasis that may be open at once; bounds the work on adversarial text
const WORD = /[\p{L}\p{N}]/u;
const TOKEN =
  /\\([!-/:-@[-`{-~])|(`+)|(\*{1,3}|_{1,3}|~~)|(!?)\[((?:[^[\]\\]|\\.)*)\]\(([^()\s]*(?:\([^()\s]*\)[^()\s]*)*)(?:\s+"[^"]*")?\)|<(https?:\/\/[^\s<>]+)>|(https?:\/\/[^\s<>]*[^\s<>.,;:!?'")\]*_~])|( {2,}\n|\\\n)/gu;

/** Render one stretch of inline Markdown. `links` false: inside a link there can be no other. */
export function renderInline(text, links = true) {
  const open = new Emphasis();
  const token = new RegExp(TOKEN);
  let from = 0;
  for (let match; (match = token.exec(text)); ) {
    open.text(text.slice(from, match.index));
    from = token.lastIndex = consume(text, match, open, links);
  }
  open.text(text.slice(from));
  return open.finish();
}

/** Handle one token; returns where the rest of the text begins. */
function consume(text, match, open, links) {
  const [whole, escaped, ticks, mark, image, label, target, autolink, bare, hardBreak] = match;
  const end = match.index + whole.length;
  if (escaped) open.text(escaped);
  else if (ticks) return codeSpan(text, match.index, ticks, open);
  else if (mark) open.mark(mark, text[match.index - 1] ?? " ", text[end] ?? " ");
  else if (hardBreak) open.node(document.createElement("br"));
  else if (autolink || bare) open.node(links ? link(autolink ?? bare, autolink ?? bare) : textNode(whole));
  else if (links) open.node(link(target, label || (image && "image") || target) ?? textNode(whole));
  else open.text(whole);
  return end;
}

function codeSpan(text, start, ticks, open) {
  const from = start + ticks.length;
  const runs = /`+/g;
  runs.lastIndex = from;
  let close = runs.exec(text);
  while (close && close[0].length !== ticks.length) close = runs.exec(text);
  if (!close) {
    open.text(ticks);
    return from;
  }
  const code = document.createElement("code");
  const inside = text.slice(from, close.index).replaceAll("\n", " ");
  code.textContent = /^ .*[^ ].* $/.test(inside) ? inside.slice(1, -1) : inside;
  open.node(code);
  return runs.lastIndex;
}

/** A link to the web, or null for any other target: scripts, data and files are never links. */
function link(target, label) {
  const url = toUrl(target);
  if (!url || !["http:", "https:"].includes(url.protocol)) return null;
  const anchor = document.createElement("a");
  anchor.href = url.href;
  anchor.target = "_blank";
  anchor.rel = "noopener noreferrer nofollow";
  anchor.append(label === target ? textNode(label) : renderInline(label, false));
  return anchor;
}

function toUrl(target) {
  try {
    return new URL(target);
  } catch {
    return null; // not an address at all; `URL.canParse` would say so, where there is one
  }
}

const textNode = (text) => document.createTextNode(text);

/** Nodes being collected, with the emphasis that is open around them. */
class Emphasis {
  constructor() {
    this.frames = [{ mark: "", nodes: [] }];
  }

  get top() {
    return this.frames.at(-1);
  }

  text(text) {
    if (text) this.top.nodes.push(textNode(text));
  }

  node(node) {
    this.top.nodes.push(node);
  }

  /** A run of `*`, `_` or `~`: closes what is open, else opens, else is only text. */
  mark(run, before, after) {
    const intraword = run[0] === "_" && WORD.test(before) && WORD.test(after);
    let rest = run;
    while (rest) {
      const inner = this.top.mark;
      const mark = inner && rest.startsWith(inner) ? inner : rest.slice(0, 2);
      if (!intraword && /\S/.test(before) && this.close(mark)) rest = rest.slice(mark.length);
      else if (!intraword && /\S/.test(after) && this.frames.length < MAX_OPEN) rest = this.open(rest);
      else return this.text(rest);
    }
    return undefined;
  }

  open(run) {
    const mark = run.slice(0, 2);
    this.frames.push({ mark, nodes: [] });
    return run.slice(mark.length);
  }

  close(mark) {
    const at = this.frames.findLastIndex((frame) => frame.mark === mark);
    if (at < 1) return false;
    while (this.frames.length > at + 1) this.flatten();
    const { nodes } = this.frames.pop();
    const tag = mark === "~~" ? "del" : mark.length === 2 ? "strong" : "em";
    const element = document.createElement(tag);
    element.append(...nodes);
    this.node(element);
    return true;
  }

  /** What was opened last is never closed: its mark was text after all. */
  flatten() {
    const { mark, nodes } = this.frames.pop();
    this.text(mark);
    for (const node of nodes) this.node(node);
  }

  finish() {
    while (this.frames.length > 1) this.flatten();
    const fragment = document.createDocumentFragment();
    for (const node of this.top.nodes) fragment.append(node);
    return fragment;
  }
}
