// Pages of the system: figures that stay current, and secrets that are shown once.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

const shown = document.querySelector(".v-secret");

if (document.querySelector(".v-system")) keepCurrent(".v-system", () => "/parts/system", "store", 5000);
document.addEventListener("done", (event) => {
  const made = event.detail;
  if (!shown || !(made?.link || made?.token)) return;
  event.preventDefault();
  for (const element of shown.querySelectorAll("[data-secret]")) element.textContent = made[element.dataset.secret];
  document.querySelector("[data-no-secret]").hidden = true;
  shown.hidden = false;
  event.target.reset();
  event.target.closest("dialog")?.close();
  shown.scrollIntoView({ block: "nearest" });
});
document.querySelector("[data-copies]")?.addEventListener("click", async () => {
  const said = document.querySelector(".v-copied");
  try {
    await navigator.clipboard.writeText(shown.querySelector("code").textContent);
    said.textContent = "Copied.";
  } catch {
    said.textContent = "The browser did not copy it: select the text.";
  }
});
start();
