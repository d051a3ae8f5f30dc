/**
 * The agentws protocol, version 1, for browsers and for Node 22 or later: one module, nothing else needed.
 *
 *     import { AgentClient, ThreadLog } from "./agentws.js";
 *     const client = new AgentClient({ url: "wss://example.org/ws", token: () => fetchMyToken() });
 *     const log = new ThreadLog();
 *     client.addEventListener("event", ({ detail }) => render(log.apply(detail)));
 *     client.connect();
 *     const { thread_id } = await client.start("what is 12 * (3 + 4)?");
 *
 * A connection that breaks is made again, with growing and jittered pauses; every followed thread goes on behind the
 * last event that was seen, each event is handed out once and in order, and requests whose answer was lost are sent again.
 */

const SUBPROTOCOL = "agentws.v1.json";
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 30_000;
const BUSY_PAUSE_MS = 5_000;
const OPEN_WITHIN_MS = 15_000;
const ANSWER_WITHIN_MS = 5_000;
const STEADY_MS = 5_000;
const MOST_PENDING = 256;
const MOST_TRIES = 5;

/** Close codes after which the same connection would be refused again. */
const FINAL = new Set([1000, 1007, 1008, 1009, 4409]);
const BUSY = new Set([1013, 4429]);
/** Errors after which a request is sent again by itself: it has not taken effect, or repeating it is harmless. */
const PASSING = new Set(["rate_limited", "overloaded", "draining", "database_unavailable"]);
/** What may be sent twice. Starts may because each has a key. */
const REPEATABLE = new Set(["user_message", "stop_agent", "subscribe", "unsubscribe", "list_threads", "get_thread_history"]);
for (const type of ["create_thread", "update_thread", "delete_thread"]) REPEATABLE.add(type);

/** The event types that end a run. */
export const TERMINAL = new Set(["agent_completed", "agent_error", "agent_stopped"]);

