// Parts of a verdict that take a while: fetched once somebody stays on it, and put in place. A failure leaves the page
// as it is. Shared pages load this module, too, so it imports nothing of the stream.

const WAIT_MS = 300; // a verdict that is only passed by asks for nothing

// `done` is called with each part after its contents are in place.
export function dressLater(verdict, done) {
  for (const element of verdict.querySelectorAll("[data-later]")) {
    setTimeout(() => load(element, done), WAIT_MS);
  }
}

async function load(element, done) {
  if (!element.isConnected) return;
  const answer = await fetch(element.dataset.later).catch(() => null);
  if (!answer?.ok || !answer.headers.has("x-vedette-part")) return; // also HTML of a proxy in front of the service
  const template = document.createElement("template");
  template.innerHTML = await answer.text(); // rendered and escaped by the service
  if (!element.isConnected) return;
  element.replaceChildren(...template.content.firstElementChild.childNodes);
  element.removeAttribute("data-later");
  done(element);
}
