// Top bar of every page: theme, help on keys.

const THEMES = ["auto", "light", "dark"];
const SIGNS = { auto: "◐", light: "☀", dark: "☾" };
const button = document.querySelector(".v-theme");
const help = document.querySelector(".v-help");
const dialog = document.getElementById("help");

export const isText = (target) => target.matches?.("textarea, input:not([type=range]):not([type=checkbox])");
export const isField = (target) => target.matches?.("input, select, textarea");
export const hasModifier = (event) => event.ctrlKey || event.metaKey || event.altKey;
export const isHelpOpen = () => dialog.open;

function theme() {
  const kept = localStorage.getItem("vedette-theme");
  return THEMES.includes(kept) ? kept : "auto";
}

function showTheme() {
  window.vedetteTheme();
  button.title = `Theme: ${theme()}. Click for the next one.`;
  button.firstElementChild.textContent = SIGNS[theme()];
  button.lastElementChild.textContent = theme();
}

button.addEventListener("click", () => {
  localStorage.setItem("vedette-theme", THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  showTheme();
});
// The dialog itself has the focus, else a small screen begins at its last line, the button.
function openHelp() {
  dialog.showModal();
  dialog.focus();
  dialog.scrollTop = 0;
}

help.addEventListener("click", openHelp);
document.addEventListener("keydown", (event) => {
  if (event.key !== "?" || hasModifier(event) || isText(event.target) || dialog.open) return;
  event.preventDefault();
  openHelp();
});
showTheme();
button.hidden = help.hidden = false;
