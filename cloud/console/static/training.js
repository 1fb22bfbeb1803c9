// Pages of training: the form with its upload, the list of jobs, and one job that runs.
import "./frame.js";
import { callApi } from "./actions.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

const API = "/api/v1/training";
const AT_ONCE = 3; // files that are sent at the same time
const COUNT_MS = 400; // pause after the last change before samples are counted
const SYSTEM_FILES = new Set(["thumbs.db", "desktop.ini", "__macosx"]);
const form = document.querySelector("[data-trains]");
const isTalking = () => Boolean(document.querySelector("dialog[open]"));

if (document.querySelector(".v-jobs")) keepCurrent(".v-jobs", () => "/parts/models/training", "store", 1000);
if (document.querySelector(".v-job")) keepCurrent(".v-job", () => `/parts${location.pathname}`, "store", 1000, undefined, isTalking);
if (form) startForm();
start();

function startForm() {
  const said = form.querySelector(".v-upload");
  const bar = form.querySelector(".v-upload-bar");
  const found = form.querySelector(".v-found");
  const counted = form.querySelector(".v-counted");
  const discards = form.querySelector("[data-discards]");
  const failed = form.querySelector(".v-failed");
  const submit = form.querySelector("[type=submit]");
  let upload = null;
  let sending = null; // ends the sending and the inspection that run
  let source = "files";
  let timer = 0;

  for (const button of form.querySelectorAll("[data-source]")) {
    button.addEventListener("click", () => {
      source = button.dataset.source;
      for (const other of form.querySelectorAll("[data-source]")) other.setAttribute("aria-pressed", other === button);
      for (const part of form.querySelectorAll("[data-part]")) part.hidden = part.dataset.part !== source;
      if (source === "stored") countSoon();
    });
  }
  for (const input of form.querySelectorAll("[data-files]")) {
    input.addEventListener("change", async () => {
      const files = [...input.files];
      input.value = "";
      if (files.length) await send(files);
    });
  }
  for (const field of form.querySelectorAll("[data-stored]")) field.addEventListener("input", countSoon);
  discards.addEventListener("click", async () => {
    await discard();
    say("The upload is deleted.");
    submit.disabled = false;
  });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    fail("");
    submit.disabled = true;
    try {
      const job = await callApi("POST", `${API}/jobs`, { data: chosenData(), options: options() });
      location.assign(`/models/training/${job.job_id}`);
    } catch (error) {
      fail(error.message);
      submit.disabled = false;
    }
  });

  function say(text) {
    said.textContent = text;
  }

  function fail(text) {
    failed.textContent = text;
    failed.hidden = !text;
  }

  const remove = (old) => callApi("DELETE", `${API}/uploads/${old.upload_id}`).catch(() => null);

  async function discard() {
    sending?.abort();
    sending = null;
    bar.hidden = found.hidden = discards.hidden = true;
    const old = upload;
    upload = null;
    if (old) await remove(old);
  }

  // Send files into a new upload, a few at a time, and look at what they hold. A later choice ends this one.
  async function send(chosen) {
    const discarded = discard();
    const own = new AbortController();
    const isOver = () => own.signal.aborted;
    sending = own;
    submit.disabled = true;
    fail("");
    const files = chosen.filter(isPlain);
    const out = chosen.length - files.length;
    const left = out ? ` ${out} hidden ${out === 1 ? "file is" : "files are"} left out.` : "";
    say(left);
    await discarded;
    try {
      if (!files.length) throw new Error("No file is left to send: choose others.");
      if (isOver()) return;
      const made = await callApi("POST", `${API}/uploads`);
      if (isOver()) return void remove(made);
      upload = made;
      discards.hidden = bar.hidden = false;
      await putAll(made, files, left, own.signal);
      if (isOver()) return;
      say(`Looking at the files …${left}`);
      const inspected = await callApi("POST", `${API}/uploads/${made.upload_id}/inspection`);
      if (isOver()) return;
      upload = inspected;
      say(left);
      show(upload.inspection);
      const name = form.elements.name;
      if (!name.value) name.value = nameOf(files[0]);
    } catch (error) {
      if (isOver()) return;
      own.abort();
      say(left);
      fail(error.message);
    }
    bar.hidden = true;
    submit.disabled = false;
  }

  async function putAll(made, files, left, signal) {
    const total = files.reduce((sum, file) => sum + file.size, 0) || 1;
    const waiting = [...files];
    let done = 0;
    bar.value = 0;
    const work = async () => {
      for (let file = waiting.shift(); file && !signal.aborted; file = waiting.shift()) {
        await put(made, file, signal);
        if (signal.aborted) return;
        done += file.size;
        bar.value = done / total;
        say(`${files.length - waiting.length} of ${files.length} files sent, ${(done / 2 ** 20).toFixed(1)} of ${(total / 2 ** 20).toFixed(1)} MiB.${left}`);
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
  }

  async function put(made, file, signal) {
    const answer = await fetch(`${API}/uploads/${made.upload_id}/files/${pathOf(file).split("/").map(encodeURIComponent).join("/")}`, {
      method: "PUT",
      headers: { "X-CSRF-Token": document.body.dataset.csrf ?? "", "Content-Type": "application/octet-stream" },
      body: file,
      signal,
    }).catch(() => null);
    if (!answer) throw new Error(`${file.name} was cut off: it may be too large. Try again.`);
    if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `The service answered ${answer.status}.`);
  }

  function nameOf(file) {
    const first = pathOf(file).split("/")[0].split(".")[0];
    return first.toLowerCase().replace(/[^a-z0-9_-]+/g, "-").replace(/^[-_]+|[-_]+$/g, "").slice(0, 64);
  }

  // Show what an inspection found: facts, columns with their roles, small pictures.
  function show(inspection) {
    found.replaceChildren();
    found.hidden = false;
    if (inspection.problem) found.append(made("p", "v-notice", inspection.problem));
    const kinds = { tabular: "rows of a table", series: "readings of a series", image: "images", video: "videos" };
    if (inspection.modality) {
      const counts = inspection.modality === "video" ? "" : `: ${inspection.normals} normal, ${inspection.anomalies} labelled as anomalous`;
      found.append(made("p", "", `${inspection.rows} ${kinds[inspection.modality]}${counts}.`));
    }
    if (inspection.columns.length) found.append(tableOf(inspection));
    if (inspection.previews.length) {
      const thumbs = made("div", "v-thumbs");
      for (const name of inspection.previews) {
        const picture = made("img");
        picture.src = `${API}/uploads/${upload.upload_id}/previews/${name}`;
        picture.alt = "Uploaded image";
        thumbs.append(picture);
      }
      found.append(thumbs);
    }
    for (const note of inspection.notes) found.append(made("p", "v-hint", `Note: ${note}.`));
  }

  function tableOf(inspection) {
    const around = made("div", "v-wide-table");
    around.tabIndex = 0;
    around.setAttribute("role", "region");
    around.setAttribute("aria-label", "First rows");
    const table = made("table", "v-grid");
    const head = table.createTHead().insertRow();
    for (const column of inspection.columns) {
      const cell = made("th", `r-${column.role}`, column.name);
      cell.scope = "col";
      cell.append(made("small", "", `${column.role}, ${column.type}`));
      head.append(cell);
    }
    const body = table.createTBody();
    for (const row of inspection.head) {
      const line = body.insertRow();
      row.forEach((text, place) => line.append(made("td", `v-number r-${inspection.columns[place]?.role}`, text)));
    }
    around.append(table);
    return around;
  }

  function stored() {
    const values = {};
    for (const field of form.querySelectorAll("[data-stored]")) {
      if (field.value) values[field.dataset.stored] = field.type === "number" ? Number(field.value) : field.value.trim();
    }
    return values;
  }

  function countSoon() {
    clearTimeout(timer);
    timer = setTimeout(count, COUNT_MS);
  }

  async function count() {
    const wanted = stored();
    counted.replaceChildren();
    if (!wanted.bundle_name) counted.append(made("p", "v-hint", "No bundle is published yet: train from files first."));
    else if (Boolean(wanted.device_id) === Boolean(wanted.group)) counted.append(made("p", "v-hint", "Name a device, or choose a group."));
    else {
      try {
        const counts = await callApi("GET", `${API}/samples?${new URLSearchParams(wanted)}`);
        showCounts(counts);
        if (!form.elements.name.value) form.elements.name.value = wanted.bundle_name;
      } catch (error) {
        counted.replaceChildren(made("p", "v-notice", error.message));
      }
    }
  }

  function showCounts(counts) {
    const learned = `${counts.normals} normal samples to learn from: ${counts.judged_normal} judged normal, ${counts.audits} audits, ${counts.false_alarms} labelled false alarms.`;
    const measured = `${counts.real + counts.missed} labelled anomalies to evaluate on: ${counts.real} real, ${counts.missed} missed.`;
    counted.replaceChildren(made("p", "", learned), made("p", "", measured));
    const out = [];
    if (counts.other_format) out.push(`${counts.other_format} were screened with other columns`);
    if (counts.without_payload) out.push(`of ${counts.without_payload} the payload has expired`);
    if (out.length) counted.append(made("p", "v-hint", `Left out: ${out.join("; ")}.`));
    if (counts.problem) counted.prepend(made("p", "v-notice", counts.problem));
  }

  function chosenData() {
    if (source === "stored") return { stored: stored() };
    if (!upload) throw new Error("Choose files or a folder first.");
    return { upload_id: upload.upload_id };
  }

  function options() {
    const values = {};
    for (const field of form.elements) {
      if (!field.name) continue;
      if (field.type === "checkbox") values[field.name] = field.checked;
      else if (field.type === "number") values[field.name] = Number(field.value);
      else if (field.name === "effort") values.effort = field.value === "first-look" ? field.value : Number(field.value);
      else if (field.value.trim() || field.name === "name") values[field.name] = field.value.trim();
    }
    return values;
  }
}

function pathOf(file) {
  return file.webkitRelativePath || file.name;
}

// Whether people made a file; systems put others into a folder, and the service refuses hidden ones.
function isPlain(file) {
  return !pathOf(file).split("/").some((part) => part.startsWith(".") || SYSTEM_FILES.has(part.toLowerCase()));
}

function made(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}
