// Page "Review": items by severity, one of them beside the list, and decisions. Its state is in its address. The list
// never moves by itself: new items are counted, and items that others decide change in place.
import { isText } from "./frame.js";
import { follow, setProblem, start } from "./live.js";
import { addMisses } from "./miss.js";
import { fetchPart, focusKept } from "./parts.js";
import { Decisions } from "./review_decisions.js";
import { addKeys } from "./review_keys.js";
import { Labels } from "./review_labels.js";
import { Selection } from "./review_selection.js";
import { addSwipe } from "./review_swipe.js";
import { showDay, showMonth } from "./review_time.js";
import { addViews } from "./review_views.js";
import { showTimes } from "./time.js";
import { dress } from "./verdict.js";

const TYPING_MS = 250;
const CHANGES_MS = 700;
const CHANGES_EVERY_MS = 2000; // at most, however many verdicts arrive
const MAX_SHOWN = 200;
const MAX_AHEAD = 24;
const EMPTY_MS = 3000; // between two readings of an empty list, whose text names the state of the fleet
const page = document.querySelector(".r-page");
const form = document.querySelector(".r-filters");
let panel = page?.querySelector(".r-panel");
let chosen = panel?.dataset.item ?? "";
let choices = 0; // changes of the chosen item: work that waited for the service ends if there was one
let loads = 0;
let loaded_ms = performance.now();
let openings = 0;
let reading = null; // of further rows
let timer = 0;
let changesTimer = null;
let lastChanges_ms = -Infinity;
let failed = false;
let selection = null;
let decisions = null;
let labels = null;
let views = null;
const ahead = new Map(); // panels that were fetched before they are opened

const work = () => page.querySelector(".r-work");
const part = (selector) => page.querySelector(selector);
const rows = () => [...page.querySelectorAll(".r-row")];
const rowOf = (item) => page.querySelector(`.r-row[data-item="${item}"]`);
const linkOf = (row) => row.querySelector(".r-open");
const queryOf = (address) => new URL(address, location.origin).searchParams;
const listQuery = () => queryOf(work().dataset.address);

function setChosen(item) {
  if (item !== chosen) choices += 1;
  chosen = item;
}

function addressWith(item) {
  const query = listQuery();
  item ? query.set("open", item) : query.delete("open");
  query.delete("after");
  return query.size ? `/?${query}` : "/";
}

// ---- the list

// Read the list and put it in place; `isOther`: another list, in which no row is chosen. Return whether that was done.
async function load(address, { isOther = false } = {}) {
  const mine = ++loads;
  loaded_ms = performance.now();
  let fresh;
  try {
    fresh = await fetchPart(`/parts/review?${queryOf(address)}`);
  } catch (error) {
    failed = true;
    setProblem("list", error.message);
    return false;
  }
  if (mine !== loads) return false;
  failed = false;
  setProblem("list", "");
  ahead.clear();
  if (isOther && !panel) setChosen("");
  const before = rows().map((row) => row.dataset.item);
  const had = work().contains(document.activeElement);
  const refocus = focusKept(work());
  work().replaceWith(fresh);
  if (!isOther) chooseNear(before);
  furnish();
  if (had && !refocus(work())) (rowOf(chosen) ? linkOf(rowOf(chosen)) : part(".r-inbox")).focus({ preventScroll: true });
  return true;
}

// Choose the next of the rows `before` that is still listed if the chosen one is not.
function chooseNear(before) {
  const place = before.indexOf(chosen);
  if (place < 0 || rowOf(chosen) || panel) return;
  setChosen([...before.slice(place), ...before.slice(0, place).reverse()].find(rowOf) ?? "");
}

// Give life to a list that was put in place.
function furnish() {
  showTimes(page);
  selection.refresh();
  decisions.mark();
  views.show();
  showDay(part(".r-day"), () => listQuery(), go);
  showMonth(part(".r-calendar"), () => listQuery(), go);
  mark();
}

// Show another list; `push`: as a step that Back undoes. Return whether it is shown.
async function go(address, { push = true } = {}) {
  clearTimeout(timer);
  fill(queryOf(address));
  if (!(await load(address, { isOther: true }))) return false;
  part(".r-inbox").scrollTop = 0;
  const target = addressWith(panel?.dataset.item ?? "");
  push ? history.pushState({}, "", target) : history.replaceState(history.state, "", target);
  return true;
}

// Read the next rows once, however often they are asked for; return whether that was done.
function more() {
  reading ??= readMore().finally(() => (reading = null));
  return reading;
}

