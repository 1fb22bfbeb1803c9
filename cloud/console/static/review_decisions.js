// Decisions on items, their undo and reviewed marks: shown at once, and stored by the outbox.
import { holdKeys } from "./key_queue.js";
import { setProblem } from "./live.js";
import { Outbox } from "./outbox.js";
import { keepSteps, keptSteps } from "./undo_steps.js";

const WORDS = { real: "real", false_alarm: "false alarm", unsure: "unsure" };
const MAX_ITEMS = 200;
const MAX_VERDICTS = 5000;
const TOAST_MS = 8000;

export class Decisions {
  constructor({ page, rows, rowOf, panel, selection, chosen, reopen, reload, move, changed, decided }) {
    Object.assign(this, { page, rows, rowOf, panel, selection, chosen, reopen, reload, move, changed, decided });
    this.account = page?.dataset.account ?? "";
    this.shown = new Map(); // item: {decision, reviewed} that this page has given and the service may not have stored
    this.done = []; // steps to undo, the newest last; kept over a reload of this tab
    this.toast = document.querySelector(".r-toast");
    this.toastTimer = 0;
    this.outbox = new Outbox(this.account, {
      change: () => this.#showState(),
      stored: (entry, items) => this.#stored(entry, items),
      refused: (entry, words) => this.#refused(entry, words),
      conflict: (entry, found) => this.#conflict(entry, found),
    });
    this.done = keptSteps(this.account, this.outbox.entries);
    for (const entry of this.outbox.entries) this.#show(entry);
    if (this.account) this.outbox.send();
  }

  get canDecide() {
    return this.page.dataset.canDecide !== undefined;
  }

