// Markdown to DOM, safely (only createElement and text nodes) and while it is still being written.

import { parseBlocks } from "./blocks.js";
import { codeBlock } from "./code_block.js";
import { renderInline } from "./inline.js";

/** A whole text at once. */
export function renderMarkdown(text, container) {
  const stream = new MarkdownStream(container);
  stream.append(text);
  stream.finish();
}

/**
 * Text that grows. What can no longer change is rendered once and left alone; only the last block
 * is rendered anew, and an open code block only gets its new text. So the cost of a token does not
 * depend on how much was written before it.
 */
export class MarkdownStream {
  constructor(container) {
    this.container = container;
    this.pending = ""; // from the beginning of the first block that can still change
    this.tail = []; // the nodes that show it
    this.openCode = null;
  }

  append(text) {
    this.pending += text.replaceAll("\r\n", "\n").replaceAll("\t", "    ");
    if (this.openCode?.extend(this.pending)) return;
    this.render(false);
  }

  finish() {
    this.render(true);
  }

  render(isWhole) {
    const lines = this.pending.split("\n");
    const blocks = parseBlocks(lines);
    const numSettled = isWhole ? blocks.length : countSettled(blocks, lines);
    const rest = numSettled === 0 ? 0 : blocks[numSettled]?.from ?? blocks[numSettled - 1].to;
    this.pending = lines.slice(rest).join("\n");
    for (const node of this.tail) node.remove();
    this.tail = [];
    this.openCode = null;
    blocks.forEach((block, n) => this.show(block, n < numSettled));
  }

  show(block, settled) {
    const node = renderBlock(block);
    this.container.append(node);
    if (settled) return;
    this.tail.push(node);
    const isOpen = block.kind === "code" && !block.closed && block.indent === 0;
    if (isOpen && this.tail.length === 1) this.openCode = new OpenCode(node, this.pending);
  }
}

/** An unclosed fence at the end: as long as no fence closes it, more text is only more text. */
class OpenCode {
  constructor(node, pending) {
    this.text = node.querySelector("code").firstChild;
    this.shownTo(pending);
    this.readInfo = pending.includes("\n"); // else the fence's own line is still being written
  }

  /** Show what is new. False when it might close the block, so that it has to be parsed. */
  extend(pending) {
    if (!this.readInfo || /^ {0,3}[`~]/m.test(pending.slice(this.lineStart))) return false;
    this.text.appendData(pending.slice(this.shown));
    this.shownTo(pending);
    return true;
  }

  shownTo(pending) {
    this.shown = pending.length;
    this.lineStart = pending.lastIndexOf("\n") + 1;
  }
}

/** How many blocks, from the first, cannot change any more whatever is written next. */
function countSettled(blocks, lines) {
  const last = lines.length - 1; // the line that is still being written
  const isOver = ({ kind, closed, to }) =>
    (kind === "code" && closed && to <= last) ||
    (kind !== "list" && kind !== "code" && to < last && !lines[to].trim());
  const open = blocks.findIndex((block, n) => !isOver(block) && !(blocks[n + 1]?.from < last));
  return open < 0 ? blocks.length : open;
}

function renderBlock(block) {
  return RENDER[block.kind](block);
}

const RENDER = {
  code: (block) => codeBlock(block.text, block.language),
  rule: () => document.createElement("hr"),
  // The page's own heading is the first level, so a message begins at the third.
  heading: (block) => element(`h${Math.min(6, block.level + 2)}`, renderInline(block.text)),
  paragraph: (block) => element("p", renderInline(block.text)),
  quote: (block) => element("blockquote", ...block.blocks.map(renderBlock)),
  list: renderList,
  table: renderTable,
};

function renderList(block) {
  const list = element(block.ordered ? "ol" : "ul");
  if (block.ordered && block.start !== 1) list.start = block.start;
  for (const item of block.items) {
    const tight = (part) => !block.loose && part.kind === "paragraph";
    list.append(element("li", ...item.map((b) => (tight(b) ? renderInline(b.text) : renderBlock(b)))));
  }
  return list;
}

function renderTable(block) {
  const row = (tag, cells) =>
    element("tr", ...block.aligns.map((align, n) => {
      const cell = element(tag, renderInline(cells[n] ?? ""));
      cell.className = `align-${align}`;
      return cell;
    }));
  const head = element("thead", row("th", block.head));
  const body = element("tbody", ...block.rows.map((cells) => row("td", cells)));
  const frame = element("div", element("table", head, body));
  frame.className = "table";
  return frame;
}

function element(tag, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
}
