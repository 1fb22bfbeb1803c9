// Keys of the review page. They work wherever the focus is, except in a field for text.
import { hasModifier, isField, isHelpOpen, isText } from "./frame.js";
import { holdKeys, startQueue } from "./key_queue.js";
import { toggleHeatmap } from "./verdict.js";

const MOVES = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1, J: 1, K: -1 };
const DECISIONS = { r: "real", f: "false_alarm", u: "unsure" };
const PAGES = { PageDown: 0.9, PageUp: -0.9 };

export function addKeys(actions) {
  startQueue((count, reason) => actions.decisions.say(`${reason}: ${count === 1 ? "1 key was" : `${count} keys were`} not used.`));
  document.addEventListener("keydown", (event) => {
    if (isHelpOpen() || document.querySelector("dialog[open]") || event.defaultPrevented) return;
    if ((event.ctrlKey || event.metaKey) && event.key === "z" && !isText(event.target)) {
      event.preventDefault();
      actions.decisions.undo();
      return;
    }
    if (hasModifier(event)) return;
    if (isText(event.target) && event.target.type !== "checkbox") return onText(event, actions);
    if (event.key === "/") {
      event.preventDefault();
      actions.search.focus();
      actions.search.select();
    } else if (event.key === "Escape") {
      if (isField(event.target)) event.target.blur();
      holdKeys(actions.leave);
    } else if (!event.target.matches("select, input[type=range]")) onKey(event, actions);
  });
}

function onText(event, actions) {
  if (event.key === "Escape") event.target.blur();
  if (event.key === "Enter" && event.target.matches(".r-note")) {
    event.preventDefault();
    event.target.blur();
    actions.decisions.noteAgain();
  }
}

function onKey(event, actions) {
  const { target } = event;
  const key = event.shiftKey || event.key.length > 1 ? event.key : event.key.toLowerCase(); // Caps Lock
  const inPanel = Boolean(actions.panel()?.contains(target));
  const move = inPanel && key.startsWith("Arrow") ? undefined : MOVES[key];
  const list = actions.list();
  if (move !== undefined) {
    event.preventDefault();
    holdKeys((signal) => moveBy(move, event.shiftKey, actions, signal));
  } else if (key in DECISIONS) actions.decisions.decide(DECISIONS[key]);
  else if (key === "e") actions.decisions.review();
  else if (key === "z") actions.decisions.undo();
  else if (key === "x") actions.chosenRow() ? actions.selection.toggle(actions.chosenRow()) : actions.decisions.sayChoose();
  else if (key === "a") actions.selection.all(!actions.selection.size);
  else if (key === "n") {
    event.preventDefault();
    holdKeys(actions.note, { writes: true });
  } else if (key === "Enter" && !target.closest("button, .r-side a, .r-tabs a, .r-member, .r-more, .r-new, .r-panel a")) {
    event.preventDefault();
    holdKeys(actions.open);
  } else if (event.shiftKey && /^Digit[1-9]$/.test(event.code)) actions.labels.choose(Number(event.code.at(-1)) - 1);
  else if (key === "c") {
    event.preventDefault();
    holdKeys(actions.nameClass, { writes: true });
  } else if (key === "m") {
    event.preventDefault();
    actions.labels.mute();
  } else if (key >= "1" && key <= "5") holdKeys(() => actions.tab(Number(key) - 1));
  else if (key === "g") holdKeys(actions.top);
  else if (key === "h") toggleHeatmap();
  else if (key in PAGES && !inPanel && !list.contains(target)) {
    event.preventDefault();
    list.scrollBy({ top: PAGES[key] * list.clientHeight });
  }
}

async function moveBy(step, isRange, actions, signal) {
  const from = actions.chosenRow();
  if (isRange && from && !actions.selection.size) actions.selection.toggle(from);
  const hasMoved = await actions.move(step, signal);
  if (hasMoved && isRange) actions.selection.toggle(actions.chosenRow(), { range: true });
  return hasMoved;
}
