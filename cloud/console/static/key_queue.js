// Keys that are pressed while the work of an earlier one waits for the service act after it, in their order. Without
// this they would act on the item before, or would write a note as commands. When that work fails they are refused,
// and so are the next ones until a pause: the rest of a note must not become commands.
import { hasModifier, isText } from "./frame.js";

const LIMIT_MS = 5000; // then the page takes keys again, and those that have waited are refused
const PAUSE_MS = 1000; // without a key: what was typed at a refusal has ended
const LATE = Symbol("late");
const QUEUED = /^(.|Enter|Escape|Backspace|Arrow.*|Page.*)$/u;
const keys = [];
const works = new Set(); // controllers of the works that keys wait for
let refuse = () => {};
let refusal = { reason: "", count: 0, last_ms: -Infinity };

// `onRefused(count, reason)`: keys were dropped; called again, with the new count, when more of them follow.
export function startQueue(onRefused) {
  refuse = onRefused;
  document.addEventListener("keydown", onKeydown, true);
  document.addEventListener("pointerdown", goElsewhere, true);
}

// Let keys wait until `work(signal)` settles. They are refused if it returns false or fails. The signal is aborted when
// they wait no more: then the work must neither choose an item nor move the focus. `writes`: text is to follow.
export async function holdKeys(work, { writes = false } = {}) {
  const controller = new AbortController();
  const done = Promise.resolve(work(controller.signal)).catch(() => false);
  works.add(controller);
  let timer;
  const limit = new Promise((resolve) => (timer = setTimeout(resolve, LIMIT_MS, LATE)));
  const end = await Promise.race([done, limit]);
  clearTimeout(timer);
  if (!works.delete(controller)) return;
  if (end === LATE) {
    controller.abort();
    drop("The service has not answered yet", writes);
  } else if (end === false) drop("An earlier key did not reach its item or list", writes);
  while (!works.size && keys.length) {
    if (document.querySelector("dialog[open]")) return drop("A dialog has opened");
    press(keys.shift());
  }
}

function onKeydown(event) {
  const isUndo = (event.ctrlKey || event.metaKey) && event.key === "z";
  if (event.isTrusted && event.key === "Tab") return goElsewhere();
  if (!event.isTrusted || !QUEUED.test(event.key) || (hasModifier(event) && !isUndo)) return;
  if (document.querySelector("dialog[open]")) return;
  const isRefused = event.timeStamp - refusal.last_ms < PAUSE_MS && !isText(event.target);
  if (!works.size && !isRefused) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (isRefused) return tellRefused(1, event.timeStamp);
  const { key, code, shiftKey, ctrlKey, metaKey } = event;
  keys.push({ key, code, shiftKey, ctrlKey, metaKey });
}

// A click or Tab: keys that wait were meant for another place, and the next ones are meant.
function goElsewhere() {
  for (const controller of works) controller.abort();
  works.clear();
  drop("The focus was moved meanwhile");
  refusal.last_ms = -Infinity;
}

function drop(reason, writes = false) {
  const count = keys.splice(0).length;
  if (!count && !writes) return;
  refusal = { reason, count: 0, last_ms: -Infinity };
  tellRefused(count, performance.now());
}

function tellRefused(count, now_ms) {
  refusal.count += count;
  refusal.last_ms = now_ms;
  if (refusal.count) refuse(refusal.count, refusal.reason);
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
