// Calendar of the month with marks, and the density of items over one day. Days are those of the browser's time zone.
import { serviceNow } from "./time.js";

const DAY_STEP_S = 900;
const DAYS = ["Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"];
const ORDER = ["alarm", "suspicious", "undecided", "missed"];
const WIDTH = 960;
const HEIGHT = 34;
let month = null; // first day of the shown month, once somebody has turned the pages

const seconds = (date) => date.getTime() / 1000;
const svg = (name, values) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(values)) element.setAttribute(key, value);
  return element;
};

function dayOf(at_s) {
  const date = new Date(at_s * 1000);
  return new Date(date.getFullYear(), date.getMonth(), date.getDate());
}
const dayAfter = (date) => new Date(date.getFullYear(), date.getMonth(), date.getDate() + 1);

// Begin and end of the chosen time, in seconds; NaN where it is not restricted.
const chosenTime = (query) => [query.get("since"), query.get("until")].map((text) => (text ? Number(text) : NaN));

async function density(query, begin, end, step_s) {
  const wanted = new URLSearchParams(query);
  for (const name of ["since", "until", "after", "open"]) wanted.delete(name);
  wanted.set("begin_s", seconds(begin));
  wanted.set("end_s", seconds(end));
  wanted.set("step_s", step_s);
  const answer = await fetch(`/parts/review/density?${wanted}`).catch(() => null);
  if (!answer?.ok) return null;
  return (await answer.json()).items;
}

function addressOf(query, since, until) {
  const wanted = new URLSearchParams(query);
  wanted.delete("after");
  since === null ? wanted.delete("since") : wanted.set("since", since);
  until === null ? wanted.delete("until") : wanted.set("until", until);
  return wanted.size ? `/?${wanted}` : "/";
}

// ---- the month

export async function showMonth(place, query, go) {
  const [since] = chosenTime(query());
  const base = month ?? dayOf(Number.isNaN(since) ? serviceNow() : since);
  const first = new Date(base.getFullYear(), base.getMonth(), 1);
  const last = new Date(base.getFullYear(), base.getMonth() + 1, 1);
  const items = await density(query(), first, last, DAY_STEP_S);
  if (!items || !place.isConnected) return;
  const counts = new Map();
  for (const [at_s, , count] of items) {
    const day = dayOf(at_s).getDate();
    counts.set(day, (counts.get(day) ?? 0) + count);
  }
  place.hidden = false;
  place.replaceChildren(monthHead(place, first, query, go), monthDays(first, last, counts, query, go));
}

function monthHead(place, first, query, go) {
  const head = document.createElement("div");
  head.className = "r-month";
  const turn = (step, words, sign) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = sign;
    button.setAttribute("aria-label", words);
    button.addEventListener("click", () => {
      month = new Date(first.getFullYear(), first.getMonth() + step, 1);
      showMonth(place, query, go);
    });
    return button;
  };
  const name = document.createElement("b");
  name.textContent = first.toLocaleDateString("en", { month: "long", year: "numeric" });
  head.append(turn(-1, "Month before", "‹"), name, turn(1, "Month after", "›"));
  return head;
}

function monthDays(first, last, counts, query, go) {
  const grid = document.createElement("div");
  grid.className = "r-days";
  for (const name of DAYS) {
    const head = document.createElement("span");
    head.textContent = name;
    grid.append(head);
  }
  const most = Math.max(1, ...counts.values());
  const [since, until] = chosenTime(query());
  const today = dayOf(serviceNow());
  for (let day = first; day < last; day = dayAfter(day)) {
    const count = counts.get(day.getDate()) ?? 0;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = day.getDate();
    if (day === first) button.style.gridColumnStart = ((day.getDay() + 6) % 7) + 1;
    if (count) button.dataset.items = count > 0.66 * most ? 3 : count > 0.2 * most ? 2 : 1;
    const isChosen = since === seconds(day) && until === seconds(dayAfter(day));
    button.setAttribute("aria-pressed", String(isChosen));
    if (day.getTime() === today.getTime()) button.setAttribute("aria-current", "date");
    button.title = `${count} ${count === 1 ? "item" : "items"}`;
    const [from, to] = isChosen ? [null, null] : [seconds(day), seconds(dayAfter(day))];
    button.addEventListener("click", () => {
      month = null;
      go(addressOf(query(), from, to));
    });
    grid.append(button);
  }
  return grid;
}

