// Page of enrolment: the token is shown once, as text and as a QR code.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";
import { clock } from "./time.js";

const shown = document.querySelector(".v-token");

document.addEventListener("done", (event) => {
  if (!("showsToken" in event.target.dataset)) return;
  event.preventDefault();
  const made = event.detail;
  for (const element of shown.querySelectorAll("[data-token]")) {
    const value = made[element.dataset.token];
    element.textContent = element.dataset.token === "expires_at" ? clock(Date.parse(value) / 1000) : value;
  }
  const code = new DOMParser().parseFromString(made.qr_svg, "image/svg+xml").documentElement;
  code.setAttribute("role", "img");
  code.setAttribute("aria-label", `QR code of the command that enrols ${made.device_id}`);
  shown.querySelector(".v-qr").replaceChildren(document.adoptNode(code));
  document.querySelector("[data-no-token]").hidden = true;
  shown.hidden = false;
  event.target.reset();
});
document.querySelector("[data-copies]")?.addEventListener("click", async () => {
  const said = document.querySelector(".v-copied");
  try {
    await navigator.clipboard.writeText(shown.querySelector("[data-token=command]").textContent);
    said.textContent = "Copied.";
  } catch {
    said.textContent = "The browser did not copy it: select the text.";
  }
});
start();
