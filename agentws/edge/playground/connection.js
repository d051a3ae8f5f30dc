// The state of the connection, as it is shown and said.
import { byId, put } from "./dom.js";

/** Shows a state of the client; called again and again while it waits, for the seconds that are left. */
export function pill({ name, retryAt, reason, code }) {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  const offline = navigator.onLine === false;
  const text = {
    connecting: offline ? "Offline" : "Connecting",
    connected: "Connected",
    draining: "Server restarts",
    waiting: `${offline ? "Offline, retrying" : "Reconnecting"} in ${seconds} s`,
    unauthorized: "Signed out",
    refused: "Refused",
    closed: "Closed",
  }[name];
  byId("pill").dataset.state = offline && name !== "connected" ? "offline" : name;
  byId("pill").title = name === "refused" ? `${reason || "The server closed the connection."} (${code})` : "";
  put(byId("state"), text);
  byId("retry").hidden = name !== "waiting" && name !== "refused";
  byId("drop").disabled = name !== "connected" && name !== "draining";
}

export const NEWS = {
  waiting: () => "The connection was lost. It will be made again.",
  connected: () => "Connected",
  draining: () => "The server restarts. The connection will move on.",
  refused: ({ reason, code }) => reason || `The server refused the connection (${code}).`,
};
