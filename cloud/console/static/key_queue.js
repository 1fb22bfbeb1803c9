// Keys that are pressed while the work of an earlier one waits for the service act after it, in their order. Without
// this they would act on the item before, or would write a note as commands.
import { hasModifier, isText } from "./frame.js";

const LIMIT_MS = 5000; // then the page takes keys again, and those that have waited are refused
const LATE = Symbol("late");
const QUEUED = /^(.|Enter|Escape|Backspace|Arrow.*|Page.*)$/u;
const keys = [];
let holds = 0;
let refuse = () => {};

// `onRefused(count)`: keys that have waited too long were dropped.
export function startQueue(onRefused) {
  refuse = onRefused;
  document.addEventListener("keydown", onKeydown, true);
}

// Let keys wait until a promise settles; its failures are its maker's.
export async function holdKeys(work) {
  holds += 1;
  let timer;
  const limit = new Promise((resolve) => (timer = setTimeout(resolve, LIMIT_MS, LATE)));
  const end = await Promise.race([Promise.resolve(work).catch(() => {}), limit]);
  clearTimeout(timer);
  holds -= 1;
  if (end === LATE) drop();
  while (!holds && keys.length) {
    if (document.querySelector("dialog[open]")) return drop(); // it has appeared meanwhile, and asks
    press(keys.shift());
  }
}

function onKeydown(event) {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
  if (!event.isTrusted || !holds || !QUEUED.test(event.key) || (hasModifier(event) && !isUndo)) return;
  if (document.querySelector("dialog[open]")) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const { key, code, shiftKey, ctrlKey, metaKey } = event;
  keys.push({ key, code, shiftKey, ctrlKey, metaKey });
}

function drop() {
  if (keys.length) refuse(keys.splice(0).length);
}

// Do what the browser does with a key: tell the page, then write, or follow the link or button with the focus.
function press(key) {
  const target = document.activeElement ?? document.body;
  if (!target.dispatchEvent(new KeyboardEvent("keydown", { ...key, bubbles: true, cancelable: true }))) return;
  if (key.ctrlKey || key.metaKey) return;
  if (isText(target)) write(target, key.key);
  else if (key.key === "Enter" && target.matches("a, button")) target.click();
}

function write(field, key) {
  if (key.length > 1 && key !== "Backspace") return;
  const [from, to] = [field.selectionStart, field.selectionEnd];
  if (key === "Backspace") field.setRangeText("", from === to ? Math.max(0, from - 1) : from, to, "end");
  else if (field.value.length - (to - from) < (field.maxLength < 0 ? Infinity : field.maxLength)) field.setRangeText(key, from, to, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
}
