// Dialog with the newest sample of a source, which its device is asked for.
import { showTimes } from "./time.js";

const EVERY_MS = 2000;
const REFUSED_EVERY_MS = 10_000; // while the device shows no more samples
const KEEP_MS = 60_000;
const dialog = document.getElementById("live-view");
let source = "";
let asking = null; // AbortController of the request under way
let timer = 0;
let ends_ms = 0;

const find = (selector) => dialog.querySelector(selector);

// Fetch the part; throws an Error with the reason in words.
async function fetchView(signal) {
  let answer;
  try {
    const headers = { "X-CSRF-Token": document.body.dataset.csrf ?? "" };
    answer = await fetch(`${dialog.dataset.address}?source=${encodeURIComponent(source)}`, { method: "POST", headers, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The service does not answer.");
  }
  if (!answer.headers.has("x-vedette-part")) { // also HTML of a proxy in front of the service
    const reason = await answer.json().catch(() => ({}));
    throw new Error(typeof reason.detail === "string" ? reason.detail : `The service answered ${answer.status}.`);
  }
  const template = document.createElement("template");
  template.innerHTML = await answer.text(); // rendered and escaped by the service
  return template.content.firstElementChild;
}

async function look() {
  clearTimeout(timer);
  asking?.abort();
  const mine = (asking = new AbortController());
  const started_ms = performance.now();
  let every_ms = EVERY_MS;
  find(".v-failed").hidden = true;
  if (!find(".v-live-view")) say("Asking the device …");
  try {
    const view = await fetchView(mine.signal);
    if (mine !== asking) return;
    const waits = view.dataset.state === "too often";
    if (waits) every_ms = REFUSED_EVERY_MS;
    const keepsSample = waits && find(".v-live-view[data-state=shown]");
    if (!keepsSample) {
      find(".v-live-shown").replaceChildren(view);
      showTimes(view);
    }
    if (view.dataset.state !== "shown" && !waits) stopKeeping();
    if (waits) say(`${keepsSample ? view.textContent.trim() : ""} ${keeps() ? "Asked again every 10 s." : ""}`.trim());
    else say(view.dataset.state !== "shown" ? "" : keeps() ? "Asked every 2 s." : "Not renewed: look again, or keep looking.");
  } catch (error) {
    if (mine !== asking) return;
    find(".v-failed").textContent = error.message;
    find(".v-failed").hidden = false;
    stopKeeping();
    say("");
  }
  if (keeps()) timer = setTimeout(next, Math.max(0, every_ms - (performance.now() - started_ms)));
}

function next() {
  if (performance.now() < ends_ms && !document.hidden) {
    look();
    return;
  }
  stopKeeping();
  say("Ended: not renewed any more.");
}

const keeps = () => find("[name=keep]").checked;

function stopKeeping() {
  clearTimeout(timer);
  find("[name=keep]").checked = false;
}

function say(words) {
  const state = find(".v-live-state");
  if (state.textContent !== words) state.textContent = words;
}

export function addLiveViews() {
  if (!dialog) return; // of a viewer, or of an unknown device
  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-opens=live-view]");
    if (opener) {
      source = opener.dataset.setSource;
      find(".v-live-shown").replaceChildren();
      stopKeeping();
    }
    if (opener || event.target.closest("[data-look]")) look();
  });
  find("[name=keep]").addEventListener("change", () => {
    ends_ms = performance.now() + KEEP_MS;
    keeps() ? look() : stopKeeping();
  });
  dialog.addEventListener("close", () => {
    stopKeeping();
    asking?.abort();
    asking = null;
    find(".v-live-shown").replaceChildren(); // no picture stays behind the page
    // The button may have been replaced with its part of the page.
    document.querySelector(`[data-opens=live-view][data-set-source="${CSS.escape(source)}"]`)?.focus();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden && keeps()) next();
  });
}
