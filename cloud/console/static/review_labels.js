// Effects of a label, the dialog that mutes a pattern, and the choice of a defect class.
import { callApi } from "./actions.js";
import { holdKeys } from "./key_queue.js";
import { fetchPart } from "./parts.js";

const PREVIEW_MS = 200;
const EFFECTS_MS = 300;

export class Labels {
  // `muted(words)` is called after a mute was made.
  constructor({ page, decisions, panel, chosen, muted }) {
    Object.assign(this, { page, decisions, panel, chosen, muted });
    this.strip = document.querySelector(".r-effects");
    this.dialog = document.querySelector(".r-mute-dialog");
    this.item = "";
    this.asks = 0; // previews
    this.effects = 0;
    this.timer = 0;
    this.shows = 0;
    document.querySelector(".r-effects-close")?.addEventListener("click", () => (this.strip.hidden = true));
    document.addEventListener("click", (event) => this.#onClick(event));
    document.addEventListener("keydown", (event) => this.#onField(event));
    const form = this.dialog?.querySelector("form");
    form?.addEventListener("input", (event) => event.target.matches("[name=scope], [name=likeness]") && this.#previewSoon());
    form?.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#make(form);
    });
  }

  get names() {
    return [...document.querySelectorAll("#defect-classes option")].map((option) => option.value);
  }

  // Show what the decision on an item changes; of quick decisions the last one.
  show(item) {
    clearTimeout(this.shows);
    this.shows = setTimeout(() => this.#show(item), EFFECTS_MS);
  }

  async #show(item) {
    const mine = ++this.effects;
    const fresh = await fetchPart(`/parts/review/effects/${encodeURIComponent(item)}`).catch(() => null);
    if (!fresh || mine !== this.effects) return;
    this.strip.querySelector(".r-effects-body").replaceWith(fresh);
    this.strip.hidden = false;
    this.item = fresh.querySelector("[data-mute]")?.dataset.mute ?? "";
  }

  // Decide real with the class at this place of the list.
  choose(place) {
    const name = this.names[place];
    if (name) this.decisions.decide("real", { defectClass: name });
  }

  // Open the dialog for the item whose decision is shown, else for the opened or chosen one.
  mute(item = (this.strip.hidden ? "" : this.item) || this.panel()?.dataset.item || this.chosen()) {
    if (!item || !this.decisions.canDecide) return;
    this.dialog.dataset.item = item;
    const form = this.dialog.querySelector("form");
    form.reset();
    form.querySelector(".v-failed").hidden = true;
    this.dialog.showModal();
    if (matchMedia("(pointer: fine)").matches) form.elements.note.focus(); // Enter mutes once the preview is shown
    this.#preview();
  }

  #previewSoon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#preview(), PREVIEW_MS);
  }

  async #preview() {
    const form = this.dialog.querySelector("form");
    const mine = ++this.asks;
    const query = new URLSearchParams({ scope: form.elements.scope.value, likeness: form.elements.likeness.value });
    const submit = form.querySelector("[type=submit]");
    submit.disabled = true;
    try {
      const fresh = await fetchPart(`/parts/review/mute/${encodeURIComponent(this.dialog.dataset.item)}?${query}`);
      if (mine !== this.asks) return;
      form.querySelector(".r-mute-preview").replaceChildren(...fresh.childNodes);
      const real = Number(fresh.dataset.real);
      form.querySelector(".r-mute-accepts").hidden = !real;
      form.elements.accepts_real.required = Boolean(real);
      form.elements.accepts_real.checked = false;
      submit.disabled = fresh.dataset.refused !== undefined;
    } catch (error) {
      this.#fail(error.message);
    }
  }

  async #make(form) {
    const values = {
      item: Number(this.dialog.dataset.item),
      scope: form.elements.scope.value,
      likeness: Number(form.elements.likeness.value),
      days: Number(form.elements.days.value),
      note: form.elements.note.value.trim(),
      accepts_real: form.elements.accepts_real.checked,
    };
    form.querySelector("[type=submit]").disabled = true;
    try {
      const mute = await callApi("POST", "/api/v1/mutes", values);
      this.dialog.close();
      this.strip.hidden = true;
      const count = mute.hidden_items === 1 ? "1 item" : `${mute.hidden_items} items`;
      this.muted(`Muted: ${count} left the inbox. The page Mutes ends it.`);
    } catch (error) {
      this.#fail(error.message);
      this.#preview();
    }
  }

  #fail(words) {
    const failed = this.dialog.querySelector(".v-failed");
    failed.textContent = words;
    failed.hidden = false;
  }

  #onClick(event) {
    const button = event.target.closest("button");
    if (button?.dataset.mute) this.mute(button.dataset.mute);
    else if (button?.matches(".r-mute-cancel")) this.dialog.close();
    else if (button?.dataset.class) this.decisions.decide("real", { defectClass: button.dataset.class, fromPanel: true });
  }

  #onField(event) {
    if (event.key !== "Enter" || !event.target.matches(".r-class-name")) return;
    event.preventDefault();
    holdKeys((signal) => this.#decideNamed(event.target, signal));
  }

  // Decide the item of the field real with the class in it, which is added if it is new. Whatever was chosen meanwhile,
  // the decision is on that item, unless it was decided again. Return whether it was made.
  async #decideNamed(field, signal) {
    const name = field.value.trim();
    if (!name) return field.blur();
    const panel = field.closest(".r-panel");
    const { item } = panel.dataset;
    const note = panel.querySelector(".r-note").value.trim();
    const given = this.decisions.given(item);
    const known = this.names.find((each) => each.toLowerCase() === name.toLowerCase());
    let found = known;
    try {
      found ??= (await callApi("POST", "/api/v1/defect-classes", { name })).name;
    } catch (error) {
      this.#refuseName(field, error.message);
      return false;
    }
    if (!known) document.getElementById("defect-classes").append(new Option(found, found));
    if (this.decisions.given(item) !== given) return false;
    field.blur();
    const isChosen = this.chosen() === item;
    this.decisions.decide("real", { defectClass: found, only: item, note, goesOn: isChosen && !signal.aborted });
    return isChosen;
  }

  // Say why a class was not stored: at its field while that is written in.
  #refuseName(field, words) {
    if (document.activeElement !== field) return this.decisions.say(`The class was not stored. ${words}`);
    field.setCustomValidity(words);
    field.reportValidity();
    field.addEventListener("input", () => field.setCustomValidity(""), { once: true });
  }
}
