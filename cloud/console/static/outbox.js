// Outbox of the review page: decisions, undos and marks wait here until the service has stored them. The browser keeps
// what waits over reloads and sign-ins, for each account. Each request has a key, so that one which is sent again
// stores nothing twice.

const AGAIN_MS = 2000;
const MAX_KEPT = 500;
const place = (account) => `vedette-review:${account}`;

export class Outbox {
  // `on`: change(), stored(entry, items), refused(entry, words), conflict(entry, decisions).
  constructor(account, on) {
    this.account = account;
    this.on = on;
    this.entries = this.#kept();
    this.sending = null;
    this.problem = "";
    this.token = "";
    this.timer = 0;
  }

  get waiting() {
    return this.entries.length;
  }

  // Add a request: {kind: "decisions" | "undo" | "marks", body}. Returns its entry.
  add(kind, body) {
    const entry = { key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`, kind, body };
    this.entries.push(entry);
    this.#keep();
    this.send();
    return entry;
  }

  // Take back an entry that has not been sent; return whether it was there.
  remove(entry) {
    const found = this.entries.indexOf(entry);
    if (found < 0 || this.sending === entry) return false;
    this.entries.splice(found, 1);
    this.#keep();
    return true;
  }

  // Take back an entry that is on its way, once it is stored.
  undoOnceStored(entry) {
    entry.undo = true;
    this.#keep();
  }

  // Send what waits, one after the other, unless that is under way.
  async send() {
    clearTimeout(this.timer);
    if (this.sending) return;
    while (this.entries.length) {
      this.sending = this.entries[0];
      const goesOn = await this.#try(this.sending);
      this.sending = null;
      if (!goesOn) {
        this.timer = setTimeout(() => this.send(), AGAIN_MS);
        break;
      }
    }
    this.on.change();
  }

  // Return whether the next entry may be sent.
  async #try(entry) {
    let answer;
    try {
      this.token ||= await readToken();
      answer = await fetch(`/api/v1/review/${entry.kind}`, {
        method: "POST",
        headers: { "Content-Type": "application/json", "X-CSRF-Token": this.token, "Idempotency-Key": entry.key },
        body: JSON.stringify(entry.body),
      });
    } catch (error) {
      return this.#wait(error.words ?? "The service does not answer.");
    }
    const body = await answer.json().catch(() => ({}));
    if (answer.ok && Array.isArray(body.items)) return this.#done(entry, () => this.on.stored(entry, body.items));
    if (answer.status === 401) return this.#wait("Your session has ended: sign in again.");
    if (answer.status === 403 && this.token && !entry.asked) {
      this.token = ""; // of an earlier session
      entry.asked = true;
      return this.#wait("");
    }
    if (answer.status === 409 && Array.isArray(body.decisions)) {
      return this.#done(entry, () => this.on.conflict(entry, body.decisions));
    }
    if (answer.status === 404 && entry.kind === "decisions" && Array.isArray(body.items) && this.#without(entry, body.items)) return true;
    if (answer.status >= 500 || answer.status === 429 || !body.detail) return this.#wait(body.detail ?? `The service answered ${answer.status}.`);
    return this.#done(entry, () => this.on.refused(entry, body.detail));
  }

  #wait(words) {
    this.problem = words;
    this.on.change();
    return false;
  }

  #done(entry, tell) {
    this.problem = "";
    this.entries.splice(this.entries.indexOf(entry), 1);
    this.#keep();
    tell();
    return true;
  }

  // Leave out items that have expired; return whether some are left to decide.
  #without(entry, gone) {
    const left = entry.body.items.filter(({ item }) => !gone.includes(item));
    if (!left.length || left.length === entry.body.items.length) return false;
    entry.body.items = left;
    entry.key += "-";
    this.#keep();
    return true;
  }

  // Later entries about an item have seen the decision that this page itself has made.
  seen(item, number) {
    for (const { body, kind } of this.entries) {
      if (kind === "decisions") for (const each of body.items) if (each.item === item) each.seen = number;
    }
    this.#keep();
  }

  #keep() {
    try {
      localStorage.setItem(place(this.account), JSON.stringify(this.entries.slice(0, MAX_KEPT).map(({ key, kind, body, undo }) => ({ key, kind, body, undo }))));
    } catch {
      // A full or forbidden storage: the entries are kept until the page is closed.
    }
    this.on.change();
  }

  #kept() {
    try {
      const found = JSON.parse(localStorage.getItem(place(this.account)) ?? "[]");
      return Array.isArray(found) ? found.filter((entry) => entry?.key && entry?.kind && entry?.body) : [];
    } catch {
      return [];
    }
  }
}

async function readToken() {
  const answer = await fetch("/api/account");
  if (answer.status === 401) throw Object.assign(new Error(), { words: "Your session has ended: sign in again." });
  if (!answer.ok) throw Object.assign(new Error(), { words: `The service answered ${answer.status}.` });
  return (await answer.json()).csrf_token ?? "";
}

// Send a request of another kind, such as of a saved view; throws an Error with the reason in words.
export async function request(method, path, body) {
  const answer = await fetch(`/api/v1/review/${path}`, {
    method,
    headers: { "Content-Type": "application/json", "X-CSRF-Token": await readToken() },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (answer.ok) return;
  const reason = await answer.json().catch(() => ({}));
  throw new Error(reason.detail ?? `The service answered ${answer.status}.`);
}
