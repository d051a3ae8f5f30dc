// The raw frames: the last 500, drawn only while somebody looks.
import { byId, make } from "./dom.js";

const MOST = 500;

export class Frames {
  #held = [];
  #fresh = [];
  #open = false;
  #asked = false;

  constructor() {
    byId("frames-clear").addEventListener("click", () => {
      this.#held = [];
      this.#redraw();
    });
  }

  add(detail) {
    const held = { ...detail, at: new Date() };
    this.#held.push(held);
    if (this.#held.length > 2 * MOST) this.#held = this.#held.slice(-MOST);
    if (!this.#open) return;
    this.#fresh.push(held);
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => this.#draw());
  }

  show(open) {
    this.#open = open;
    this.#redraw();
  }

  #redraw() {
    byId("frame-list").replaceChildren();
    this.#fresh = this.#open ? this.#held.slice(-MOST) : [];
    this.#draw();
  }

  #draw() {
    this.#asked = false;
    const list = byId("frame-list");
    const scroller = list.parentElement;
    const follows = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight < 40;
    list.append(...this.#fresh.slice(-MOST).map(row));
    this.#fresh = [];
    while (list.childElementCount > MOST) list.firstChild.remove();
    byId("frame-count").textContent = `${list.childElementCount} of at most ${MOST}`;
    if (follows) scroller.scrollTop = scroller.scrollHeight;
  }
}

function row({ direction, frame, text, at }) {
  const sent = direction === "out";
  const arrow = make("span", { class: "arrow", "aria-label": sent ? "sent" : "received", role: "img" }, sent ? "↑" : "↓");
  const number = make("span", { class: "seq" }, frame.event_id ? `#${frame.seq}` : "");
  const time = make("time", {}, at.toTimeString().slice(0, 8));
  const whole = make("pre", { tabindex: "0", dir: "ltr" });
  const details = make("details", {}, make("summary", {}, arrow, make("span", { class: "type" }, String(frame.type)), number, time), whole);
  details.addEventListener("toggle", () => {
    whole.textContent ||= JSON.stringify(frame.type === "authenticate" ? { ...frame, payload: "…" } : JSON.parse(text), null, 2);
  });
  return make("li", { class: direction }, details);
}
