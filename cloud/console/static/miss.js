// Form that reports a missed anomaly, and buttons that withdraw a report.
import { callApi } from "./actions.js";

const dialog = () => document.getElementById("miss-dialog");

// A time as the field of the form has it, in the time zone of the browser.
function local(date) {
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}

async function open(button) {
  const form = dialog().querySelector("form");
  const now = new Date();
  const sample = button.dataset.sample ?? "";
  form.elements.sample_id.value = sample;
  form.querySelector(".r-miss-sample").hidden = !sample;
  for (const part of form.querySelectorAll(".r-miss-span")) {
    part.hidden = Boolean(sample);
    for (const field of part.querySelectorAll("input")) field.disabled = Boolean(sample);
  }
  if (button.dataset.device) form.elements.device_id.value = button.dataset.device;
  form.elements.begin.value ||= local(new Date(now.getTime() - 3_600_000));
  form.elements.end.value ||= local(now);
  form.querySelector(".v-failed").hidden = true;
  dialog().showModal();
  const found = await callApi("GET", "/api/v1/defect-classes").catch(() => ({ items: [] }));
  const { options } = form.elements.defect_class;
  const known = new Set([...options].map((option) => option.value));
  for (const { name } of found.items) if (!known.has(name)) options.add(new Option(name, name));
}

async function send(form, done) {
  const failed = form.querySelector(".v-failed");
  const values = Object.fromEntries(new FormData(form));
  if (!values.sample_id) {
    delete values.sample_id;
    for (const name of ["begin", "end"]) values[name] = new Date(values[name]).toISOString();
  }
  failed.hidden = true;
  try {
    await callApi("POST", "/api/v1/missed", values);
    dialog().close();
    done();
  } catch (error) {
    failed.textContent = error.message;
    failed.hidden = false;
  }
}

// `done` is called after a report was stored or withdrawn.
export function addMisses(done) {
  document.addEventListener("click", async (event) => {
    const opener = event.target.closest("[data-report-miss]");
    const withdrawn = event.target.closest("[data-withdraw]");
    if (opener) open(opener);
    else if (event.target.closest("[data-closes-miss]")) dialog().close();
    else if (withdrawn) {
      withdrawn.disabled = true;
      try {
        await callApi("DELETE", `/api/v1/missed/${withdrawn.dataset.withdraw}`);
        done();
      } catch (error) {
        withdrawn.textContent = error.message;
      }
    }
  });
  document.addEventListener("submit", (event) => {
    if (!event.target.matches(".r-miss-form")) return;
    event.preventDefault();
    send(event.target, done);
  });
}
