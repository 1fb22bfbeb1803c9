// Steps that a person can undo on the review page, kept over a reload: in the storage of this tab, for each account.
// A step is {entries, items, words}: the entries of the outbox that made it, the items' numbers, and its sentence.

const MAX_STEPS = 100;
const place = (account) => `vedette-undo:${account}`;

export function keepSteps(account, steps) {
  const kept = steps.slice(-MAX_STEPS).map(({ entries, items, words }) => ({ entries: entries.map(short), items, words }));
  try {
    sessionStorage.setItem(place(account), JSON.stringify(kept));
  } catch {
    // A forbidden storage: the steps are kept until the page is closed.
  }
}

// Return the kept steps. An entry that still waits is the outbox's own one, which learns when it is stored.
export function keptSteps(account, waiting) {
  let found;
  try {
    found = JSON.parse(sessionStorage.getItem(place(account)) ?? "[]");
  } catch {
    return [];
  }
  if (!Array.isArray(found)) return [];
  const own = new Map(waiting.map((entry) => [entry.key, entry]));
  return found
    .filter((step) => Array.isArray(step?.entries) && Array.isArray(step.items))
    .map((step) => ({ ...step, entries: step.entries.map((entry) => own.get(entry.key) ?? entry).filter(canUndo) }))
    .filter((step) => step.entries.length);
}

const canUndo = (entry) => entry.key && entry.body && (entry.kind === "marks" || entry.stored || !entry.isShort);

function short({ key, kind, stored, body }) {
  const items = body.items.map((each) => each.item ?? each);
  return { key, kind, stored, isShort: true, body: { items, reviewed: body.reviewed } };
}
