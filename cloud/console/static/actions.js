// Dialogs and forms that change something through the HTTP API.

const body = document.body;

// Send a request to the HTTP API; throws an Error with its reason in words.
export async function callApi(method, address, values) {
  let answer;
  try {
    answer = await fetch(address, {
      method,
      headers: { "X-CSRF-Token": body.dataset.csrf ?? "", ...(values && { "Content-Type": "application/json" }) },
      ...(values && { body: JSON.stringify(values) }),
    });
  } catch {
    throw new Error("The service does not answer: nothing was changed. Try again.");
  }
  const facts = answer.status === 204 ? null : await answer.json().catch(() => null);
  if (!answer.ok) throw new Error(facts?.detail ?? `The service answered ${answer.status}.`);
  return facts;
}

// Return the values of a form, and those that belong into the query of its address.
function valuesOf(form) {
  const values = {};
  const query = new URLSearchParams();
  for (const field of form.elements) {
    if (!field.name || field.disabled || "confirms" in field.dataset || (field.type === "radio" && !field.checked)) continue;
    if ("query" in field.dataset) query.set(field.name, field.type === "checkbox" ? field.checked : field.value);
    else if ("list" in field.dataset) (values[field.name] ??= []).push(...chosen(field));
    else if (field.type === "checkbox") values[field.name] = field.checked;
    else if ("true" in field.dataset) values[field.name] = field.value === "true";
    else if (!("optional" in field.dataset) || field.value.trim()) {
      put(values, field.name.split("."), valueOf(field));
    }
  }
  return [values, query.toString()];
}

// Return the value of a field: a number, in the unit of the API (`data-times` of that of the field), or a text.
function valueOf(field) {
  if ("moment" in field.dataset) return new Date(field.value).toISOString(); // the time zone of the browser
  if (field.type !== "number" && !("number" in field.dataset)) return field.value.trim();
  return Number((Number(field.value) * Number(field.dataset.times ?? 1)).toPrecision(12));
}

// Put a value at a place such as "limits.max_missed.ratio".
function put(values, [name, ...rest], value) {
  if (rest.length) put((values[name] ??= {}), rest, value);
  else values[name] = value;
}

function chosen(field) {
  if (field.type === "checkbox") return field.checked ? [field.value] : [];
  return field.value.split(/[\s,]+/).filter(Boolean);
}

async function send(form) {
  const failed = form.querySelector(".v-failed");
  const button = form.querySelector("[type=submit]");
  const [values, query] = valuesOf(form);
  const { method, address, then, thenNumber } = form.dataset;
  failed.hidden = true;
  button.disabled = true;
  try {
    const facts = await callApi(method, address + (query && `?${query}`), method === "DELETE" ? undefined : values);
    if (form.dispatchEvent(new CustomEvent("done", { detail: facts, cancelable: true, bubbles: true }))) {
      if (thenNumber) location.assign(thenNumber + facts.number);
      else then ? location.assign(then) : location.reload();
    }
  } catch (error) {
    failed.textContent = error.message;
    failed.hidden = false;
  }
  button.disabled = false;
}

document.addEventListener("submit", (event) => {
  if (!event.target.matches("form[data-method]")) return;
  event.preventDefault();
  const unconfirmed = [...event.target.querySelectorAll("[data-confirms]")].find((field) => field.value !== field.dataset.confirms);
  if (unconfirmed) {
    unconfirmed.setCustomValidity(`Type ${unconfirmed.dataset.confirms}`);
    unconfirmed.reportValidity();
    unconfirmed.addEventListener("input", () => unconfirmed.setCustomValidity(""), { once: true });
    return;
  }
  send(event.target);
});
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.opens);
    for (const [name, value] of Object.entries(opener.dataset)) {
      if (name.startsWith("set")) fillIn(dialog, name.slice(3).toLowerCase(), value);
    }
    if ("checks" in opener.dataset) {
      const checked = opener.dataset.checks.split(" ");
      for (const box of dialog.querySelectorAll("[type=checkbox]")) box.checked = checked.includes(box.value);
    }
    dialog.showModal();
  }
  event.target.closest("[data-closes]")?.closest("dialog").close();
});

// Put a value of the button that opened a dialog into the dialog: `address` of its form, a field or a text.
function fillIn(dialog, name, value) {
  if (name === "address") dialog.querySelector("form").dataset.address = value;
  const field = dialog.querySelector(`[name="${name}"]`);
  if (field) field.value = value;
  for (const element of dialog.querySelectorAll(`[data-shows="${name}"]`)) element.textContent = value;
}

document.addEventListener("change", (event) => {
  if (event.target.matches("form[data-submits] select")) event.target.form.requestSubmit();
});