/** A fresh id for `thread_id`, `run_id` or `idempotency_key`; also where `crypto.randomUUID` is missing (plain http). */
export function newId(prefix = "") {
  return prefix + Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** An error frame as an exception: `code`, `message` (for the user), `retryable`, `retryAfterMs`, `details`. */
export class AgentError extends Error {
  constructor({ code, message, retryable = false, retry_after_ms = null, details = null }) {
    super(message);
    Object.assign(this, { name: "AgentError", code, retryable, retryAfterMs: retry_after_ms, details });
  }
}

/**
 * A connection that lasts. Its events (each a CustomEvent with `detail`):
 *
 * - `state`: the new `state`.
 * - `event`: a run event, once and in order for each thread.
 * - `reset`: `{thread_id}`: the thread's past has changed; drop what is held of it, what is true follows.
 * - `caught_up`: `{thread_id, replayed}`: all that was missed has been handed out, `replayed` events.
 * - `gone`: `{thread_id, reason}`: a followed thread was deleted or taken away.
 * - `notice`: a server frame that answers nothing: `error`, `credentials_expiring`.
 * - `frame`: `{direction: "in" | "out", frame, text}`, for whoever wants to see the wire.
 */
export class AgentClient extends EventTarget {
  /** @type {{name: string, retryAt?: number, code?: number, reason?: string}} see {@link AgentClient#connect} */
  state = { name: "closed" };
  /** The authenticated user's id, and how many milliseconds the server's clock is ahead. */
  user = null;
  skewMs = 0;

  #url;
  #token;
  #socket = null;
  #usedToken = null;
  #established = 0;
  #heard = 0;
  #attempt = 0;
  #notBefore = 0;
  #interval = 10_000;
  #mostBytes = Infinity;
  #timers = {};
  #requests = new Map();
  #threads = new Map();

  /**
   * @param {object} options
   * @param {string|URL|(() => string|URL)} options.url of the endpoint, `ws:` or `wss:`.
   * @param {(() => string|null|Promise<string|null>)} [options.token] asked for a JWT before each connection and
   *   when one expires; null where there is none.
   */
  constructor({ url, token = () => null }) {
    super();
    this.#url = typeof url === "function" ? url : () => url;
    this.#token = token;
    globalThis.addEventListener?.("online", () => this.state.name === "waiting" && this.connect());
    globalThis.addEventListener?.("offline", () => this.#probeLine());
  }

  /**
   * Connects now, also where it waits to. `state.name` becomes `connecting`, then `connected`; later `draining` (the
   * server goes away soon), `waiting` (until `retryAt`, in `Date.now()` milliseconds), `unauthorized` (a token is needed;
   * call again when there is one), `refused` (with `code` and `reason`: it is not tried again) or `closed`.
   */
  connect() {
    this.#retire();
    this.#become({ name: "connecting" });
    this.#open();
  }

  /** Closes for good; followed threads and waiting requests are forgotten, these with an error. */
  close() {
    this.#retire(1000);
    this.#threads.clear();
    for (const request of [...this.#requests.values()]) this.#settle(request, lost("The connection was closed."));
    this.#become({ name: "closed" });
  }

  /** Breaks the connection as a bad network would; it comes back by itself. */
  drop() {
    if (this.#socket !== null) this.#lost(4000, "dropped");
  }

  /**
   * Sends a frame and waits for its answer, across connections where it may be repeated.
   * @param {string} type
   * @param {object} [payload]
   * @returns {Promise<object>} the answer
   * @throws {AgentError} the error frame; `connection_lost` where the answer was lost and the request cannot be repeated
   */
  request(type, payload = {}) {
    if (this.#requests.size >= MOST_PENDING) return Promise.reject(lost("Too many requests wait for an answer."));
    return new Promise((resolve, reject) => {
      const request = { id: newId(), type, payload, resolve, reject, tries: 0 };
      this.#requests.set(request.id, request);
      if (this.#established) this.#send(request);
    });
  }

  /**
   * Asks an agent. The run starts once, however often connections break, and its thread is followed from then on.
   * @param {string} text
   * @param {object} [options] `thread_id`, `run_id`, `agent`, `context`, `if_busy`, `on_disconnect`, `idempotency_key`
   * @returns {Promise<object>} `request_accepted`
   */
  start(text, options = {}) {
    return this.request("user_message", { content: text, idempotency_key: newId(), ...options });
  }

  /** Stops one run. */
  stop(run_id) {
    return this.request("stop_agent", { run_id });
  }

  /** Makes a thread; also its id is made here, so that repeating it makes no second one. Returns the thread. */
  async createThread({ thread_id = newId("thr-"), title, metadata } = {}) {
    return (await this.request("create_thread", { thread_id, title, metadata })).thread;
  }

  /**
   * Follows a thread's events behind `after_seq`, until `unfollow`, across connections.
   * @returns {Promise<object>} `subscribed`
   */
  follow(thread_id, { after_seq = 0, epoch = null } = {}) {
    this.#threads.set(thread_id, { thread_id, epoch, seq: after_seq, replayed: 0 });
    return this.request("subscribe", { thread_id }).catch((error) => {
      if (error.code === "thread_not_found") this.#threads.delete(thread_id);
      throw error;
    });
  }

  /** Ends that. */
  unfollow(thread_id) {
    if (this.#threads.delete(thread_id) && this.#established) this.request("unsubscribe", { thread_id }).catch(() => {});
  }

  // The connection

  async #open() {
    const timers = this.#timers;
    let socket;
    try {
      const token = await this.#token();
      if (timers !== this.#timers) return;
      this.#usedToken = token;
      socket = new WebSocket(this.#url(), token ? [SUBPROTOCOL, `bearer.${token}`] : [SUBPROTOCOL]);
    } catch (error) {
      if (timers !== this.#timers) return;
      if (error.name === "SyntaxError") this.#become({ name: "unauthorized", reason: "This is not a token." });
      else this.#wait(this.#pause());
      return;
    }
    this.#socket = socket;
    socket.onmessage = ({ data }) => socket === this.#socket && this.#receive(data);
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#lost(code, reason);
    timers.open = setTimeout(() => this.#established || this.#lost(4000, "no answer"), OPEN_WITHIN_MS);
  }

  /** Leaves the present socket and everything that was timed for it. */
  #retire(code = 4000) {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#timers = {};
    const socket = this.#socket;
    this.#socket = null;
    this.#established = 0;
    if (socket !== null) socket.close(code);
  }

  #lost(code, reason) {
    const { established, token } = { established: this.#established, token: this.#usedToken };
    if (established && Date.now() - established > STEADY_MS) this.#attempt = 0;
    this.#retire();
    for (const request of [...this.#requests.values()]) {
      if (!REPEATABLE.has(request.type)) this.#settle(request, lost("The connection was lost before the answer came."));
    }
    if (FINAL.has(code)) return this.#become({ name: "refused", code, reason });
    const left = this.#notBefore - Date.now();
    this.#notBefore = 0;
    this.#wait(left > 0 ? left : Math.max(this.#pause(), BUSY.has(code) ? BUSY_PAUSE_MS * (1 + Math.random()) : 0));
    if (code === 4401) this.#renew(token);
    else if (!established) this.#diagnose(token);
  }

  #pause() {
    return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** this.#attempt++) * (0.5 + Math.random() / 2);
  }

  #wait(ms) {
    this.#become({ name: "waiting", retryAt: Date.now() + ms });
    this.#timers.retry = setTimeout(() => this.connect(), ms);
  }

  /** A browser is not told why an upgrade was refused: `GET api/me` answers the same way. */
  async #diagnose(token) {
    const timers = this.#timers;
    const url = new URL("api/me", this.#url());
    url.protocol = url.protocol.replace("ws", "http");
    url.search = new URL(this.#url()).search;
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(url, { headers, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) }).catch(() => null);
    if (answer === null || timers !== this.#timers) return;
    if (answer.status === 401) this.#give("unauthorized", token ? "The token was not accepted." : "");
    if (answer.status === 403) this.#give("refused", "This page may not connect to this server.");
    const seconds = Number(answer.headers.get("Retry-After"));
    if (answer.status !== 503 || !(seconds > 0)) return;
    clearTimeout(timers.retry);
    this.#wait(seconds * 1000 * (1 + Math.random() / 2));
  }

  async #renew(expired) {
    const timers = this.#timers;
    const token = await Promise.resolve(this.#token()).catch(() => null);
    if (timers !== this.#timers) return;
    if (!token || token === expired) this.#give("unauthorized", "The token has expired.");
  }

  #give(name, reason) {
    this.#retire();
    this.#become({ name, reason });
  }

  /** Asks the server for a sign of life; the connection is lost where none comes. */
  #probeLine() {
    if (!this.#established) return void this.#become({ ...this.state });
    const { timers, heard } = { timers: this.#timers, heard: this.#heard };
    this.#transmit({ type: "ping" });
    clearTimeout(timers.probe);
    timers.probe = setTimeout(() => this.#heard === heard && this.#lost(4000, "no answer"), ANSWER_WITHIN_MS);
  }

  #watchLine() {
    this.#timers.watch = setTimeout(() => {
      if (Date.now() - this.#heard >= 2 * this.#interval) this.#probeLine();
      if (this.#established) this.#watchLine();
    }, this.#interval);
  }

  #become(state) {
    this.state = state;
    this.#tell("state", state);
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  // Frames

  #transmit(frame, text = JSON.stringify(frame)) {
    // On a socket that is closing there is nothing to say; what waits for an answer is sent again on the next one.
    if (this.#socket.readyState !== WebSocket.OPEN) return;
    this.#socket.send(text);
    this.#tell("frame", { direction: "out", frame, text });
  }

  #send(request) {
    const payload = request.type === "subscribe" ? this.#cursor(request.payload.thread_id) : request.payload;
    clearTimeout(request.timer);
    if (payload === null) return this.#settle(request, lost("The thread is not followed any more."));
    const frame = { type: request.type, id: request.id, payload };
    // The server closes a connection for a frame that is too large; in UTF-8 a character takes three bytes at most.
    const text = JSON.stringify(frame);
    const large = text.length * 3 > this.#mostBytes && new TextEncoder().encode(text).length > this.#mostBytes;
    if (large) this.#settle(request, new AgentError({ code: "message_too_large", message: "This is too long to send." }));
    else this.#transmit(frame, text);
  }

  #receive(text) {
    this.#heard = Date.now();
    const frame = JSON.parse(text);
    this.#tell("frame", { direction: "in", frame, text });
    if (typeof frame.event_id === "string") return this.#take(frame);
    switch (frame.type) {
      case "connection_established": return this.#begin(frame);
      case "draining":
        this.#notBefore = Date.now() + frame.retry_after_ms;
        return this.#become({ name: "draining", retryAt: this.#notBefore });
      case "credentials_expiring": return void this.#reauthenticate(frame);
      case "request_accepted": this.#accepted(frame); break;
      case "subscribed": this.#subscribed(frame); break;
      case "caught_up": this.#caughtUp(frame); break;
      case "subscription_ended": this.#ended(frame); break;
      case "thread_deleted": this.#ended({ ...frame, reason: "deleted" }); break;
    }
    const request = this.#requests.get(frame.id);
    if (request === undefined) return frame.type === "error" ? this.#tell("notice", frame) : undefined;
    if (frame.type !== "error") this.#settle(request, null, frame);
    else if (!this.#again(request, frame)) this.#settle(request, new AgentError(frame));
  }

  #begin(frame) {
    this.#established = Date.now();
    this.#interval = Math.max(1, frame.heartbeat_interval_s) * 1000;
    this.skewMs = Date.parse(frame.timestamp) - Date.now();
    this.user = frame.user_id;
    this.#mostBytes = frame.limits?.max_message_bytes ?? Infinity;
    const waiting = [...this.#requests.values()];
    // Subscriptions go first, so that a repeated start finds its thread followed from where it was left.
    for (const thread_id of this.#threads.keys()) {
      if (!waiting.some((each) => each.type === "subscribe" && each.payload.thread_id === thread_id)) this.#resubscribe(thread_id);
    }
    for (const request of waiting.filter((each) => each.type === "subscribe")) this.#send(request);
    for (const request of waiting.filter((each) => each.type !== "subscribe")) this.#send(request);
    this.#watchLine();
    this.#become({ name: "connected" });
  }

  #settle(request, error, frame) {
    if (!this.#requests.delete(request.id)) return;
    clearTimeout(request.timer);
    if (error) request.reject(error);
    else request.resolve(frame);
  }

  /** Whether the request is sent once more: after a pause, or with the next connection, whichever comes first. */
  #again(request, frame) {
    if (!REPEATABLE.has(request.type) || !PASSING.has(frame.code) || ++request.tries >= MOST_TRIES) return false;
    if (frame.code === "draining") return true;
    const ms = Math.max(frame.retry_after_ms ?? 0, 250 * 2 ** request.tries) * (1 + Math.random() / 4);
    clearTimeout(request.timer);
    request.timer = setTimeout(() => this.#established && this.#requests.has(request.id) && this.#send(request), ms);
    return true;
  }

  async #reauthenticate(frame) {
    this.#tell("notice", frame);
    const timers = this.#timers;
    const token = await Promise.resolve(this.#token()).catch(() => null);
    if (!token || token === this.#usedToken || timers !== this.#timers) return;
    const answer = await this.request("authenticate", { token }).catch(() => null);
    if (answer !== null && timers === this.#timers) this.#usedToken = token;
  }

  // Threads

  #cursor(thread_id) {
    const thread = this.#threads.get(thread_id);
    return thread ? { thread_id, after_seq: thread.seq, epoch: thread.epoch } : null;
  }

  #resubscribe(thread_id) {
    this.request("subscribe", { thread_id }).catch(({ code, message }) => {
      if (code === "thread_not_found") this.#ended({ thread_id, reason: "deleted" });
      else this.#tell("notice", { type: "error", thread_id, code, message });
    });
  }

  #accepted({ thread_id, epoch, seq }) {
    const thread = this.#threads.get(thread_id);
    if (thread === undefined) this.#threads.set(thread_id, { thread_id, epoch, seq, replayed: 0 });
    else if (thread.epoch !== null && thread.epoch !== epoch) this.#resubscribe(thread_id);
  }

  #subscribed({ thread_id, epoch, after_seq, recovered }) {
    const thread = this.#threads.get(thread_id);
    if (!thread) return;
    thread.replayed = 0;
    thread.epoch = epoch;
    if (recovered) return;
    thread.seq = after_seq;
    this.#tell("reset", { thread_id });
  }

  #caughtUp({ thread_id }) {
    const thread = this.#threads.get(thread_id);
    if (thread) this.#tell("caught_up", { thread_id, replayed: thread.replayed });
  }

  #ended({ thread_id, reason }) {
    if (reason === "epoch_changed" && this.#threads.has(thread_id)) this.#resubscribe(thread_id);
    else if (this.#threads.delete(thread_id) || reason === "deleted") this.#tell("gone", { thread_id, reason });
  }

  /** Hands an event out if it is the next one. One that begins earlier is taken too: its text is joined by offset. */
  #take(event) {
    const thread = this.#threads.get(event.thread_id);
    if (!thread || event.seq <= thread.seq || (thread.epoch !== null && event.epoch !== thread.epoch)) return;
    if ((event.from_seq ?? event.seq) > thread.seq + 1) {
      const asked = [...this.#requests.values()].some((each) => each.type === "subscribe" && each.payload.thread_id === event.thread_id);
      if (!asked) this.#resubscribe(event.thread_id);
      return;
    }
    thread.seq = event.seq;
    thread.replayed += 1;
    this.#tell("event", event);
  }
}

/** Folds the events of one thread into its runs, in the order in which they first appear. */
export class ThreadLog {
  /** @type {Map<string, object>} run id → run: `status`, `request`, `text` (the answer so far), `entries`, `error` … */
  runs = new Map();

  #horizon = 0;
  #first = null;

  /**
   * Takes a `thread_history`, before what it holds: runs without their steps. These come when the thread is followed
   * from before the first of them; `startOf` says from where.
   */
  seed({ messages, last_seq }) {
    const held = this.runs;
    this.runs = new Map();
    for (const { run_id, role, content, status, created_at } of messages) {
      const run = held.get(run_id) ?? this.#run(run_id);
      this.runs.set(run_id, run);
      if (role === "user") Object.assign(run, { request: content, startedAt: run.startedAt ?? Date.parse(created_at) });
      if (run.entries.length > 0) continue;
      run.status = status;
      if (role === "assistant") setText(run, content);
    }
    for (const [run_id, run] of held) if (!this.runs.has(run_id)) this.runs.set(run_id, run);
    this.#horizon = Math.max(this.#horizon, last_seq);
    this.#first = this.runs.keys().next().value ?? null;
  }

  /** The `after_seq` to follow a thread with, so that the events of all runs of a `thread_history` come, too. */
  static startOf({ messages, resume_after }) {
    const first = messages.find((message) => message.role === "user");
    return first === undefined ? resume_after : Math.min(resume_after, first.seq - 1);
  }

  /** Puts a run before another one: one that has begun passes those that wait. */
  move(run_id, before) {
    const order = [...this.runs].filter(([id]) => id !== run_id);
    order.splice(order.findIndex(([id]) => id === before), 0, [run_id, this.runs.get(run_id)]);
    this.runs = new Map(order);
  }

  /**
   * Takes the next event and returns its run, changed; null where the run is older than what was seeded. An entry of `run.entries` is
   * `{kind: "thinking", step, text}`, `{kind: "tool", name, parameters, status, result, error, durationMs, progress}`,
   * `{kind: "answer"}` or `{kind: "event", name, value}`, each with `startedAt` and `endedAt` in milliseconds.
   */
  apply(event) {
    const begins = event.type === "agent_queued" || event.type === "agent_started";
    const known = this.runs.get(event.run_id);
    // The end of a run that began before the part of the past that is shown: its messages tell it, or earlier ones will.
    if (event.seq <= this.#horizon && !begins && !known?.begun) return known ?? null;
    const run = this.#run(event.run_id);
    if (!known && event.seq <= this.#horizon && this.#first !== null) this.move(event.run_id, this.#first);
    const at = Date.parse(event.timestamp);
    if (event.depth > 0) return run;
    run.begun ||= begins;
    if (event.type !== "agent_queued" && event.type !== "tool_progress" && !TERMINAL.has(event.type)) closeOpen(run, event, at);
    FOLD[event.type]?.(run, event.payload, event, at);
    return run;
  }

  #run(run_id) {
    let run = this.runs.get(run_id);
    if (run === undefined) {
      run = { run_id, status: "running", request: "", attempt: 1, text: "", length: 0, entries: [], error: null };
      this.runs.set(run_id, run);
    }
    return run;
  }
}

const FOLD = {
  agent_queued(run, { position }, event, at) {
    Object.assign(run, { status: "queued", position, startedAt: at });
  },
  agent_started(run, { message }, { attempt, agent_name }, at) {
    // A new attempt answers anew; what its tools did before has been done all the same.
    const entries = attempt > run.attempt ? run.entries.filter((each) => each.kind === "tool") : [];
    Object.assign(run, { status: "running", request: message, attempt, agent: agent_name, entries, error: null });
    if (entries.length === 0) run.startedAt = at;
    setText(run, "");
  },
  agent_thinking(run, { reasoning, step, offset }, event, at) {
    let entry = run.entries.findLast((each) => each.kind === "thinking" && each.step === step);
    if (!entry) run.entries.push((entry = { kind: "thinking", step, text: "", length: 0, startedAt: at }));
    join(entry, offset, reasoning);
  },
  tool_executing(run, { execution_id, tool_name, parameters }, event, at) {
    run.entries.push({ kind: "tool", execution_id, name: tool_name, parameters, status: "running", startedAt: at });
  },
  tool_progress(run, { execution_id, progress, message }) {
    Object.assign(tool(run, execution_id), { progress, message });
  },
  tool_completed(run, { execution_id, outcome, result, error, duration_ms }, event, at) {
    Object.assign(tool(run, execution_id), { status: outcome, result, error, durationMs: duration_ms, endedAt: at });
  },
  agent_message(run, { text, offset }, event, at) {
    if (!run.entries.some((each) => each.kind === "answer")) run.entries.push({ kind: "answer", startedAt: at });
    join(run, offset, text);
  },
  agent_event(run, { name, value }, event, at) {
    run.entries.push({ kind: "event", name, value, startedAt: at, endedAt: at });
  },
  agent_interrupted(run) {
    run.status = "interrupted";
  },
  agent_completed(run, payload, event, at) {
    end(run, "completed", payload, at);
  },
  agent_error(run, payload, event, at) {
    end(run, "failed", payload, at);
    run.error = { code: payload.code, message: payload.message, retryable: payload.retryable };
  },
  agent_stopped(run, payload, event, at) {
    end(run, "stopped", payload, at);
    run.reason = payload.reason;
  },
};

function lost(message) {
  return new AgentError({ code: "connection_lost", message, retryable: true });
}

function tool(run, execution_id) {
  return run.entries.findLast((each) => each.execution_id === execution_id) ?? {};
}

function end(run, status, { response, duration_ms }, at) {
  for (const entry of run.entries) entry.endedAt ??= at;
  Object.assign(run, { status, durationMs: duration_ms, endedAt: at });
  if (response !== null && response !== run.text) setText(run, response);
}

/** A step of thinking and the answer last until something else happens. */
function closeOpen(run, event, at) {
  const last = run.entries.at(-1);
  if (!last || last.endedAt !== undefined || last.kind === "tool") return;
  const goesOn = last.kind === "answer" ? event.type === "agent_message" : event.payload.step === last.step;
  if (!goesOn) last.endedAt = at;
}

function setText(held, text) {
  Object.assign(held, { text, length: codePoints(text) });
}

/** Joins a piece by its offset, counted in code points; what is held already is not taken again. */
function join(held, offset, text) {
  if (offset > held.length) return;
  const fresh = offset === held.length ? text : [...text].slice(held.length - offset).join("");
  held.text += fresh;
  held.length += codePoints(fresh);
}

function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
