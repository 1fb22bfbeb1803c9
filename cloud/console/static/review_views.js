// Saved views: named addresses of the review page, kept by the service for each account.
import { setProblem } from "./live.js";
import { request } from "./outbox.js";

export function addViews({ page, address, reload }) {
  const act = async (method, name, body) => {
    try {
      await request(method, `views/${encodeURIComponent(name)}`, body);
      setProblem("views", "");
      await reload();
    } catch (error) {
      setProblem("views", `The view was not changed: ${error.message}`);
    }
  };
  page.addEventListener("submit", (event) => {
    if (!event.target.matches(".r-save-view")) return;
    event.preventDefault();
    const name = event.target.elements.name.value.trim();
    if (name) act("PUT", name, { query: new URL(address(), location.origin).search.slice(1) });
  });
  page.addEventListener("click", (event) => {
    const button = event.target.closest(".r-remove-view");
    if (button) act("DELETE", button.dataset.name);
  });
  return {
    show() {
      for (const element of page.querySelectorAll(".r-save-view, .r-remove-view")) element.hidden = false;
    },
  };
}