// ---- the day

export async function showDay(place, query, go) {
  const [since, until] = chosenTime(query());
  const span = spanOf(since);
  const items = await density(query(), span.begin, span.end, DAY_STEP_S);
  if (!items || !place.isConnected) return;
  place.hidden = !items.length && Number.isNaN(since);
  if (place.hidden) return;
  const drawing = drawDay(items, span, since, until);
  drawing.addEventListener("click", (event) => {
    const box = drawing.getBoundingClientRect();
    const from = seconds(span.begin) + 3600 * Math.floor((span.hours * (event.clientX - box.left)) / box.width);
    const whole = span.isDay ? [seconds(span.begin), seconds(span.end)] : [null, null];
    go(addressOf(query(), ...(from === since && until - since < 7200 ? whole : [from, from + 3600])));
  });
  place.replaceChildren(drawing, hourMarks(span));
}

// The day that is chosen, or the last 24 hours.
function spanOf(since) {
  if (!Number.isNaN(since) && since < serviceNow() - 86_400) {
    const begin = dayOf(since);
    return { begin, end: dayAfter(begin), hours: (seconds(dayAfter(begin)) - seconds(begin)) / 3600, isDay: true };
  }
  const end = new Date((Math.floor(serviceNow() / 3600) + 1) * 3_600_000);
  return { begin: new Date(end.getTime() - 24 * 3_600_000), end, hours: 24, isDay: false };
}

function drawDay(items, span, since, until) {
  const length_s = seconds(span.end) - seconds(span.begin);
  const sums = new Map();
  for (const [at_s, , count] of items) sums.set(at_s, (sums.get(at_s) ?? 0) + count);
  const most = Math.max(1, ...sums.values());
  const total = [...sums.values()].reduce((sum, count) => sum + count, 0);
  const label = `${total} items from ${span.begin.toLocaleString("en")} to ${span.end.toLocaleString("en")}`;
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label });
  const at = (at_s) => (WIDTH * (at_s - seconds(span.begin))) / length_s;
  for (const share of [0.25, 0.5, 0.75]) drawing.append(svg("line", { x1: WIDTH * share, x2: WIDTH * share, y1: 0, y2: HEIGHT }));
  if (until - since < 86_000) {
    drawing.append(svg("rect", { class: "r-window", x: at(since), y: 0, width: Math.max(2, at(until) - at(since)), height: HEIGHT }));
  }
  const heights = new Map();
  for (const [at_s, severity, count] of [...items].sort((one, other) => ORDER.indexOf(one[1]) - ORDER.indexOf(other[1]))) {
    const below = heights.get(at_s) ?? 0;
    const height = Math.max(3, ((HEIGHT - 2) * count) / most);
    heights.set(at_s, below + height);
    const width = (WIDTH * DAY_STEP_S) / length_s - 2;
    drawing.append(svg("rect", { class: `s-${severity}`, x: at(at_s) + 1, y: HEIGHT - below - height, width, height }));
  }
  return drawing;
}

function hourMarks(span) {
  const line = document.createElement("p");
  line.className = "r-hours";
  for (const share of [0, 0.25, 0.5, 0.75, 1]) {
    const at = new Date(span.begin.getTime() + share * (span.end.getTime() - span.begin.getTime()));
    const mark = document.createElement("span");
    mark.textContent = at.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
    line.append(mark);
  }
  line.title = "Items by quarter of an hour; click for one hour";
  return line;
}
