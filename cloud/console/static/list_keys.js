// Keys of the list. They work while a select has the focus, too, except those that the select needs itself.
import { hasModifier, isField, isHelpOpen, isText } from "./frame.js";
import { toggleHeatmap } from "./verdict.js";

const MOVES = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 };
const PAGES = { PageDown: 0.9, PageUp: -0.9 };

// `actions`: move(step), open(), leave(), top(); elements `list` (which scrolls) and `search`; panel().
export function addKeys(actions) {
  document.addEventListener("keydown", (event) => {
    if (hasModifier(event) || isHelpOpen() || event.defaultPrevented) return;
    const { target } = event;
    if (isText(target)) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (event.key === "/") {
      event.preventDefault();
      actions.search.focus();
      actions.search.select();
    } else if (event.key === "Escape") {
      if (isField(target)) target.blur();
      actions.leave();
    } else if (!isField(target)) {
      onListKey(event, actions);
    }
  });
}

// In a low window, as at 200 % zoom, the page scrolls instead of the list.
const canScroll = (list) => list.scrollHeight > list.clientHeight + 1;

function onListKey(event, actions) {
  const inPanel = Boolean(actions.panel()?.contains(event.target));
  const move = inPanel && event.key.startsWith("Arrow") ? undefined : MOVES[event.key];
  if (move !== undefined) {
    event.preventDefault();
    actions.move(move);
  } else if (event.key === "Enter" && !event.target.closest("a, button")) {
    actions.open();
  } else if (event.key in PAGES && !inPanel && !actions.list.contains(event.target) && canScroll(actions.list)) {
    event.preventDefault();
    actions.list.scrollBy({ top: PAGES[event.key] * actions.list.clientHeight });
  } else if (event.key === "g") {
    actions.top();
  } else if (event.key === "h") {
    toggleHeatmap();
  }
}
