// What opens beside the conversation: the threads on a phone, the raw frames; and how light the page is.
import { byId, put } from "./dom.js";

const isNarrow = () => matchMedia("(max-width: 56rem)").matches;

export function side(on) {
  byId("app").classList.toggle("side-open", on);
  byId("menu").setAttribute("aria-expanded", on);
  byId("main").inert = on && isNarrow();
  if (on) byId("new").focus();
  else if (isNarrow()) byId("menu").focus();
}

function showFrames(on, onFrames) {
  byId("frames").hidden = !on;
  byId("frames-toggle").setAttribute("aria-expanded", on);
  byId("main").inert = on && isNarrow();
  onFrames(on);
  byId(on ? "frames-close" : "frames-toggle").focus();
}

function theme(step) {
  const names = ["auto", "light", "dark"];
  const root = document.documentElement.dataset;
  if (step) localStorage.setItem("agentws.theme", (root.theme = names[(names.indexOf(root.theme) + 1) % 3]));
  put(byId("theme-name"), `Theme: ${root.theme === "auto" ? "system" : root.theme}`);
}

/** @param onFrames is told whether the raw frames are looked at */
export function drawers(onFrames) {
  const frames = (open) => showFrames(open, onFrames);
  const clicks = {
    menu: () => side(true),
    "side-close": () => side(false),
    veil: () => side(false),
    "frames-toggle": () => frames(byId("frames").hidden),
    "frames-close": () => frames(false),
    theme: () => theme(true),
  };
  for (const [id, click] of Object.entries(clicks)) byId(id).addEventListener("click", click);
  addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || byId("delete").open) return;
    if (byId("app").classList.contains("side-open")) side(false);
    else if (!byId("frames").hidden) frames(false);
  });
  addEventListener("resize", () => {
    if (!isNarrow()) byId("main").inert = false;
  });
  theme(false);
}
