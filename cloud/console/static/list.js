// Page "Verdicts": list of verdicts, filters, and one verdict beside the list. Its state is in its address. While a row is
// chosen or the list is scrolled, the list holds still and new verdicts are only counted.
import { start, follow, setProblem } from "./live.js";
import { fetchPart } from "./parts.js";
import { addKeys } from "./list_keys.js";
import { showTimes } from "./time.js";
import { dress } from "./verdict.js";

const HELD_SCROLL_PX = 8;
const TYPING_MS = 250;
const OPENING_MS = 60;
const split = document.querySelector(".v-split");
const list = split.querySelector(".v-list");
const form = document.querySelector(".v-filters");
let panel = split.querySelector(".v-detail");
let chosen = panel?.dataset.sample ?? "";
let loads = 0;
let openings = 0;
let missed = false; // a change came while the list was held
let failed = false;
let timer = 0;

const part = (selector) => list.querySelector(selector);
const rows = () => [...list.querySelectorAll("tr[data-sample]")];
const rowOf = (id) => rows().find((row) => row.dataset.sample === id);
const linkOf = (row) => row.querySelector("a.v-decision");
const opened = () => panel?.dataset.sample ?? "";
const scrolled = () => Math.max(part(".v-scroll").scrollTop, window.scrollY); // the page itself in a low window
const isHeld = () => Boolean(chosen || panel || scrolled() > HELD_SCROLL_PX);
const queryOf = (address) => new URL(address, location.origin).searchParams;

// Address of the page with a verdict opened.
function addressWith(id) {
  const query = queryOf(list.dataset.address);
  if (id) query.set("open", id);
  return query.size ? `/verdicts?${query}` : "/verdicts";
}

// ---- the list

async function load(address) {
  const mine = ++loads;
  try {
    const fresh = await fetchPart(`/parts/list?${queryOf(address)}`);
    if (mine !== loads) return false;
    putList(fresh);
  } catch (error) {
    failed = true;
    setProblem("list", error.message);
    return false;
  }
  failed = missed = false;
  setProblem("list", "");
  return true;
}

function putList(fresh) {
  const known = new Map(rows().map((row) => [row.dataset.sample, row]));
  const devices = list.dataset.devices;
  for (const name of list.getAttributeNames()) if (name.startsWith("data-")) list.removeAttribute(name);
  for (const { name, value } of fresh.attributes) list.setAttribute(name, value);
  const freshRows = [...fresh.querySelectorAll("tbody tr")];
  part("tbody").replaceChildren(...freshRows.map((row) => known.get(row.dataset.sample) ?? row));
  for (const selector of ["thead", ".v-foot"]) replace(part(selector), fresh.querySelector(selector));
  part(".v-table").setAttribute("aria-label", fresh.getAttribute("aria-label"));
  part(".v-empty")?.remove();
  const empty = fresh.querySelector(".v-empty");
  if (empty) part(".v-scroll").append(empty);
  empty ? part(".v-scroll").setAttribute("tabindex", "0") : part(".v-scroll").removeAttribute("tabindex");
  showTimes(list);
  if (chosen && !rowOf(chosen) && !panel) chosen = "";
  mark();
  if (devices !== list.dataset.devices) refreshDevices();
}

// Put a fresh element in the place of an old one; a link that has the focus keeps it.
function replace(old, fresh) {
  if (old.outerHTML === fresh.outerHTML) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.textContent : null;
  old.replaceWith(fresh);
  if (focused) [...fresh.querySelectorAll("a")].find((link) => link.textContent === focused)?.focus();
}

async function refreshDevices() {
  const fresh = await fetchPart(`/parts/filters?${queryOf(list.dataset.address)}`).catch(() => null);
  const select = form.elements.device;
  const wanted = select.value;
  if (fresh) select.replaceChildren(...fresh.elements.device.options);
  select.value = wanted;
}

