// One run: what was asked, the steps as a waterfall, the answer, and how it ended.
import { TERMINAL } from "./agentws.js";
import { button, duration, icon, make, put } from "./dom.js";
import { Prose } from "./prose.js";

const TERMS = { running: "Working", done: "Done", failed: "Failed", stopped: "Stopped", unknown: "Outcome unknown" };
const REASONS = { user: "you", disconnected: "a lost connection", interrupted: "a newer question", thread_deleted: "the deletion" };
const ENDED = new Set(["completed", "failed", "stopped", "refused"]);

export const hasEnded = (run) => ENDED.has(run.status);
export { TERMINAL };

export class RunView {
  /** The element to put into the page. */
  element = make("article", { class: "run" });

  #actions;
  #question = make("p", { class: "question", dir: "auto" });
  #more = make("button", { type: "button", class: "quiet more", click: () => this.#unfold(), hidden: "" });
  #title = make("span", { class: "trace-title" });
  #sum = make("span", { class: "trace-sum" });
  #steps = make("ol", { class: "steps" });
  #trace;
  #answer = make("div", { class: "answer" });
  #prose = new Prose(this.#answer);
  #end = make("div", { class: "end" });
  #rows = new Map();
  #drawn = "";

  /** @param actions `again(run)`, `stop(run)`, `copy(run)` */
  constructor(run, actions) {
    this.#actions = actions;
    this.#trace = make("details", { class: "trace" }, make("summary", {}, icon("fold"), this.#title, this.#sum), this.#steps);
    this.#trace.open = true;
    this.element.dataset.run = run.run_id;
    this.element.append(this.#question, this.#more, this.#trace, this.#answer, this.#end);
  }

  fold() {
    this.#trace.open = false;
  }

  #unfold(on = this.#question.classList.contains("long")) {
    this.#question.classList.toggle("long", !on);
    this.#more.setAttribute("aria-expanded", on);
    put(this.#more, on ? "Show less" : "Show all");
  }

  /** Shows what has changed. `now` is the server's time in milliseconds, for what is still going on. */
  update(run, now) {
    this.element.dataset.status = run.status;
    if (this.#question.textContent !== run.request) this.#ask(run.request);
    this.#prose.show(run.text);
    this.#answer.classList.toggle("growing", run.status === "running" && run.entries.at(-1)?.kind === "answer");
    this.#trace.hidden = run.entries.length === 0 && run.status !== "running";
    this.#drop(run);
    for (const entry of run.entries) this.#row(entry).update(entry);
    this.tick(run, now);
    const drawn = `${run.status} ${run.position} ${run.error?.message} ${run.text !== ""}`;
    if (drawn !== this.#drawn) this.#ending(run);
    this.#drawn = drawn;
  }

  #ask(text) {
    put(this.#question, text);
    this.#question.hidden = text === "";
    this.#more.hidden = text.length < 600 && text.split("\n").length < 9;
    if (!this.#more.hidden) this.#unfold(false);
  }

  /** Moves the bars and the clocks on. */
  tick(run, now) {
    const from = run.startedAt ?? now;
    const to = Math.max(run.endedAt ?? now, from + 1);
    for (const entry of run.entries) this.#rows.get(entry)?.place(entry, from, to);
    const tools = run.entries.filter((entry) => entry.kind === "tool").length;
    const parts = [duration(run.durationMs ?? to - from)];
    if (tools > 0) parts.unshift(tools === 1 ? "1 tool" : `${tools} tools`);
    if (run.attempt > 1) parts.unshift(`attempt ${run.attempt}`);
    put(this.#sum, parts.join(" · "));
    put(this.#title, run.status === "running" ? doing(run) : "Steps");
  }

  #row(entry) {
    let row = this.#rows.get(entry);
    if (row === undefined) {
      row = new Row(entry);
      this.#rows.set(entry, row);
      this.#steps.append(row.element);
    }
    return row;
  }

  /** Takes away what a new attempt has begun anew. */
  #drop(run) {
    if (this.#rows.size <= run.entries.length && [...this.#rows.keys()].every((entry) => run.entries.includes(entry))) return;
    for (const [entry, row] of this.#rows) {
      if (run.entries.includes(entry)) continue;
      row.element.remove();
      this.#rows.delete(entry);
    }
  }

  #ending(run) {
    const { again, stop, copy } = this.#actions;
    const parts = [];
    const say = (name, text) => parts.push(make("p", { class: "outcome" }, icon(name), make("span", {}, text)));
    if (run.status === "sending") say("clock", "Sending …");
    if (run.status === "queued") {
      say("clock", run.position > 1 ? `Waiting, number ${run.position} in line` : "Waiting, next in line");
      parts.push(button("Cancel", "stop", () => stop(run), { class: "quiet" }));
    }
    if (run.status === "stopped") say("stop", `Stopped by ${REASONS[run.reason] ?? run.reason ?? "you"}`);
    if (run.status === "failed" || run.status === "refused") say("alert", run.error?.message ?? "This run failed.");
    if (run.text !== "" && hasEnded(run)) parts.push(button("Copy", "copy", () => copy(run), { class: "quiet" }));
    if (run.status === "stopped" || run.status === "failed" || run.status === "refused") {
      parts.push(button(run.status === "refused" ? "Try again" : "Ask again", "again", () => again(run), { class: "quiet" }));
    }
    this.#end.replaceChildren(...parts);
    this.#end.hidden = parts.length === 0;
  }
}

function doing(run) {
  const last = run.entries.at(-1);
  if (last?.kind === "thinking") return "Thinking …";
  if (last?.kind === "answer") return "Answering …";
  if (last?.kind === "tool" && last.status === "running") return `Using ${last.name} …`;
  return "Working …";
}

/** A line of the waterfall; what it did opens below it. */
class Row {
  element;
  #bar = make("span", { class: "span" });
  #time = make("span", { class: "time" });
  #state = make("span", { class: "sr" });
  #body = make("div", { class: "body" });
  #drawn = null;

  constructor(entry) {
    const name = { thinking: "Thinking", answer: "Answer" }[entry.kind] ?? entry.name;
    const track = make("span", { class: "track", "aria-hidden": "true" }, this.#bar);
    const line = [icon(entry.kind), make("span", { class: "name" }, name), this.#state, track, this.#time];
    const opens = entry.kind !== "answer";
    const details = opens ? make("details", {}, make("summary", {}, ...line), this.#body) : make("div", { class: "line" }, ...line);
    if (entry.kind === "thinking") details.open = true;
    this.element = make("li", { class: "step" }, details);
    this.element.dataset.kind = entry.kind;
  }

  update(entry) {
    if (entry.kind === "tool") this.#updateTool(entry);
    if (entry.kind === "thinking") put(this.#body, entry.text);
    if (entry.kind === "event" && this.#drawn === null) this.#body.append(...pair("Value", entry.value));
    this.#drawn ??= "";
  }

  #updateTool(entry) {
    const drawn = `${entry.status} ${entry.progress} ${entry.message}`;
    if (drawn === this.#drawn) return;
    this.#drawn = drawn;
    this.element.dataset.status = entry.status;
    put(this.#state, `${TERMS[entry.status] ?? entry.status}.`);
    const parts = pair("Parameters", entry.parameters);
    if (entry.status === "running" && (entry.progress !== undefined || entry.message !== undefined)) {
      const share = entry.progress === undefined ? "" : `${Math.round(entry.progress * 100)} % `;
      parts.push(make("p", { class: "progress" }, share + (entry.message ?? "")));
    }
    if (entry.error) parts.push(make("p", { class: "fault" }, `${TERMS[entry.status] ?? ""}: ${entry.error.message}`));
    else if (entry.status === "done") parts.push(...pair("Result", entry.result));
    this.#body.replaceChildren(...parts);
    if (entry.error) this.element.firstChild.open = true;
  }

  place(entry, from, to) {
    const end = entry.endedAt ?? to;
    const share = (ms) => `${Math.min(100, Math.max(0, (ms / (to - from)) * 100)).toFixed(2)}%`;
    this.#bar.style.left = share(entry.startedAt - from);
    this.#bar.style.width = share(end - entry.startedAt);
    this.#bar.classList.toggle("open", entry.endedAt === undefined);
    put(this.#time, entry.kind === "event" ? "" : duration(entry.durationMs ?? end - entry.startedAt));
  }
}

function pair(label, value) {
  const text = JSON.stringify(value, null, 2) ?? "";
  return [make("p", { class: "label" }, label), make("pre", { tabindex: "0", dir: "ltr" }, text)];
}