async function readMore() {
  const link = part(".r-more");
  const mine = loads;
  if (!link) return false;
  try {
    const fresh = await fetchPart(`/parts/review?${queryOf(link.getAttribute("href"))}`);
    if (mine !== loads) return Boolean(part(".r-more")); // another list is in place meanwhile
    const known = new Set(rows().map((row) => row.dataset.item));
    const added = [...fresh.querySelectorAll(".r-row")].filter((row) => !known.has(row.dataset.item));
    const had = link === document.activeElement;
    part(".r-list").append(...added);
    link.closest(".r-end").replaceWith(...fresh.querySelectorAll(".r-end"));
    showTimes(part(".r-list"));
    decisions.mark();
    if (had && added.length) choose(added[0]);
    setProblem("list", "");
    return true;
  } catch (error) {
    setProblem("list", error.message);
    return false;
  }
}

// ---- changes of others, and new items

function changesSoon() {
  changesTimer ??= setTimeout(readChanges, Math.max(CHANGES_MS, lastChanges_ms + CHANGES_EVERY_MS - performance.now()));
}

async function readChanges() {
  changesTimer = null;
  lastChanges_ms = performance.now();
  const mine = loads;
  const shown = new Map(rows().slice(0, MAX_SHOWN).map((row) => [row.dataset.item, row.dataset.mark]));
  if (panel && shown.get(panel.dataset.item) !== panel.dataset.mark) shown.set(panel.dataset.item, "");
  const query = listQuery();
  query.delete("after");
  query.set("newest", work().dataset.newest);
  query.set("shown", [...shown].map(([item, mark]) => `${item}:${mark}`).join(","));
  const answer = await fetch(`/parts/review/changes?${query}`).catch(() => null);
  if (!answer?.ok || mine !== loads) return;
  const found = await answer.json();
  if (mine !== loads) return;
  if (!rows().length && found.new) return void load(work().dataset.address);
  fillPlace(".r-tabs-place", found.tabs);
  fillPlace(".r-places", found.places);
  const link = part(".r-new");
  link.hidden = !found.new;
  link.textContent = `${found.new > 99 ? "99+" : found.new} new`;
  for (const [item, html] of Object.entries(found.rows)) updateRow(item, html);
}

function fillPlace(selector, html) {
  const place = part(selector);
  const refocus = focusKept(place);
  place.innerHTML = html; // rendered and escaped by the service
  refocus(place);
}

function updateRow(item, html) {
  const template = document.createElement("template");
  template.innerHTML = html; // rendered and escaped by the service
  const fresh = template.content.firstElementChild;
  if (decisions.isOwn(item)) return;
  const row = rowOf(item);
  if (row && row.dataset.mark !== fresh.dataset.mark) {
    const focused = row.contains(document.activeElement);
    row.replaceWith(fresh);
    showTimes(fresh);
    selection.refresh();
    mark();
    // Not on this row if another one was chosen meanwhile: the focus would choose it again.
    if (focused) linkOf(item === chosen ? fresh : rowOf(chosen) ?? fresh).focus({ preventScroll: true });
  }
  // Not while the panel of the next item is on its way: the choice must not go back to this one.
  if (panel?.dataset.item === item && chosen === item && panel.dataset.mark !== fresh.dataset.mark && !panel.contains(document.activeElement)) {
    open(item, { step: "none", again: true });
  }
}

// ---- the opened item

function mark() {
  for (const row of rows()) {
    const isChosen = row.dataset.item === chosen;
    row.classList.toggle("r-chosen", isChosen);
    isChosen ? linkOf(row).setAttribute("aria-current", "true") : linkOf(row).removeAttribute("aria-current");
  }
}

function choose(row, { focus = true } = {}) {
  setChosen(row.dataset.item);
  mark();
  row.scrollIntoView({ block: "nearest" });
  if (focus && !panel?.contains(document.activeElement)) linkOf(row).focus({ preventScroll: true });
}

function partOf(key, address) {
  if (!ahead.has(key)) ahead.set(key, fetchPart(address));
  while (ahead.size > MAX_AHEAD) ahead.delete(ahead.keys().next().value);
  return ahead.get(key);
}

const panelOf = (item) => partOf(item, `/parts/review/item/${encodeURIComponent(item)}`);
const whyOf = (sample) => partOf(`why ${sample}`, `/parts/verdict/${encodeURIComponent(sample)}`);

