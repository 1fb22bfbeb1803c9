// The stream of changes of a page. Three seconds without a message, and the page says that it is not up to date.
import { clock, serviceNow, setServiceClock, showTimes } from "./time.js";

const STALE_MS = 3000;
const AGAIN_MS = 2000;
const RELOAD_MS = 5000;
const root = document.documentElement;
const bar = document.querySelector(".v-fresh-words");
const alert = document.querySelector(".v-problem");
const handlers = new Map();
const seen = { store: Number(document.body.dataset.store), verdicts: Number(document.body.dataset.verdicts), review: Number(document.body.dataset.review) };
// The first one is shown: without a session every other request fails, too.
const problems = new Map([["session", ""], ["stream", alert.querySelector("span").textContent]]);
let source = null;
let heard_ms = performance.now();
let heard_s = serviceNow();

// Call `handler` after each change of a topic: "store", "verdicts", or "clock" for each message.
export function follow(topic, handler) {
  handlers.set(topic, [...(handlers.get(topic) ?? []), handler]);
}

// Show a problem of one part of the page until it is set to "".
export function setProblem(name, text) {
  if ((problems.get(name) ?? "") === text) return;
  problems.set(name, text);
  const shown = [...problems.values()].find((value) => value) ?? "";
  alert.hidden = !shown;
  alert.title = shown;
  shown ? alert.setAttribute("role", "alert") : alert.removeAttribute("role");
  alert.querySelector("span").textContent = shown;
  showState();
}

function showState() {
  const stale = performance.now() - heard_ms > STALE_MS && !document.hidden;
  const shown = [...problems.values()].some((value) => value);
  const state = stale ? "stale" : shown ? "problem" : "current";
  const words = stale ? `Not up to date since ${clock(heard_s)}` : `as of ${clock(serviceNow())}`;
  if (bar.textContent !== words) bar.textContent = words;
  if (root.dataset.live === state) return;
  const before = root.dataset.live;
  root.dataset.live = state;
  bar.parentElement.hidden = state === "problem";
  const said = document.querySelector(".v-said");
  if (state === "stale") said.textContent = `${words}: the service does not answer.`;
  else if (before === "stale") said.textContent = "Up to date again.";
}

function hear(event) {
  const { now_s, problem } = JSON.parse(event.data);
  heard_ms = performance.now();
  heard_s = now_s;
  setServiceClock(now_s);
  const was = problems.get("stream");
  const isMissing = document.querySelector("[data-missing]"); // its content could not be made: the reason stays shown
  if (problem || !isMissing) setProblem("stream", problem);
  showState();
  if (was && !problem) for (const topic of ["store", "verdicts", "review"]) tell(topic);
  const isOld = performance.now() > RELOAD_MS; // a page that fails again by itself must not load without a pause
  if (!problem && isOld && isMissing) location.reload();
  tell("clock");
}

function tell(topic) {
  for (const handler of handlers.get(topic) ?? []) handler();
}

function open() {
  if (source || document.hidden) return;
  source = new EventSource(`/live?topics=figures,${[...handlers.keys()].filter((name) => name !== "clock").join(",")}`.replace(/,$/, ""));
  source.addEventListener("clock", hear);
  source.addEventListener("figures", (event) => {
    const strip = document.querySelector(".v-strip");
    strip.innerHTML = JSON.parse(event.data).html; // rendered and escaped by the service
    showTimes(strip);
  });
  source.addEventListener("changed", (event) => {
    const { topic, number } = JSON.parse(event.data);
    if (seen[topic] === number) return;
    seen[topic] = number;
    tell(topic);
  });
  source.addEventListener("error", () => {
    if (source?.readyState !== EventSource.CLOSED) return; // it connects again by itself
    close();
    setTimeout(open, AGAIN_MS);
    checkSession();
  });
}

function close() {
  source?.close();
  source = null;
}

async function checkSession() {
  const answer = await fetch("/api/account").catch(() => null);
  setProblem("session", answer?.status === 401 ? "Your session has ended: load the page again to sign in." : "");
}

export function start() {
  // A hidden page holds no connection: browsers allow six of them to one host.
  document.addEventListener("visibilitychange", () => {
    heard_ms = performance.now();
    document.hidden ? close() : open();
  });
  setInterval(showState, 500);
  showTimes();
  open();
}
