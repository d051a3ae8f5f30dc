// An answer as it grows: paragraphs, lists, code, bold; everything else stays as it was written. Only what can still
// change is made anew: a word at a paragraph's end is appended to its text.
import { make } from "./dom.js";

const FENCE = /^\s{0,3}(```+|~~~+)[^`]*$/;
const ITEM = /^\s*(?:[-*+]|(\d{1,3})[.)])\s+(?=\S)/;
const TITLE = /^#{1,4}\s+(?=\S)/;
const INLINE = /`([^`\n]{1,500})`|\*\*(?=\S)([^*\n]{1,500})\*\*/g;

export class Prose {
  #root;
  #shown = "";
  #stable = 0; // where in the text the last block begins
  #last = null; // its element
  #plain = null; // its text node, where more words can simply be appended

  constructor(root) {
    this.#root = root;
  }

  /** Shows a text: the one before with more at its end, or another one. */
  show(text) {
    if (text === this.#shown) return;
    const grows = text.startsWith(this.#shown);
    const fresh = grows ? text.slice(this.#shown.length) : text;
    this.#shown = text;
    if (grows && this.#plain !== null && !/[*`\n]/.test(fresh)) {
      this.#plain.appendData(fresh);
      return;
    }
    if (!grows) {
      this.#root.replaceChildren();
      this.#stable = 0;
      this.#last = null;
    }
    this.#last?.remove();
    this.#plain = null;
    for (const block of blocks(text, this.#stable)) {
      this.#last = element(block);
      this.#stable = block.start;
      this.#root.append(this.#last);
      // Once there is a space in it, the line cannot become a list or a title any more.
      const plain = block.kind === "p" && /\S\s/.test(block.lines.at(-1)) && !/[*`]/.test(block.text);
      this.#plain = plain ? this.#last.lastChild : null;
    }
  }
}

function* blocks(text, from) {
  let block = null;
  let at = from;
  for (const line of text.slice(from).split("\n")) {
    const start = at;
    at += line.length + 1;
    if (block?.kind === "pre") {
      if (line.trim().startsWith(block.fence) && FENCE.test(line)) {
        yield block;
        block = null;
      } else block.lines.push(line);
      continue;
    }
    const fence = FENCE.exec(line);
    const kind = fence ? "pre" : TITLE.test(line) ? "title" : ITEM.test(line) ? "list" : line.trim() ? "p" : null;
    const goesOn = block !== null && (kind === block.kind || (block.kind === "list" && /^\s+\S/.test(line))) && kind !== "title";
    if (block !== null && !goesOn) {
      yield block;
      block = null;
    }
    if (block !== null) block.lines.push(line);
    else if (kind !== null) block = { kind, start, fence: fence?.[1], lines: fence ? [] : [line] };
    if (block !== null) block.text = block.lines.join("\n");
  }
  if (block !== null) yield block;
}

function element({ kind, lines, text }) {
  if (kind === "pre") return make("pre", { tabindex: "0", dir: "ltr" }, make("code", {}, lines.join("\n")));
  if (kind === "title") return make("p", { class: "title", dir: "auto" }, ...inline(text.replace(TITLE, "")));
  if (kind === "p") return make("p", { dir: "auto" }, ...inline(text));
  const number = ITEM.exec(lines[0])[1];
  const items = [];
  for (const line of lines) {
    if (ITEM.test(line)) items.push(line.replace(ITEM, ""));
    else items.push(`${items.pop()}\n${line.trim()}`);
  }
  const list = number === undefined ? make("ul") : make("ol", { start: number });
  list.append(...items.map((item) => make("li", { dir: "auto" }, ...inline(item))));
  return list;
}

function* inline(text) {
  let at = 0;
  for (const found of text.matchAll(INLINE)) {
    if (found.index > at) yield text.slice(at, found.index);
    yield found[1] === undefined ? make("strong", {}, found[2]) : make("code", {}, found[1]);
    at = found.index + found[0].length;
  }
  if (at < text.length) yield text.slice(at);
}
