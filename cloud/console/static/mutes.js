// Page "Mutes": mutes are ended, and their end is undone.
import "./frame.js";
import { callApi } from "./actions.js";
import { start } from "./live.js";
import { fetchPart, keepCurrent } from "./parts.js";
import { showTimes } from "./time.js";

const address = () => `/parts/mutes${location.search}`;

function say(words) {
  const place = document.querySelector(".r-said");
  place.textContent = words;
  place.hidden = false;
}

const count = (items, verb) => `${items} ${items === 1 ? "item" : "items"} ${verb}`;

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-change]");
  if (!button) return;
  button.disabled = true;
  const { change, mute } = button.dataset;
  try {
    const { items } = await callApi("POST", `/api/v1/mutes/${mute}/${change}`);
    const fresh = await fetchPart(address());
    document.querySelector(".r-mute-list").replaceWith(fresh);
    showTimes(fresh);
    say(change === "end" ? `Ended: ${count(items, "came back into the inbox.")}` : `Active again: ${count(items, "left the inbox.")}`);
    const other = change === "end" ? "resume" : "end";
    fresh.querySelector(`[data-change=${other}][data-mute="${mute}"]`)?.focus();
  } catch (error) {
    button.disabled = false;
    say(error.message);
  }
});

keepCurrent(".r-mute-list", address, "review", 5000, showTimes, () => !document.querySelector(".r-said")?.hidden);
start();
