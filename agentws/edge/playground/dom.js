// Making elements. Text enters the page through here, and only ever as text.
const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

/** An element with attributes, event listeners (functions) and children (elements or texts). */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** One of the icons that stand in index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  const use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

export function button(label, name, click, attributes = {}) {
  return make("button", { type: "button", click, ...attributes }, icon(name), make("span", {}, label));
}

/** Sets an element's text where it differs. */
export function put(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function duration(ms) {
  if (ms < 1) return "< 1 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.floor(ms / 60_000)} min ${Math.round((ms % 60_000) / 1000)} s`;
}

export function on(id, type, listen) {
  byId(id).addEventListener(type, listen);
}

/** What a form is for, in place of sending it anywhere. */
export function submits(id, listen) {
  on(id, "submit", (event) => {
    event.preventDefault();
    listen();
  });
}
