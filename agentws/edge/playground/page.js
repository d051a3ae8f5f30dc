// The page: one user, one current thread, its runs; the protocol is agentws.js's.
import { AgentClient, ThreadLog, TERMINAL, newId } from "./agentws.js";
import { clean, composer } from "./composer.js";
import { NEWS, pill } from "./connection.js";
import { byId, on, put, submits } from "./dom.js";
import { drawers, side } from "./drawers.js";
import { Frames } from "./frames.js";
import { note, say } from "./notes.js";
import { RunView, hasEnded } from "./run.js";
import { ThreadList } from "./threads.js";

const talk = byId("talk");
const query = new URLSearchParams(location.search);

let user = query.get("user") ?? localStorage.getItem("agentws.user") ?? "dev";
let current = null; // the id of the thread that is shown
let opening = 0; // rises with each thread that is opened, so that late answers are known as such
let earlier = null; // the cursor of messages that are not shown yet
let live = false; // whether what arrives is new rather than caught up with
let log = new ThreadLog();
let views = new Map();
let dirty = new Set();
let submitting = Promise.resolve();
let sticks = true; // whether the conversation is at its end, and stays there

const client = new AgentClient({
  url() {
    const url = new URL("ws", document.baseURI.replace(/[?#].*/, ""));
    url.protocol = url.protocol.replace("http", "ws");
    if (!token()) url.searchParams.set("user", user);
    return url;
  },
  token,
});
const frames = new Frames();
drawers((open) => frames.show(open));
const threads = new ThreadList(client, askDelete);

function token() {
  return sessionStorage.getItem("agentws.token");
}

// What is shown

function draw() {
  const now = Date.now() + client.skewMs;
  for (const run of dirty) {
    let view = views.get(run.run_id);
    if (view === undefined) {
      view = new RunView(run, { again, copy, stop: (each) => stop([each]) });
      views.set(run.run_id, view);
      place(run, view);
    }
    view.update(run, now);
  }
  dirty.clear();
  const runs = [...log.runs.values()];
  byId("empty").hidden = runs.length > 0 || current !== null || client.state.name === "unauthorized";
  byId("stop").hidden = !runs.some((run) => !hasEnded(run) && run.status !== "sending");
  if (sticks) talk.scrollTop = talk.scrollHeight;
  byId("jump").hidden = sticks;
}

function touch(run) {
  if (dirty.size === 0) requestAnimationFrame(draw);
  dirty.add(run);
}

/** Runs stand in the order of the log; only the newest shows its steps. */
function place(run, view) {
  const list = byId("runs");
  const ids = [...log.runs.keys()];
  const after = ids.slice(ids.indexOf(run.run_id) + 1).find((id) => views.has(id));
  list.insertBefore(view.element, after === undefined ? null : views.get(after).element);
  if (after !== undefined) view.fold();
  const before = log.runs.get(view.element.previousElementSibling?.dataset.run);
  if (before && hasEnded(before)) views.get(before.run_id)?.fold();
}

function announce(event, run) {
  if (event.type === "tool_executing") say(`Using ${event.tool_name}`);
  if (event.type === "agent_completed") say(`Answer: ${run.text.slice(0, 500)}`);
  if (event.type === "agent_error") say(`Failed: ${run.error.message}`);
  if (event.type === "agent_stopped") say("Stopped");
}

// Threads

function forget() {
  [log, views, dirty] = [new ThreadLog(), new Map(), new Set()];
  byId("runs").replaceChildren();
}

async function open(id) {
  const mine = (opening += 1);
  if (current !== null && current !== id) client.unfollow(current);
  [current, earlier, live, sticks] = [id, null, false, true];
  forget();
  if (location.hash.slice(1) !== (id ?? "")) history.pushState(null, "", id === null ? location.pathname + location.search : `#${id}`);
  threads.select(id);
  title();
  byId("earlier").hidden = true;
  draw();
  if (id === null) return;
  try {
    const held = await client.request("get_thread_history", { thread_id: id }).catch((error) => {
      if (error.code === "not_implemented") return null;
      throw error;
    });
    if (mine !== opening) return;
    if (held !== null) show(held);
    await client.follow(id, { after_seq: held === null ? 0 : ThreadLog.startOf(held), epoch: held?.epoch });
  } catch (error) {
    if (mine === opening) missing(error);
  }
}

function missing(error) {
  note(error.code === "thread_not_found" ? "There is no such thread." : error.message, "error");
  if (error.code === "thread_not_found") open(null);
}

function show(held) {
  log.seed(held);
  earlier = held.next_before;
  byId("earlier").hidden = earlier === null;
  for (const run of log.runs.values()) touch(run);
}

async function showEarlier() {
  const mine = opening;
  const answer = await client.request("get_thread_history", { thread_id: current, before: earlier }).catch((error) => note(error.message, "error"));
  if (!answer || mine !== opening) return;
  const below = talk.scrollHeight - talk.scrollTop;
  sticks = false;
  show(answer);
  draw();
  talk.scrollTop = talk.scrollHeight - below;
}

function title() {
  const text = current === null ? "New thread" : threads.title(current);
  put(byId("title").firstChild, text);
  byId("rename").hidden = current === null;
  document.title = current === null ? "agentws" : `${text} · agentws`;
}

function renaming(on) {
  for (const [id, hidden] of [["rename-form", !on], ["title", on], ["rename", on]]) byId(id).hidden = hidden;
  if (on) {
    byId("rename-text").value = threads.threads.get(current)?.title ?? "";
    byId("rename-text").select();
  } else byId("rename").focus();
}

async function rename() {
  const [thread_id, text] = [current, clean(byId("rename-text").value.trim())];
  renaming(false);
  try {
    const { thread } = await client.request("update_thread", { thread_id, title: text });
    threads.take(thread);
  } catch (error) {
    note(error.message, "error");
  }
  title();
}

function askDelete(thread_id) {
  put(byId("delete-name"), threads.title(thread_id));
  byId("delete-yes").onclick = async () => {
    byId("delete").close();
    try {
      await client.request("delete_thread", { thread_id });
    } catch (error) {
      if (error.code !== "thread_not_found") return note(error.message, "error");
    }
    gone(thread_id);
  };
  byId("delete").showModal();
}

function gone(thread_id) {
  threads.remove(thread_id);
  if (thread_id === current) open(null);
}

// Runs

function ask(text) {
  const run = { run_id: newId("run-"), status: "sending", request: text, attempt: 1, text: "", length: 0, entries: [], error: null, key: newId() };
  sticks = true;
  if (current === null) {
    const made = newId("thr-");
    const mine = opening + 1;
    [opening, current, live] = [mine, made, false];
    history.pushState(null, "", `#${made}`);
    threads.take({ thread_id: made, title: named(text), updated_at: new Date().toISOString() });
    threads.select(made);
    title();
    run.makes = made;
  }
  run.thread_id = current;
  log.runs.set(run.run_id, run);
  touch(run);
  queue(run);
}

/** Messages are handed over one after the other, so that they are accepted in the order in which they were written. */
function queue(run) {
  submitting = submitting.then(() => submit(run));
}

async function submit(run) {
  const { run_id, thread_id } = run;
  Object.assign(run, { status: "sending", error: null });
  touch(run);
  try {
    if (run.makes) {
      threads.take(await client.createThread({ thread_id: run.makes, title: named(run.request) }));
      await client.follow(run.makes);
      run.makes = null;
    }
    const { status } = await client.start(run.request, { thread_id, run_id, idempotency_key: run.key });
    if (run.status === "sending") run.status = status === "queued" ? "queued" : "running";
  } catch (error) {
    if (error.code === "thread_not_found") run.makes = thread_id;
    if (run.status === "sending") Object.assign(run, { status: "refused", error });
  }
  if (log.runs.get(run_id) === run) touch(run);
}

function named(text) {
  const points = [...text.trim().split("\n", 1)[0]];
  return points.length > 60 ? `${points.slice(0, 59).join("")}…` : points.join("");
}

function again(run) {
  if (run.status === "refused") queue(run);
  else ask(run.request);
}

function stop(runs) {
  for (const run of runs) client.stop(run.run_id).catch((error) => note(error.message, "error"));
}

async function copy(run) {
  await navigator.clipboard.writeText(run.text).then(() => note("The answer was copied."), () => note("The browser did not allow to copy.", "error"));
}

// The connection

function onState({ detail }) {
  pill(client.state);
  if (NEWS[detail.name] && !document.hidden) say(NEWS[detail.name](detail));
  if (detail.name === "refused") note(NEWS.refused(detail), "error");
  const out = detail.name === "unauthorized";
  byId("sign-in").hidden = !out;
  byId("ask").hidden = byId("runs").hidden = out;
  byId("me").hidden = out || token() !== null;
  byId("signed-in").hidden = out || token() === null;
  if (out) {
    if (detail.reason) put(byId("sign-in-why"), detail.reason);
    sessionStorage.removeItem("agentws.token");
    threads.clear();
    byId("token").focus();
  }
  if (detail.name === "connected") {
    put(byId("name"), client.user);
    threads.refresh().then(title);
  }
  draw();
}

function onEvent({ detail }) {
  if (detail.thread_id !== current) return;
  const run = log.apply(detail);
  if (run === null) return;
  touch(run);
  if (detail.type === "agent_started") forward(run);
  if (live) announce(detail, run);
  if (live && (TERMINAL.has(detail.type) || detail.type === "agent_started")) threads.refresh().then(title);
}

/** A run that begins passes those that wait. */
function forward(run) {
  const waiting = [...log.runs.values()].find((each) => each !== run && (each.status === "queued" || each.status === "sending"));
  const ids = [...log.runs.keys()];
  if (!waiting || ids.indexOf(waiting.run_id) > ids.indexOf(run.run_id)) return;
  log.move(run.run_id, waiting.run_id);
  views.get(run.run_id)?.element.remove();
  if (views.has(run.run_id)) place(run, views.get(run.run_id));
}

function onCaughtUp({ detail: { thread_id, replayed } }) {
  if (thread_id !== current) return;
  const events = replayed === 1 ? "1 event" : `${replayed} events`;
  if (live) note(replayed === 0 ? "Resumed. Nothing was missed." : `Resumed. ${events} came meanwhile; none was lost.`);
  live = true;
}

function switchUser(name, thread_id = null) {
  client.close();
  threads.clear();
  user = name;
  open(thread_id);
  client.connect();
}

// Listening

submits("me", () => byId("user").blur());
submits("rename-form", rename);
submits("sign-in", () => {
  sessionStorage.setItem("agentws.token", byId("token").value.trim());
  byId("token").value = "";
  switchUser(user, current);
});
on("user", "change", () => {
  const name = byId("user").value.trim();
  if (name === "" || name === user) return void (byId("user").value = user);
  localStorage.setItem("agentws.user", name);
  query.set("user", name);
  history.replaceState(null, "", `?${query}`);
  switchUser(name);
});
on("sign-out", "click", () => {
  sessionStorage.removeItem("agentws.token");
  switchUser(user);
});
on("rename-text", "keydown", (event) => event.key === "Escape" && (event.stopPropagation(), renaming(false)));
on("rename", "click", () => renaming(true));
on("new", "click", () => {
  open(null);
  side(false);
  byId("text").focus();
});
on("threads", "click", (event) => event.target.closest("a") && side(false));
on("earlier", "click", showEarlier);
on("stop", "click", () => stop([...log.runs.values()].filter((run) => !hasEnded(run) && run.status !== "sending")));
on("retry", "click", () => client.connect());
on("drop", "click", () => client.drop());
on("delete-no", "click", () => byId("delete").close());
on("talk", "scroll", () => {
  sticks = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 48;
  byId("jump").hidden = sticks;
});
on("jump", "click", () => {
  sticks = true;
  draw();
});
addEventListener("popstate", () => {
  const id = location.hash.slice(1) || null;
  if (id !== current) open(id);
});
addEventListener("visibilitychange", () => !document.hidden && client.state.name === "connected" && threads.refresh().then(title));
setInterval(() => {
  pill(client.state);
  const now = Date.now() + client.skewMs;
  for (const run of log.runs.values()) if (!hasEnded(run)) views.get(run.run_id)?.tick(run, now);
}, 250);

client.addEventListener("state", onState);
client.addEventListener("event", onEvent);
client.addEventListener("caught_up", onCaughtUp);
client.addEventListener("frame", ({ detail }) => frames.add(detail));
client.addEventListener("gone", ({ detail }) => {
  if (detail.thread_id === current) note("This thread was deleted.");
  gone(detail.thread_id);
});
client.addEventListener("notice", ({ detail }) => detail.type === "error" && note(detail.message, "error"));
client.addEventListener("reset", async ({ detail }) => {
  if (detail.thread_id !== current) return;
  const mine = opening;
  const unsent = [...log.runs.values()].filter((run) => run.status === "sending" || run.status === "refused");
  forget();
  for (const run of unsent) {
    log.runs.set(run.run_id, run);
    touch(run);
  }
  // Where events have gone by age, what was said is still there.
  const held = await client.request("get_thread_history", { thread_id: detail.thread_id }).catch(() => null);
  if (held !== null && mine === opening) show(held);
});
byId("user").value = user;
composer(ask);
client.connect();
open(location.hash.slice(1) || null);
