// What the page has to say: to a screen reader in one place, and as a note that goes away.
import { byId, icon, make, put } from "./dom.js";

export function say(text) {
  put(byId("say"), text);
}

export function note(text, kind = "info") {
  const close = () => element.remove();
  const element = make("div", { class: `note ${kind}` }, make("span", {}, text));
  element.append(make("button", { type: "button", class: "icon", "aria-label": "Close", click: close }, icon("close")));
  byId("notes").append(element);
  while (byId("notes").childElementCount > 3) byId("notes").firstChild.remove();
  setTimeout(close, kind === "error" ? 12_000 : 6_000);
  say(text);
}
