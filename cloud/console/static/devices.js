// Page of the devices: the list follows the store, and an administrator moves many devices at once.
import "./frame.js";
import { callApi } from "./actions.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";
import { showTimes } from "./time.js";

const bar = document.querySelector(".v-moves");
const chosen = new Set();
let all = false; // all that match, on every page of the list
let last = ""; // chosen last, where a range begins
let undo = "";
const fleet = () => document.querySelector(".v-fleet");
const boxes = () => [...document.querySelectorAll(".c-select input[data-device]")];
const isTyping = () => Boolean(document.activeElement?.closest(".v-filters, .v-moves"));
const say = (text) => (bar.querySelector("[data-said]").textContent = text);

function addBoxes() {
  const table = fleet()?.querySelector(".v-device-table");
  if (!bar || !table || table.querySelector(".c-select")) return;
  const head = document.createElement("th");
  head.className = "c-select";
  head.scope = "col";
  head.innerHTML = '<input type="checkbox" aria-label="Choose all devices of this page">';
  table.querySelector("thead tr").prepend(head);
  for (const row of table.querySelectorAll("tbody tr")) {
    const id = decodeURIComponent(row.querySelector(".v-row-link").getAttribute("href").slice("/device/".length));
    const cell = document.createElement("td");
    cell.className = "c-select";
    const box = Object.assign(document.createElement("input"), { type: "checkbox" });
    box.dataset.device = id;
    box.setAttribute("aria-label", `Choose ${id}`);
    cell.append(box);
    row.prepend(cell);
  }
  show();
}

function show() {
  for (const box of boxes()) box.checked = all || chosen.has(box.dataset.device);
  const matching = Number(fleet()?.dataset.matching ?? 0);
  const count = all ? matching : chosen.size;
  bar.hidden = !count && !bar.querySelector("[data-said]").textContent;
  bar.querySelector("form").hidden = !count;
  bar.querySelector("[data-count]").textContent = `${count} device${count === 1 ? "" : "s"} chosen`;
  const every = bar.querySelector("[data-all]");
  every.hidden = all || !chosen.size || matching <= chosen.size;
  every.textContent = `Choose all ${matching} that match`;
  bar.querySelector("[data-undo]").hidden = !undo;
}

function choose(box, isRange) {
  const names = boxes().map((each) => each.dataset.device);
  if (all) for (const name of names) chosen.add(name);
  all = false;
  const [from, to] = [names.indexOf(last), names.indexOf(box.dataset.device)];
  const range = isRange && from >= 0 ? names.slice(Math.min(from, to), Math.max(from, to) + 1) : [box.dataset.device];
  for (const name of range) box.checked ? chosen.add(name) : chosen.delete(name);
  last = box.dataset.device;
  show();
}

function clear() {
  chosen.clear();
  all = false;
  show();
}

function body() {
  const values = {};
  for (const name of ["site", "group"]) {
    const text = bar.querySelector(`[name=${name}]`).value.trim();
    if (text) values[name] = text;
  }
  if (!all) return { ...values, device_ids: [...chosen] };
  const query = new URLSearchParams(location.search);
  const filters = Object.fromEntries(["health", "site", "group", "text"].map((name) => [name, query.get(name) ?? ""]));
  return { ...values, matching: { ...filters, devices: Number(fleet().dataset.matching) } };
}

async function change(work, words) {
  try {
    const facts = await work();
    undo = words === "moved" ? `/api/v1/moves/${facts.move}/undo` : "";
    const stayed = facts.skipped.length ? `; ${facts.skipped.length} stay, because they were moved since` : "";
    clear();
    say(`${facts.moved.length} device${facts.moved.length === 1 ? "" : "s"} ${words}${stayed}.`);
    show();
    document.activeElement?.blur();
  } catch (error) {
    say(error.message);
  }
}

if (bar) {
  let isRange = false;
  document.addEventListener("click", (event) => {
    isRange = event.shiftKey;
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target.matches(".c-select input[data-device]")) choose(event.target, isRange);
    else if (event.target.matches("th.c-select input")) {
      all = false;
      for (const box of boxes()) event.target.checked ? chosen.add(box.dataset.device) : chosen.delete(box.dataset.device);
      show();
    }
  });
  bar.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    const values = body();
    if (!values.site && !values.group) return say("Give a site, a group or both.");
    change(() => callApi("POST", "/api/v1/moves", values), "moved");
  });
  bar.querySelector("[data-all]").addEventListener("click", () => {
    all = true;
    show();
  });
  bar.querySelector("[data-clear]").addEventListener("click", clear);
  bar.querySelector("[data-undo]").addEventListener("click", () => change(() => callApi("POST", undo), "moved back"));
  addBoxes();
}
const dress = (element) => {
  showTimes(element);
  addBoxes();
};
keepCurrent(".v-fleet", () => `/parts/devices${location.search}`, "store", 5000, dress, isTyping);
start();
