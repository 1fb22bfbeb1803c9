// Form that starts a rollout: the fields of the chosen kind of trial, and the name of the chosen bundle.
import "./models.js";

const form = document.querySelector(".v-rollout-form");
const field = (selector) => form.querySelector(selector);

function update() {
  const bundle = field("[name=bundle_id]").selectedOptions[0];
  field("[name=name]").value = bundle.dataset.name;
  field("[data-goes-to]").textContent = bundle.dataset.groups
    ? `The bundles of ${bundle.dataset.name} go to the groups ${bundle.dataset.groups}. Change that on the page of the bundle.`
    : `The bundles of ${bundle.dataset.name} go to all groups.`;
  const kind = field("[data-trial]").value;
  for (const label of form.querySelectorAll("[data-for]")) {
    label.hidden = label.dataset.for !== kind;
    for (const each of label.querySelectorAll("input, select")) each.disabled = label.hidden;
  }
  const share = Number(field("[data-trial-share]").value);
  const devices = field("[data-trial-devices]").value.trim();
  field("[data-trial-devices]").required = kind === "devices";
  field("[name=trial_group]").required = kind === "group";
  field("[name=trial]").value = kind === "share" ? `trial=${share}%` : kind === "devices" ? `trial=${devices}` : "";
}

if (form) {
  form.addEventListener("input", update);
  update();
}