async function count() {
  const query = queryOf(list.dataset.address);
  query.set("since", list.dataset.since);
  const answer = await fetch(`/parts/new?${query}`).catch(() => null);
  const waiting = answer?.ok ? (await answer.json()).new : 0;
  if (!waiting || !missed) return;
  const held = document.createElement("b");
  held.className = "v-waiting";
  held.textContent = `${waiting > 99 ? "99+" : waiting} new`;
  part(".v-state").replaceChildren(held, ", held back");
  enableTop();
}

// The first page is worth a click while new verdicts are held back.
function enableTop() {
  const button = part(".v-foot > .v-button");
  if (button.tagName === "A") return;
  const link = document.createElement("a");
  link.className = "v-button";
  link.dataset.go = "top";
  link.href = list.dataset.top;
  link.textContent = button.textContent;
  button.replaceWith(link);
}

function update() {
  if (list.dataset.follows === undefined) return;
  missed = true;
  isHeld() ? count() : load(list.dataset.address);
}

function release() {
  if (missed && !isHeld()) load(list.dataset.address);
}

// ---- filters, order and pages

function fill(query) {
  for (const field of form.elements) if (field.name && field.type !== "hidden") field.value = query.get(field.name) ?? "";
  showFilters();
}

function showFilters() {
  const fields = [...form.elements].filter((field) => field.name && field.type !== "hidden");
  for (const field of fields) field.classList.toggle("v-set", Boolean(field.value));
  form.querySelector(".v-clear").disabled = !fields.some((field) => field.value);
}

function apply() {
  clearTimeout(timer);
  showFilters();
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  const sort = queryOf(list.dataset.address).get("sort");
  sort ? query.set("sort", sort) : query.delete("sort");
  go(`/verdicts?${query}`);
}

// Show another page of the list; `push`: as a step that Back undoes.
async function go(address, { push = false, choice = "" } = {}) {
  if (!(await load(address))) return;
  part(".v-scroll").scrollTop = 0;
  window.scrollTo(0, 0);
  if (choice && rows().length) choose(choice === "first" ? rows()[0] : rows().at(-1));
  else if (!panel) letGo();
  push ? history.pushState({}, "", addressWith(opened())) : history.replaceState(history.state, "", addressWith(opened()));
}

// ---- rows and the opened verdict

function mark() {
  for (const row of rows()) {
    const isChosen = row.dataset.sample === chosen;
    row.classList.toggle("v-chosen", isChosen);
    isChosen ? linkOf(row).setAttribute("aria-current", "true") : linkOf(row).removeAttribute("aria-current");
  }
  split.classList.toggle("v-open", Boolean(panel));
}

function choose(row, { focus = true } = {}) {
  chosen = row.dataset.sample;
  mark();
  row.scrollIntoView({ block: "nearest" });
  if (focus && !panel?.contains(document.activeElement)) linkOf(row).focus({ preventScroll: true });
}

function letGo() {
  if (list.contains(document.activeElement)) document.activeElement.blur();
  chosen = "";
  mark();
  release();
}

async function open(id, { focus = false, history: step = "push" } = {}) {
  const mine = ++openings;
  chosen = id;
  mark();
  let fresh;
  try {
    fresh = await fetchPart(`/parts/verdict/${encodeURIComponent(id)}`);
    setProblem("verdict", "");
  } catch (error) {
    setProblem("verdict", `This verdict could not be read: ${error.message}`);
    return;
  }
  if (mine !== openings) return;
  if (step === "push") history.pushState({ base: list.dataset.address }, "", addressWith(id));
  if (step === "replace") history.replaceState(history.state, "", addressWith(id));
  putPanel(fresh, focus);
}

function putPanel(fresh, focus) {
  const had = focus || panel?.contains(document.activeElement);
  panel ? panel.replaceWith(fresh) : split.append(fresh);
  panel = fresh;
  dress(panel);
  mark();
  const row = rowOf(chosen);
  row?.scrollIntoView({ block: "nearest" });
  if (had) panel.focus({ preventScroll: true });
  else if (row && !list.contains(document.activeElement)) linkOf(row).focus({ preventScroll: true });
}

