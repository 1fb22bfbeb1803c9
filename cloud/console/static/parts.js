// Parts of a page: HTML of the service, fetched again after a change.
import { follow, setProblem } from "./live.js";
import { showTimes } from "./time.js";

const FOCUS_NAMES = ["id", "href", "data-opens", "data-device", "data-mute", "name", "aria-label"]; // of a control, the surest first

// Return the element at an address; throws an Error with the reason in words.
export async function fetchPart(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("The service does not answer.");
  }
  if (!answer.headers.has("x-vedette-part")) { // also HTML of a proxy in front of the service
    const reason = await answer.json().catch(() => ({}));
    throw new Error(typeof reason.detail === "string" ? reason.detail : `The service answered ${answer.status}.`);
  }
  const template = document.createElement("template");
  template.innerHTML = await answer.text(); // rendered and escaped by the service
  return template.content.firstElementChild;
}

// Fetch a part again after each change, at most every `every_ms`, and put its contents in place; not while `holds()`.
export function keepCurrent(selector, address, topic, every_ms, dress = showTimes, holds = () => false) {
  let last_ms = performance.now();
  let wanted = false;
  let busy = false;
  const update = async () => {
    if (!wanted || busy || holds() || performance.now() - last_ms < every_ms || !document.querySelector(selector)) return;
    [wanted, busy, last_ms] = [false, true, performance.now()];
    try {
      const element = document.querySelector(selector);
      const fresh = await fetchPart(address());
      if (holds()) wanted = true; // since the request, such as by an opened dialog, which must not be replaced
      else put(element, fresh, dress);
      setProblem(selector, "");
    } catch (error) {
      wanted = true;
      setProblem(selector, error.message);
    }
    busy = false;
  };
  follow(topic, () => {
    wanted = true;
    update();
  });
  follow("clock", update);
}

// Replace the contents of an element; its scroll positions and the focus stay.
function put(element, fresh, dress) {
  const places = [...element.querySelectorAll(".v-scroll")].map(({ scrollTop, scrollLeft }) => [scrollTop, scrollLeft]);
  const refocus = focusKept(element);
  for (const each of element.getAttributeNames()) if (!fresh.hasAttribute(each)) element.removeAttribute(each);
  for (const { name, value } of fresh.attributes) element.setAttribute(name, value);
  element.replaceChildren(...fresh.childNodes);
  element.querySelectorAll(".v-scroll").forEach((inner, number) => inner.scrollTo(places[number]?.[1] ?? 0, places[number]?.[0] ?? 0));
  dress(element);
  refocus(element);
}

// Return a function that gives the focus back to the control that has it now in an element, once its contents were
// replaced. The function returns whether it did: a control of a row gets it in the row of the same `data-item` alone.
export function focusKept(element) {
  const active = element.contains(document.activeElement) ? document.activeElement : null;
  const name = FOCUS_NAMES.find((each) => active?.hasAttribute(each));
  const selector = active && active.localName + (name ? `[${name}="${CSS.escape(active.getAttribute(name))}"]` : "");
  const alike = (root) => [...root.querySelectorAll(selector)].filter((each) => name || each.textContent === active.textContent);
  const row = active?.parentElement.closest("[data-item]");
  const isInRow = Boolean(row) && row !== element && element.contains(row);
  const place = active ? alike(isInRow ? row : element).indexOf(active) : -1;
  return (fresh) => {
    const root = isInRow ? fresh.querySelector(`[data-item="${CSS.escape(row.dataset.item)}"]`) : fresh;
    const found = place < 0 || !root ? undefined : (alike(root)[place] ?? alike(root)[0]);
    found?.focus({ preventScroll: true });
    return Boolean(found);
  };
}