// Open an item beside the list. Return whether it is open, and still the chosen one.
async function open(item, { step = "push", focus = false, again = false } = {}) {
  const mine = ++openings;
  setChosen(item);
  mark();
  if (again) ahead.delete(item);
  let fresh;
  try {
    fresh = (await panelOf(item)).cloneNode(true);
    setProblem("item", "");
  } catch (error) {
    ahead.delete(item);
    if (mine === openings) setProblem("item", `This item could not be read: ${error.message}`);
    return false;
  }
  if (mine !== openings) return false;
  if (again && panel?.dataset.item === item && panel.contains(document.activeElement) && isText(document.activeElement)) return true; // it is written in
  if (step === "push") history.pushState({ opened: true }, "", addressWith(item));
  if (step === "replace") history.replaceState(history.state, "", addressWith(item));
  const isWriting = isText(document.activeElement) && !panel?.contains(document.activeElement); // such as a search
  const had = focus || panel?.contains(document.activeElement);
  const why = again && panel?.dataset.item === item ? panel.querySelector(".r-why") : null;
  panel ? panel.replaceWith(fresh) : page.append(fresh);
  panel = fresh;
  if (why) panel.querySelector(".r-why")?.replaceWith(why);
  dressPanel(!why);
  const row = rowOf(item);
  row?.scrollIntoView({ block: "nearest" });
  if (isWriting) return chosen === item;
  if (had) panel.focus({ preventScroll: true });
  else if (row && !page.querySelector(".r-work").contains(document.activeElement)) linkOf(row).focus({ preventScroll: true });
  return chosen === item;
}

// Give the focus to a field in the panel of the chosen item; the panel may still be that of the item before. Return
// whether it has the focus: an item that has expired has no fields.
async function write(selector, signal) {
  if (!chosen) decisions.sayChoose();
  if (!chosen || (panel?.dataset.item !== chosen && !(await open(chosen, { step: panel ? "replace" : "push" })))) return false;
  const field = signal.aborted ? null : panel?.querySelector(selector);
  field?.focus();
  return Boolean(field);
}

function dressPanel(withWhy = true) {
  showTimes(panel);
  decisions.mark();
  mark();
  if (withWhy && panel.dataset.sample) showWhy(panel.dataset.sample);
  const next = rows()[rows().findIndex((row) => row.dataset.item === panel.dataset.item) + 1];
  if (next) {
    panelOf(next.dataset.item).catch(() => ahead.delete(next.dataset.item));
    if (next.dataset.sample) whyOf(next.dataset.sample).catch(() => ahead.delete(`why ${next.dataset.sample}`));
  }
}

async function showWhy(sample) {
  const mine = panel;
  for (const link of mine.querySelectorAll(".r-member")) {
    link.dataset.sample === sample ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
  }
  const place = mine.querySelector(".r-why");
  try {
    const verdict = (await whyOf(sample)).cloneNode(true);
    if (mine !== panel) return;
    place.replaceChildren(verdict);
    dress(verdict);
  } catch (error) {
    ahead.delete(`why ${sample}`);
    place.textContent = `This verdict could not be read: ${error.message}`;
  }
}

function removePanel() {
  openings += 1;
  const had = panel.contains(document.activeElement);
  panel.remove();
  panel = null;
  const row = rowOf(chosen);
  if (had && row) linkOf(row).focus({ preventScroll: true });
}

function close() {
  if (history.state?.opened) {
    const closed = new Promise((resolve) => window.addEventListener("popstate", resolve, { once: true }));
    history.back();
    return closed;
  }
  removePanel();
  history.replaceState(history.state, "", addressWith(""));
}

function letGo() {
  if (page.contains(document.activeElement)) document.activeElement.blur();
  setChosen("");
  mark();
}

// Choose the row that is `step` from the chosen one. Return whether that was done: not if another row was chosen while
// further rows were read, or the list was replaced.
async function move(step, signal) {
  const mine = choices;
  const place = () => rows().findIndex((row) => row.dataset.item === chosen) + step;
  while (place() >= rows().length) {
    if (!(await more()) || signal.aborted || mine !== choices || !rowOf(chosen)) return false;
  }
  const row = rows()[place()];
  if (!row) return false;
  choose(row);
  if (panel) open(row.dataset.item, { step: "replace" });
  return true;
}

async function onHistory() {
  const query = queryOf(location.href);
  const item = query.get("open") ?? "";
  query.delete("open");
  const here = listQuery();
  for (const each of [here, query]) {
    each.delete("after");
    each.sort();
  }
  if (String(here) !== String(query)) {
    fill(query);
    await load(`/?${query}`);
  }
  if (item && item !== panel?.dataset.item) await open(item, { step: "none" });
  else if (!item && panel) removePanel();
  mark();
}

// ---- filters

function fill(query) {
  for (const field of form.elements) if (field.name) field.value = query.get(field.name) ?? "";
  showFilters();
}