function removePanel() {
  openings += 1;
  const had = panel.contains(document.activeElement);
  panel.remove();
  panel = null;
  mark();
  const row = rowOf(chosen);
  if (had && row) linkOf(row).focus({ preventScroll: true });
}

// Close the opened verdict: back in the history if it was opened from this list.
function close() {
  if (history.state?.base === list.dataset.address) history.back();
  else {
    removePanel();
    history.replaceState(history.state, "", addressWith(""));
  }
}

async function onHistory() {
  const query = queryOf(location.href);
  const id = query.get("open") ?? "";
  query.delete("open");
  const here = queryOf(list.dataset.address);
  here.sort();
  query.sort();
  if (String(here) !== String(query)) {
    fill(query);
    await load(`/verdicts?${query}`);
  }
  if (id && id !== opened()) await open(id, { history: "none" });
  else if (!id && panel) removePanel();
  mark();
}

// ---- events

function onClick(event) {
  const link = event.target.closest("a");
  if (event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  const row = event.target.closest("tr[data-sample]");
  if (link?.dataset.go !== undefined) {
    event.preventDefault();
    go(link.getAttribute("href"), { push: Boolean(link.dataset.go) && list.dataset.address !== link.getAttribute("href") });
  } else if (row) {
    event.preventDefault();
    const step = panel ? "replace" : "push";
    open(row.dataset.sample, { focus: Boolean(link) && event.detail === 0, history: step });
  }
}

function move(step) {
  const all = rows();
  const place = all.findIndex((row) => row.dataset.sample === chosen) + step;
  const turn = (name) => part(`a[data-go=${name}]`)?.getAttribute("href");
  if (place >= all.length && turn("onward")) go(turn("onward"), { push: true, choice: "first" });
  else if (place < 0 && turn("back") && all.length) go(turn("back"), { push: true, choice: "last" });
  if (place < 0 || place >= all.length) return;
  choose(all[place]);
  if (!panel) return;
  clearTimeout(timer);
  timer = setTimeout(() => open(chosen, { history: "replace" }), OPENING_MS); // of a held key only the last one
}

function begin() {
  list.addEventListener("click", onClick);
  list.addEventListener("focusin", (event) => {
    const row = event.target.closest("tr[data-sample]");
    if (row && row.dataset.sample !== chosen) choose(row, { focus: false });
  });
  list.addEventListener("error", (event) => (event.target.hidden = true), true); // a picture that has expired
  for (const area of [part(".v-scroll"), window]) area.addEventListener("scroll", release, { passive: true });
  split.addEventListener("click", (event) => {
    if (event.target.closest(".v-close")) close();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply();
  });
  form.addEventListener("change", (event) => event.target.matches("select") && apply());
  form.addEventListener("input", (event) => {
    if (!event.target.matches("[type=search]")) return;
    clearTimeout(timer);
    timer = setTimeout(apply, TYPING_MS);
  });
  const clear = form.querySelector(".v-clear");
  clear.hidden = false;
  form.querySelector(".v-apply").hidden = true;
  clear.addEventListener("click", () => {
    fill(new URLSearchParams());
    apply();
  });
  window.addEventListener("popstate", onHistory);
  addKeys({
    list: part(".v-scroll"),
    search: form.elements.text,
    panel: () => panel,
    move,
    open: () => chosen && open(chosen, { focus: true, history: panel ? "replace" : "push" }),
    leave: () => (panel ? close() : letGo()),
    top: () => go(list.dataset.top, { push: list.dataset.top !== list.dataset.address }),
  });
  follow("verdicts", () => {
    update();
    if (panel?.dataset.waits !== undefined) open(opened(), { history: "none" });
  });
  follow("store", () => rows().length || load(list.dataset.address));
  follow("clock", () => failed && load(list.dataset.address));
  if (panel) dress(panel);
  mark();
  showFilters();
}

if (list) begin();
start();
