// Where messages are written: the field, which Enter sends, and examples.
import { byId, make, on, submits } from "./dom.js";

const LONG = Array.from({ length: 30 }, (_, i) => `Line ${["one", "two", "three", "four", "five"][i % 5]} of a long text that comes word by word.`).join(" ");
const EXAMPLES = [
  ["Arithmetic, with a tool", "what is 12 * (3 + 4)?"],
  ["A tool that fails", "what is 1 / 0?"],
  ["A long answer", LONG],
];

/** Text as JSON can carry it. */
export function clean(text) {
  return (text.toWellFormed?.() ?? text).replaceAll("\0", "");
}

/** @param ask is given each message */
export function composer(ask) {
  const field = byId("text");
  function typed() {
    byId("send").disabled = field.value.trim() === "";
    if (CSS.supports("field-sizing", "content")) return;
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  }
  submits("ask", () => {
    const text = clean(field.value);
    if (text.trim() === "") return;
    field.value = "";
    typed();
    ask(text);
  });
  on("text", "input", typed);
  on("text", "keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    byId("ask").requestSubmit();
  });
  on("skip", "click", (event) => {
    event.preventDefault();
    field.focus();
  });
  for (const [name, text] of EXAMPLES) {
    const click = () => ask(text);
    byId("examples").append(make("li", {}, make("button", { type: "button", click }, make("span", {}, name), make("span", { class: "sample" }, text))));
  }
  if (!matchMedia("(pointer: coarse)").matches) field.focus();
}
