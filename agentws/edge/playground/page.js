// Asks the agent and shows the events of its run by name. Text from users and agents is only ever set as text.
const byId = (id) => document.getElementById(id);
const terminal = new Set(["agent_completed", "agent_error", "agent_stopped"]);
let socket;
let threadId = null;
let runId = null;
let lastSeq = 0;
let answer = "";

function connect() {
  const url = new URL("ws", location.href);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.search = location.search;
  socket = new WebSocket(url, ["agentws.v1.json"]);
  socket.onopen = () => {
    byId("state").textContent = "connected";
    if (threadId !== null) send("subscribe", { thread_id: threadId, after_seq: lastSeq });
  };
  socket.onmessage = (message) => receive(JSON.parse(message.data));
  socket.onclose = () => {
    byId("state").textContent = "reconnecting";
    setTimeout(connect, 500 + Math.random() * 1500);
  };
}

function send(type, payload) {
  socket.send(JSON.stringify({ type, id: crypto.randomUUID(), payload }));
}

function receive(frame) {
  if (frame.type === "request_accepted") {
    threadId = frame.thread_id;
    runId = frame.run_id;
    byId("stop").disabled = false;
  } else if (frame.type === "error") {
    byId("state").textContent = frame.message;
  } else if (typeof frame.seq === "number" && frame.payload) {
    if (frame.seq <= lastSeq) return;
    lastSeq = frame.seq;
    show(frame);
  }
}

function show(event) {
  if (event.type === "agent_started") answer = "";
  if (event.type === "agent_message") answer = [...answer].slice(0, event.payload.offset).join("") + event.payload.text;
  if (terminal.has(event.type)) {
    answer = event.payload.response ?? answer;
    if (event.run_id === runId) byId("stop").disabled = true;
  }
  byId("answer").textContent = answer;
  const item = document.createElement("li");
  for (const [tag, text] of [["span", event.seq], ["span", event.type], ["code", JSON.stringify(event.payload)]]) {
    const part = document.createElement(tag);
    part.textContent = text;
    item.append(part);
  }
  item.firstChild.className = "number";
  byId("events").append(item);
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  send("user_message", { content: byId("text").value, thread_id: threadId });
});
byId("stop").addEventListener("click", () => send("stop_agent", { run_id: runId }));
connect();
