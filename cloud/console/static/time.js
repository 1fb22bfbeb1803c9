// Times by the clock of the service, in the time zone of the browser, whose own clock may be wrong.

let service_s = Number(document.body.dataset.now) || Date.now() / 1000;
let heard_ms = performance.now();

export function setServiceClock(now_s) {
  service_s = now_s;
  heard_ms = performance.now();
}

export function serviceNow() {
  return service_s + (performance.now() - heard_ms) / 1000;
}

export function age(seconds) {
  const s = Math.max(0, seconds);
  if (s < 120) return `${Math.floor(s)}\u00a0s`;
  if (s < 7200) return `${Math.floor(s / 60)}\u00a0min`;
  if (s < 172800) return `${Math.floor(s / 3600)}\u00a0h`;
  return `${Math.floor(s / 86400)}\u00a0d`;
}

const pad = (number) => String(number).padStart(2, "0");

// "14:03:22", with the day before it unless it is today.
export function clock(at_s) {
  const at = new Date(at_s * 1000);
  if (Number.isNaN(at.getTime())) return `${at_s}\u00a0s`;
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  if (at.toDateString() === new Date(serviceNow() * 1000).toDateString()) return time;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

// "14:03", with the day before it unless it is today.
function short(at_s) {
  const at = new Date(at_s * 1000);
  const now = new Date(serviceNow() * 1000);
  if (Number.isNaN(at.getTime())) return `${at_s}\u00a0s`;
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}`;
  if (at.toDateString() === now.toDateString()) return time;
  const year = at.getFullYear() === now.getFullYear() ? "" : ` ${at.getFullYear()}`;
  return `${at.getDate()} ${MONTHS[at.getMonth()]}${year} ${time}`;
}

const FORMS = { age: (at_s) => age(serviceNow() - at_s), clock, short };

export function showTimes(root = document) {
  for (const element of root.querySelectorAll("time[data-at]")) {
    const at_s = Number(element.dataset.at);
    const text = (FORMS[element.dataset.form] ?? clock)(at_s);
    if (element.textContent !== text) element.textContent = text;
  }
}

setInterval(() => {
  for (const element of document.querySelectorAll("time[data-form=age]")) {
    element.textContent = age(serviceNow() - Number(element.dataset.at));
  }
}, 1000);