function showFilters() {
  const fields = [...form.elements].filter((field) => field.name && !["tab", "sort"].includes(field.name));
  for (const field of fields) field.classList.toggle("v-set", Boolean(field.value));
  form.querySelector(".r-clear").hidden = !fields.some((field) => field.value);
}

function apply() {
  const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
  go(query.size ? `/?${query}` : "/");
}

function tab(place) {
  const link = page.querySelectorAll(".r-tab")[place];
  if (link) return go(link.getAttribute("href"));
}

// ---- events

function onClick(event) {
  if (event.button || event.ctrlKey || event.metaKey || event.altKey) return;
  const { target } = event;
  const link = target.closest("a");
  const row = target.closest(".r-row");
  const button = target.closest("button");
  if (target.closest(".r-check")) selection.toggle(row, { range: event.shiftKey });
  else if (link?.dataset.go !== undefined) {
    event.preventDefault();
    go(link.getAttribute("href"));
  } else if (link?.matches(".r-more")) {
    event.preventDefault();
    more();
  } else if (link?.matches(".r-member")) {
    event.preventDefault();
    showWhy(link.dataset.sample);
  } else if (button) onButton(button);
  else if (row && !row.dataset.dragged) {
    event.preventDefault();
    if (event.shiftKey) selection.toggle(row, { range: true });
    else open(row.dataset.item, { step: panel ? "replace" : "push", focus: Boolean(link) && event.detail === 0 });
  }
}

function onButton(button) {
  if (button.dataset.decide) decisions.decide(button.dataset.decide, { fromPanel: Boolean(button.closest(".r-panel")) });
  else if (button.dataset.mark !== undefined) decisions.review({ fromPanel: Boolean(button.closest(".r-panel")) });
  else if (button.dataset.select) selection.all(button.dataset.select === "all");
  else if (button.matches(".r-close")) close();
}

function begin() {
  selection = new Selection({ page, rows });
  decisions = new Decisions({
    page,
    rows,
    rowOf,
    selection,
    move,
    panel: () => panel,
    chosen: () => chosen,
    reopen: (item) => item === chosen && open(item, { step: "none", again: true }),
    reload: () => load(work().dataset.address),
    changed: changesSoon,
    decided: (item) => labels.show(item),
  });
  labels = new Labels({
    page,
    decisions,
    panel: () => panel,
    chosen: () => chosen,
    muted: (words) => {
      decisions.say(words);
      load(work().dataset.address);
    },
  });
  addMisses(() => load(work().dataset.address));
  views = addViews({ page, address: () => addressWith(""), reload: () => load(work().dataset.address) });
  page.addEventListener("click", onClick);
  page.addEventListener("focusin", (event) => {
    const row = event.target.closest(".r-row");
    if (row && row.dataset.item !== chosen) choose(row, { focus: false });
  });
  page.addEventListener("error", (event) => (event.target.hidden = true), true); // a picture that has expired
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
  const query = listQuery();
  form.querySelector(".v-apply").hidden = true;
  form.querySelector(".r-clear").addEventListener("click", () => {
    const kept = new URLSearchParams();
    for (const name of ["tab", "sort"]) if (form.elements[name].value) kept.set(name, form.elements[name].value);
    go(`/?${kept}`);
  });
  const unfold = form.querySelector(".r-more-filters");
  unfold.hidden = false;
  unfold.addEventListener("click", () => unfold.setAttribute("aria-expanded", String(form.classList.toggle("r-unfolded"))));
  fill(query);
  window.addEventListener("popstate", onHistory);
  addKeys({
    search: form.elements.text,
    panel: () => panel,
    move,
    open: () => chosen && open(chosen, { focus: true, step: panel ? "replace" : "push" }),
    leave: () => (selection.size ? selection.all(false) : panel ? close() : letGo()),
    top: () => go(addressWith("")),
    tab,
    list: () => part(".r-inbox"),
    selection,
    chosenRow: () => rowOf(chosen),
    decisions,
    labels,
    nameClass: (signal) => write(".r-class-name", signal),
    note: (signal) => write(".r-note", signal),
  });
  addSwipe(page, (row, decision) => {
    choose(row, { focus: false });
    decisions.decide(decision, { only: row.dataset.item });
  }, () => page.dataset.canDecide !== undefined);
  follow("review", changesSoon);
  follow("verdicts", () => !rows().length && load(work().dataset.address));
  follow("store", () => {
    if (rows().length || performance.now() - loaded_ms < EMPTY_MS) return;
    load(work().dataset.address);
  });
  follow("clock", () => {
    decisions.tick();
    if (failed) load(work().dataset.address);
  });
  furnish();
  if (panel) dressPanel();
}

if (page) begin();
start();
