// Markdown's blocks: lines in, a plain description out. Knows nothing of the page.

const FENCE = /^( {0,3})(`{3,}|~{3,})\s*([^`]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:\s+(.*?))?(?:\s+#+)?\s*$/;
const RULE = /^ {0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:( +)(.*)|\s*)$/;
const DELIMITER = /^ {0,3}\|?\s*:?-+:?\s*(?:\|\s*:?-+:?\s*)*\|?\s*$/;
const MAX_DEPTH = 8; // lists and quotes inside one another; deeper ones are shown as text

/**
 * Split lines into blocks: `{kind, from, to, …}` where `from` and `to` are line numbers, `to`
 * excluded. No line after `to` can change a block, except for the last one.
 */
export function parseBlocks(lines, depth = 0) {
  const blocks = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = { from: at, ...readBlock(lines, at, depth) };
    blocks.push(block);
    at = block.to;
  }
  return blocks;
}

function readBlock(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line)) return readFence(lines, at);
  if (HEADING.test(line)) return readHeading(line, at);
  if (RULE.test(line)) return { kind: "rule", to: at + 1 };
  if (depth < MAX_DEPTH && QUOTE.test(line)) return readQuote(lines, at, depth);
  if (depth < MAX_DEPTH && ITEM.test(line)) return readList(lines, at, depth);
  if (startsTable(lines, at)) return readTable(lines, at);
  return readParagraph(lines, at, depth);
}

function readHeading(line, at) {
  const [, marks, text] = HEADING.exec(line);
  return { kind: "heading", level: marks.length, text: text ?? "", to: at + 1 };
}

function readFence(lines, at) {
  const [, indent, fence, info] = FENCE.exec(lines[at]);
  const close = new RegExp(`^ {0,3}${fence[0]}{${fence.length},}\\s*$`);
  let to = at + 1;
  while (to < lines.length && !close.test(lines[to])) to += 1;
  const closed = to < lines.length;
  const content = lines.slice(at + 1, to).map((line) => dedent(line, indent.length));
  // The last line of an open block may be half of the fence that will close it.
  if (!closed && /^ {0,3}[`~]{1,2}$/.test(content.at(-1) ?? "")) content.pop();
  const language = info.trim().split(/\s+/)[0];
  const text = content.join("\n");
  return { kind: "code", language, text, closed, indent: indent.length, to: closed ? to + 1 : to };
}

function readQuote(lines, at, depth) {
  let to = at;
  while (to < lines.length && (QUOTE.test(lines[to]) || continuesParagraph(lines, to, depth))) to += 1;
  const content = lines.slice(at, to).map((line) => line.replace(QUOTE, ""));
  return { kind: "quote", blocks: parseBlocks(content, depth + 1), to };
}

/** A line without its own mark that goes on with the paragraph above it, as people write them. */
function continuesParagraph(lines, at, depth) {
  return Boolean(lines[at].trim()) && Boolean(lines[at - 1]?.trim()) && !interrupts(lines, at, depth);
}

function readList(lines, at, depth) {
  const ordered = /\d/.test(ITEM.exec(lines[at])[2]);
  const items = [];
  let to = at;
  let loose = false;
  while (to < lines.length && startsItem(lines[to], ordered)) {
    const item = readItem(lines, to, depth);
    items.push(parseBlocks(item.lines, depth + 1));
    loose ||= item.lines.some((line, n) => !line.trim() && n < item.lines.length - 1);
    to = item.to;
    const next = skipBlank(lines, to);
    if (next > to && next < lines.length && startsItem(lines[next], ordered)) {
      loose = true;
      to = next;
    }
  }
  const start = ordered ? Number.parseInt(ITEM.exec(lines[at])[2], 10) : null;
  return { kind: "list", ordered, start, loose, items, to };
}

function startsItem(line, ordered) {
  const match = ITEM.exec(line);
  return Boolean(match) && !RULE.test(line) && /\d/.test(match[2]) === ordered;
}

/** One item: its first line, what is indented under it, and lines that continue its paragraph. */
function readItem(lines, at, depth) {
  const [, indent, mark, gap = " ", text = ""] = ITEM.exec(lines[at]);
  const width = indent.length + mark.length + (gap.length > 4 ? 1 : gap.length);
  const content = [text];
  let to = at + 1;
  for (; to < lines.length; to += 1) {
    const next = skipBlank(lines, to);
    const indented = next < lines.length && indentOf(lines[next]) >= Math.min(width, 2 + indent.length);
    if (!indented && (next > to || !continuesParagraph(lines, to, depth))) break;
    if (indented && isItemOutside(lines[next], width)) break;
    content.push(dedent(lines[to], width));
  }
  return { lines: content, to };
}

/** A less indented mark than the item's text: the next item, or one of an outer list. */
function isItemOutside(line, width) {
  return indentOf(line) < width && indentOf(line) < 2 && ITEM.test(line);
}

function startsTable(lines, at) {
  return at + 1 < lines.length && lines[at].includes("|") && DELIMITER.test(lines[at + 1])
    && cells(lines[at]).length === cells(lines[at + 1]).length;
}

function readTable(lines, at) {
  const aligns = cells(lines[at + 1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : "start");
  let to = at + 2;
  while (to < lines.length && lines[to].includes("|")) to += 1;
  const rows = lines.slice(at + 2, to).map((line) => cells(line).slice(0, aligns.length));
  return { kind: "table", aligns, head: cells(lines[at]), rows, to };
}

function cells(line) {
  // An escaped bar is no border: it sits out the splitting as a character that no text holds.
  const inner = line.trim().replaceAll("\\|", "\0").replace(/^\||\|$/g, "");
  return inner.split("|").map((cell) => cell.trim().replaceAll("\0", "|"));
}

function readParagraph(lines, at, depth) {
  let to = at + 1;
  while (to < lines.length && lines[to].trim() && !interrupts(lines, to, depth)) to += 1;
  const text = lines.slice(at, to).map((line) => line.replace(/^\s+/, "")).join("\n");
  return { kind: "paragraph", text: text.trimEnd(), to };
}

function interrupts(lines, at, depth) {
  const line = lines[at];
  if (FENCE.test(line) || HEADING.test(line) || RULE.test(line)) return true;
  if (startsTable(lines, at)) return true;
  return depth < MAX_DEPTH && (QUOTE.test(line) || ITEM.test(line));
}

function skipBlank(lines, at) {
  let next = at;
  while (next < lines.length && !lines[next].trim()) next += 1;
  return next;
}

const indentOf = (line) => line.length - line.trimStart().length;

const dedent = (line, width) => line.slice(Math.min(width, indentOf(line)));
