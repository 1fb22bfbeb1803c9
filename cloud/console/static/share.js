// Dialog that makes, lists and revokes links to one verdict.
import { clock } from "./time.js";

const dialog = document.querySelector(".v-share-dialog");
const button = document.querySelector(".v-share");
const sample = document.querySelector(".v-detail")?.dataset.sample;
const base = `/api/v1/verdicts/${sample}/shares`;
let token = "";

// Send a request with the token of the session; throws an Error with the reason in words.
async function ask(method, path, body) {
  try {
    token ||= (await (await fetch("/api/account")).json()).csrf_token ?? "";
    const headers = { "X-CSRF-Token": token, ...(body ? { "Content-Type": "application/json" } : {}) };
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    const value = answer.status === 204 ? null : await answer.json();
    if (!answer.ok) throw new Error(value.detail ?? `The service answered ${answer.status}.`);
    return value;
  } catch (error) {
    throw error instanceof TypeError ? new Error("The service does not answer.") : error;
  }
}

function show(problem) {
  const notice = dialog.querySelector(".v-notice");
  notice.textContent = problem;
  notice.hidden = !problem;
}

async function attempt(work) {
  show("");
  try {
    await work();
  } catch (error) {
    show(error.message);
  }
}

async function list() {
  const links = await ask("GET", base);
  const now = Date.now();
  const rows = links.filter((link) => !link.revoked_at && Date.parse(link.expires_at) > now).map((link) => {
    const row = document.createElement("li");
    const words = document.createElement("span");
    const times = link.opened === 1 ? "opened once" : link.opened ? `opened ${link.opened} times` : "not opened yet";
    words.textContent = `until ${clock(Date.parse(link.expires_at) / 1000)}, ${times}, by ${link.created_by.replace(/^\w+:/, "")}`;
    const end = document.createElement("button");
    end.type = "button";
    end.className = "v-button";
    end.textContent = "Revoke";
    end.addEventListener("click", () => attempt(async () => {
      await ask("DELETE", `${base}/${link.share_id}`);
      dialog.querySelector(".v-share-new").hidden = true;
      await list();
    }));
    row.append(words, end);
    return row;
  });
  dialog.querySelector(".v-shares").replaceChildren(...rows);
}

export function dressShare() {
  if (!dialog || !button) return;
  button.hidden = false;
  const made = dialog.querySelector(".v-share-new");
  button.addEventListener("click", () => {
    dialog.showModal();
    attempt(list);
  });
  dialog.querySelector(".v-share-form").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(async () => {
      const link = await ask("POST", base, { days: Number(event.target.elements.days.value) });
      made.hidden = false;
      made.querySelector("input").value = new URL(link.path, location.href).href;
      made.querySelector("input").select();
      await list();
    });
  });
  made.querySelector(".v-copy").addEventListener("click", (event) => {
    made.querySelector("input").select();
    navigator.clipboard?.writeText(made.querySelector("input").value).then(() => { event.target.textContent = "Copied"; }, () => {});
  });
}
