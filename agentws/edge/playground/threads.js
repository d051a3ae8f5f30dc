// The list of threads: titles, the current one, which of them is at work, and deleting.
import { byId, icon, make } from "./dom.js";

export class ThreadList {
  /** @type {Map<string, object>} thread id → thread, latest first */
  threads = new Map();

  #client;
  #current = null;
  #before = null;
  #asking = false;
  #onDelete;

  /** @param onDelete is asked to delete a thread */
  constructor(client, onDelete) {
    this.#client = client;
    this.#onDelete = onDelete;
    byId("older").addEventListener("click", () => this.#load(this.#before));
  }

  title(thread_id) {
    return this.threads.get(thread_id)?.title || "Untitled thread";
  }

  select(thread_id) {
    this.#current = thread_id;
    this.#draw();
  }

  /** Takes what the server says of a thread. */
  take(thread) {
    this.threads.set(thread.thread_id, thread);
    this.#draw();
  }

  remove(thread_id) {
    this.threads.delete(thread_id);
    this.#draw();
  }

  clear() {
    this.threads.clear();
    this.#before = null;
    this.#draw();
  }

  /** Asks for the latest threads; a server that has no list leaves those that are known. */
  async refresh() {
    if (this.#asking) return;
    this.#asking = true;
    await this.#load(null);
    this.#asking = false;
  }

  async #load(before) {
    const client = this.#client;
    const user = client.user;
    const answer = await client.request("list_threads", before ? { before } : {}).catch(() => null);
    if (answer === null || user !== client.user) return;
    if (before !== null || this.threads.size <= answer.threads.length) this.#before = answer.next_before;
    if (answer.next_before === null && before === null) this.threads.clear();
    for (const thread of answer.threads) this.threads.set(thread.thread_id, thread);
    this.#draw();
  }

  #draw() {
    const latest = [...this.threads.values()].sort((a, b) => (a.updated_at < b.updated_at ? 1 : -1));
    const focused = document.activeElement?.closest("#threads li")?.dataset.thread;
    byId("threads").replaceChildren(...latest.map((thread) => this.#item(thread)));
    byId("older").hidden = this.#before === null;
    byId("no-threads").hidden = latest.length > 0;
    if (focused) byId("threads").querySelector(`[data-thread="${CSS.escape(focused)}"] a`)?.focus();
  }

  #item(thread) {
    const { thread_id, updated_at, running_run_id } = thread;
    const title = this.title(thread_id);
    const href = `#${thread_id}`;
    const current = thread_id === this.#current ? "page" : null;
    const link = make("a", { href, "aria-current": current }, make("bdi", {}, title));
    link.append(running_run_id ? make("span", { class: "at-work" }, make("span", { class: "sr" }, "at work")) : when(updated_at));
    const click = () => this.#onDelete(thread_id);
    const remove = make("button", { type: "button", class: "icon", "aria-label": `Delete ${title}`, title: "Delete", click }, icon("bin"));
    return make("li", { "data-thread": thread_id }, link, remove);
  }
}

function when(timestamp) {
  const date = new Date(timestamp);
  const minutes = Math.floor((Date.now() - date) / 60_000);
  let text = date.toLocaleDateString([], { day: "numeric", month: "short" });
  if (minutes < 1) text = "now";
  else if (minutes < 60) text = `${minutes} min`;
  else if (minutes < 60 * 24) text = `${Math.floor(minutes / 60)} h`;
  return make("time", { datetime: timestamp, title: date.toLocaleString() }, text);
}