  // Items that an action is about: the selected ones, else the opened or chosen one.
  #items({ fromPanel = false, only = "" } = {}) {
    if (only) return [only];
    if (this.selection.size && !fromPanel) return this.selection.items();
    const one = fromPanel ? this.panel()?.dataset.item : (this.chosen() || this.panel()?.dataset.item);
    return one ? [one] : [];
  }

  // Decide, and go on to the next item. `which`: {fromPanel}, or `only` one item, with its note; {goesOn, defectClass}.
  decide(decision, which = {}) {
    const items = this.#items(which);
    if (!this.canDecide) return this.#say("Your role decides no items: ask an administrator.");
    if (!items.length) return this.sayChoose();
    const field = this.panel()?.querySelector(".r-note");
    const isOpen = items.length === 1 && this.panel()?.dataset.item === items[0];
    const note = which.note ?? (isOpen ? field?.value.trim() ?? "" : "");
    const defectClass = decision === "real" ? which.defectClass ?? "" : "";
    const ofClass = defectClass && { defect_class: defectClass };
    const entries = this.#chunks(items).map((chunk) => {
      const body = { items: chunk.map((item) => ({ item: Number(item), seen: this.#seen(item) })), decision, note, ...ofClass };
      return this.outbox.add("decisions", body);
    });
    this.#keep(entries, items, `${this.#name(items)}: ${WORDS[decision]}${defectClass && `, ${defectClass}`}`);
    if (items.length > 1) this.selection.all(false);
    else if (which.goesOn ?? !which.only) holdKeys((signal) => this.#onward(items[0], signal));
  }

  // Return the state that this page has given an item; another object after each decision.
  given(item) {
    return this.shown.get(String(item));
  }

  // Store the note of the opened item with its decision.
  noteAgain() {
    const panel = this.panel();
    const decided = panel?.querySelector(".r-decide [data-decide][aria-pressed=true]");
    const defectClass = panel?.querySelector("[data-class][aria-pressed=true]")?.dataset.class;
    if (decided) this.decide(decided.dataset.decide, { fromPanel: true, defectClass });
  }

  // Mark as reviewed for this person alone, or take that back.
  review(which = {}) {
    const items = this.#items(which);
    if (!this.account) return;
    if (!items.length) return this.sayChoose();
    const isReviewed = !items.every((item) => this.#isReviewed(item));
    const entries = [];
    for (let from = 0; from < items.length; from += MAX_ITEMS) {
      const body = { items: items.slice(from, from + MAX_ITEMS).map(Number), reviewed: isReviewed };
      entries.push(this.outbox.add("marks", body));
    }
    this.#keep(entries, items, `${this.#name(items)}: ${isReviewed ? "reviewed" : "not reviewed"}`);
    if (items.length > 1) this.selection.all(false);
    else if (isReviewed && !which.only) holdKeys((signal) => this.#onward(items[0], signal));
  }

  undo() {
    const step = this.done.pop();
    if (!step) return this.#say("There is nothing to undo.");
    for (const entry of step.entries) {
      for (const item of itemsOf(entry)) this.shown.delete(String(item));
      if (this.outbox.remove(entry)) continue;
      if (entry.kind === "marks") this.outbox.add("marks", { items: entry.body.items, reviewed: !entry.body.reviewed });
      else if (entry.stored) this.outbox.add("undo", { decisions: entry.stored });
      else this.outbox.undoOnceStored(entry);
    }
    keepSteps(this.account, this.done);
    this.mark();
    this.changed();
    this.#say(`Undone. ${step.words}.`);
    const first = this.rowOf(step.items[0]);
    first?.querySelector(".r-open").focus();
  }

  tick() {
    if (this.account && this.outbox.waiting) this.outbox.send();
  }

  // Whether this page has given the item a state that the service may not know yet.
  isOwn(item) {
    return this.outbox.entries.some((entry) => itemsOf(entry).map(String).includes(String(item)));
  }

  // Show the states that this page has given on rows and panel.
  mark() {
    for (const row of this.rows()) {
      const own = this.shown.get(row.dataset.item);
      row.classList.toggle("r-waiting", Boolean(own) && this.isOwn(row.dataset.item));
      if (own) markRow(row, own);
    }
    const panel = this.panel();
    const own = panel && this.shown.get(panel.dataset.item);
    if (!own) return;
    for (const button of panel.querySelectorAll(".r-decide [data-decide]")) {
      if (own.decision) button.setAttribute("aria-pressed", String(button.dataset.decide === own.decision));
    }
    if (own.decision) {
      for (const button of panel.querySelectorAll("[data-class]")) button.setAttribute("aria-pressed", String(button.dataset.class === own.defectClass));
    }
    panel.querySelector(".r-decide [data-mark]")?.setAttribute("aria-pressed", String(Boolean(own.decision || own.reviewed)));
  }

  // ---- requests

  #seen(item) {
    const own = this.shown.get(String(item));
    if (own?.number) return own.number;
    const element = this.rowOf(item);
    const panel = this.panel();
    if (panel?.dataset.item === String(item)) return Number(panel.dataset.mark.split(".")[0]) || 0;
    return Number(element?.dataset.decision) || 0;
  }

  #isReviewed(item) {
    const own = this.shown.get(String(item));
    if (own) return Boolean(own.decision || own.reviewed);
    const panel = this.panel();
    const mark = this.rowOf(item)?.dataset.mark ?? (panel?.dataset.item === String(item) ? panel.dataset.mark : "");
    return mark.split(".")[1] === "1";
  }

  // Parts of a selection that one request may decide.
  #chunks(items) {
    const chunks = [[]];
    let verdicts = 0;
    for (const item of items) {
      const count = Number(this.rowOf(item)?.dataset.count) || 1;
      if (chunks.at(-1).length >= MAX_ITEMS || (chunks.at(-1).length && verdicts + count > MAX_VERDICTS)) {
        chunks.push([]);
        verdicts = 0;
      }
      chunks.at(-1).push(item);
      verdicts += count;
    }
    return chunks;
  }

  #keep(entries, items, words) {
    for (const entry of entries) this.#show(entry);
    this.done.push({ entries, items, words });
    keepSteps(this.account, this.done);
    this.mark();
    this.#say(words, true);
  }

  #show({ kind, body }) {
    for (const each of body.items ?? []) {
      const item = String(each.item ?? each);
      const before = this.shown.get(item);
      if (kind === "decisions") this.shown.set(item, { decision: body.decision, defectClass: body.defect_class, number: before?.number });
      else if (kind === "marks") this.shown.set(item, { ...before, reviewed: body.reviewed });
    }
  }

  // Go on from a decided item if it is the chosen one; return whether the next one was reached.
  async #onward(item, signal) {
    if (this.chosen() !== item) return true;
    const isReached = await this.move(1, signal);
    if (!isReached && this.panel()?.dataset.item === item) this.mark();
    return isReached;
  }

  #stored(entry, items) {
    if (entry.kind !== "marks") {
      entry.stored = items.map(({ number }) => number);
      for (const { item, number } of items) {
        this.outbox.seen(item, number);
        const own = this.shown.get(String(item));
        if (own) own.number = number;
        const row = this.rowOf(item);
        if (row) row.dataset.decision = number;
        if (entry.kind === "undo") this.shown.delete(String(item));
      }
      if (entry.undo) this.outbox.add("undo", { decisions: entry.stored });
      keepSteps(this.account, this.done);
    }
    this.mark();
    this.changed();
    if (entry.kind === "decisions" && items.length) this.decided(items.at(-1).item);
    if (entry.kind !== "undo") return;
    if (items.some(({ item }) => String(item) === this.panel()?.dataset.item)) this.reopen(this.panel().dataset.item);
    if (items.length && !items.some(({ item }) => this.rowOf(item))) this.reload(); // decided before the list was read
  }

  #refused(entry, words) {
    for (const item of itemsOf(entry)) this.shown.delete(String(item));
    this.#replaceStep(entry, []);
    this.#say(`Not stored. ${words}`);
    this.changed();
  }

  // Let the step of an entry that was not stored undo these entries instead.
  #replaceStep(entry, entries) {
    for (const step of this.done) step.entries = step.entries.flatMap((each) => (each === entry ? entries : [each]));
    this.done = this.done.filter((step) => step.entries.length);
    keepSteps(this.account, this.done);
  }

  // Another person has decided meanwhile: ask.
  #conflict(entry, found) {
    const dialog = document.querySelector(".r-conflict");
    const lines = found.map(({ item, author, decision, note }) => {
      const line = document.createElement("li");
      const where = this.rowOf(item)?.querySelector(".r-open")?.textContent ?? `item ${item}`;
      line.textContent = `${where}: ${author} decided ${WORDS[decision] ?? "nothing"}${note ? ` (${note})` : ""}.`;
      return line;
    });
    dialog.querySelector("ul").replaceChildren(...lines);
    const mine = entry.kind === "decisions" ? entry.body.items : [];
    for (const { item } of mine) this.shown.delete(String(item));
    dialog.querySelector("[value=replace]").hidden = !mine.length;
    dialog.onclose = () => {
      const theirs = new Map(found.map(({ item, number }) => [item, number]));
      const isReplaced = dialog.returnValue === "replace";
      const wanted = isReplaced
        ? mine.map(({ item, seen }) => ({ item, seen: theirs.get(item) ?? seen }))
        : mine.filter(({ item }) => !theirs.has(item));
      const again = wanted.length ? [this.outbox.add("decisions", { ...entry.body, items: wanted })] : [];
      again.forEach((each) => this.#show(each));
      this.#replaceStep(entry, again);
      this.mark();
      this.changed();
    };
    dialog.returnValue = "keep";
    if (!dialog.open) dialog.showModal();
  }

  // ---- messages

  #name(items) {
    if (items.length > 1) return `${items.length} items`;
    return this.rowOf(items[0])?.querySelector(".r-open")?.textContent ?? `Item ${items[0]}`;
  }

  say(words) {
    this.#say(words);
  }

  sayChoose() {
    this.#say("No item is chosen: j chooses the first one.");
  }

  #say(words, canUndo = false) {
    clearTimeout(this.toastTimer);
    const text = document.createElement("span");
    text.className = "v-cut";
    text.textContent = words;
    this.toast.replaceChildren(text);
    if (canUndo) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = "Undo (z)";
      button.addEventListener("click", () => this.undo());
      this.toast.append(button);
    }
    this.toast.hidden = false;
    this.toastTimer = setTimeout(() => (this.toast.hidden = true), TOAST_MS);
  }

  #showState() {
    const { waiting, problem } = this.outbox;
    const kept = waiting === 1 ? "1 decision waits" : `${waiting} decisions wait`;
    setProblem("outbox", waiting && problem ? `${problem} ${kept} here and ${waiting === 1 ? "is" : "are"} sent again.` : "");
    this.mark?.();
  }
}

const itemsOf = (entry) => (entry.body.items ?? []).map((each) => each.item ?? each);

function markRow(row, { decision, defectClass, reviewed }) {
  row.classList.toggle("r-done", Boolean(decision || reviewed));
  const chip = document.createElement("span");
  chip.className = decision ? `r-chip k-${decision}` : "r-chip";
  chip.textContent = decision ? WORDS[decision] + (defectClass ? ` · ${defectClass}` : "") : "reviewed";
  const who = document.createElement("small");
  who.textContent = decision ? "you" : "";
  row.querySelector(".r-state").replaceChildren(...(decision || reviewed ? [who, chip] : []));
}
