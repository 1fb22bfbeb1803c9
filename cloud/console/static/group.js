// Page of one group: sliders over the replayed week. While a slider moves, figures come from the curve of the last answer;
// the service is asked once it rests.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";

const REST_MS = 250;
const [LOW, HIGH] = [-2, 4]; // decades of false alarms a day
const page = document.querySelector(".v-group");
const form = document.querySelector(".v-settings");
const slider = (name) => document.querySelector(`[data-slider=${name}]`);
let forecast = null;
let timer = 0;
let asked = 0;

const digits = (value) => (value >= 100 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(2))));
const counted = (count, noun) => `${digits(count)} ${noun}${digits(count) === "1" ? "" : "s"}`;

function bytes(value) {
  const place = Math.min(4, Math.max(0, Math.floor(Math.log10(Math.max(value, 1)) / 3)));
  return `${digits(value / 1000 ** place)}\u00a0${["B", "kB", "MB", "GB", "TB"][place]}`;
}

const alarmSetting = () => Number((10 ** Number(slider("alarms").value)).toPrecision(3));
const uploadPlace = () => Number(slider("upload").value);
const uploadSetting = () => forecast?.upload_curve.settings[uploadPlace()] ?? 0;

// Value of a curve at a setting, between its points on a log scale.
function at(settings, values, setting) {
  const next = settings.findIndex((value) => value >= setting);
  if (next < 0) return values.at(-1);
  if (next === 0) return values[0];
  const [x0, x1] = [Math.log(settings[next - 1]), Math.log(settings[next])];
  return values[next - 1] + ((values[next] - values[next - 1]) * (Math.log(setting) - x0)) / (x1 - x0);
}

function put(column, name, value) {
  const cell = document.querySelector(`[data-${column}="${name}"]`);
  cell.textContent = name === "bytes_per_day" ? bytes(value) : digits(value);
  cell.classList.toggle("v-worse", column === "proposed" && ["reals_lost", "reals_at_risk"].includes(name) && value > 0);
}

function showFigures() {
  for (const column of ["before", "proposed"]) {
    const figures = column === "before" ? forecast.present : forecast.proposed;
    for (const cell of document.querySelectorAll(`[data-${column}]`)) put(column, cell.dataset[column], figures[cell.dataset[column]]);
  }
  const { proposed } = forecast;
  if (proposed.alarms_high > proposed.alarms_low) {
    document.querySelector("[data-proposed=alarms_per_day]").textContent += ` (${digits(proposed.alarms_low)} to ${digits(proposed.alarms_high)})`;
  }
  document.querySelector("[data-sentences]").textContent = forecast.sentences.join(" ");
  document.querySelector("[data-shows-days]").textContent =
    `${counted(forecast.days, "day")} of ${counted(forecast.devices, "device")}, ${counted(forecast.audits, "audit")}, ` +
    `${counted(forecast.reals, "labelled real")}, ${counted(forecast.false_alarms, "false alarm")}`;
}

// Figures while a slider moves: those of the curves.
function showMoving() {
  const { alarm_curve: alarm, upload_curve: upload } = forecast;
  const setting = alarmSetting();
  for (const [name, values] of [["alarms_per_day", alarm.alarms], ["alarm_items_per_day", alarm.alarm_items]]) put("proposed", name, at(alarm.settings, values, setting));
  for (const [name, values] of [["samples_per_day", upload.samples], ["bytes_per_day", upload.bytes], ["items_per_day", upload.items], ["reals_at_risk", upload.reals_at_risk]]) put("proposed", name, values[uploadPlace()]);
}

function showValues() {
  document.querySelector("[data-value=alarms]").textContent = digits(alarmSetting());
  slider("alarms").setAttribute("aria-valuetext", `${digits(alarmSetting())} false alarms a day`);
  const rate = uploadSetting();
  const words = rate ? `${digits(rate * 86400)} samples a day, about ${bytes(rate * 86400 * bytesOfOne())}` : "no limit";
  document.querySelector("[data-value=upload]").textContent = words;
  slider("upload").setAttribute("aria-valuetext", words);
}

function bytesOfOne() {
  const { samples_per_day: samples, bytes_per_day: size } = forecast.present;
  return samples > 0 ? size / samples : 0;
}

// ---- the curves

const SVG = "http://www.w3.org/2000/svg";

function draw(svg, shapes) {
  svg.replaceChildren(
    ...shapes.map(([kind, name, attributes]) => {
      const element = document.createElementNS(SVG, kind);
      element.setAttribute("class", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    }),
  );
}

const xOf = (setting) => (600 * (Math.log10(Math.max(setting, 1e-9)) - LOW)) / (HIGH - LOW);
const scale = (height, top) => (value) => height - 6 - ((height - 14) * Math.log1p(Math.max(value, 0))) / Math.log1p(Math.max(top, 1));
const path = (xs, ys) => xs.map((x, place) => `${place ? "L" : "M"}${x.toFixed(1)} ${ys[place].toFixed(1)}`).join("");
const upright = (x, from, to) => ({ x1: x, x2: x, y1: from, y2: to });

function drawAlarms() {
  const { alarm_curve: curve, present, marks, exact_up_to: exact } = forecast;
  const xs = curve.settings.map(xOf);
  const y = scale(200, Math.max(...curve.high, ...curve.alarm_items));
  const beyond = curve.settings.map((setting, place) => place).filter((place) => curve.high[place] > curve.low[place]);
  const band = beyond.length ? `${path(beyond.map((place) => xs[place]), beyond.map((place) => y(curve.high[place])))}${path(beyond.map((place) => xs[place]).reverse(), beyond.map((place) => y(curve.low[place])).reverse()).replace("M", "L")}Z` : "";
  const inside = (setting) => setting >= 10 ** LOW && setting <= 10 ** HIGH;
  draw(document.querySelector("[data-plot=alarms]"), [
    ["path", "c-band", { d: band }],
    ...marks.map((mark) => ["line", mark.is_real ? "c-real" : "c-false", upright(xOf(Math.min(Math.max(mark.setting, 10 ** LOW), 10 ** HIGH)), mark.is_real ? 186 : 0, mark.is_real ? 200 : 14)]),
    ["path", "c-alarms", { d: path(xs, curve.alarms.map(y)) }],
    ["path", "c-items", { d: path(xs, curve.alarm_items.map(y)) }],
    ...(inside(exact) ? [["line", "c-exact", upright(xOf(exact), 0, 200)]] : []),
    ...(present.false_alarms_per_day !== null ? [["line", "c-present", upright(xOf(present.false_alarms_per_day), 0, 200)]] : []),
    ["line", "c-proposed", upright(xOf(alarmSetting()), 0, 200)],
  ]);
}

function drawUpload() {
  const { upload_curve: curve, present } = forecast;
  const last = curve.settings.length - 1;
  const xs = curve.settings.map((_, place) => (600 * place) / last);
  const y = scale(100, Math.max(...curve.items));
  const now = present.max_samples_per_s === null ? -1 : present.max_samples_per_s ? curve.settings.findLastIndex((rate) => rate && rate <= present.max_samples_per_s * 1.001) : last;
  draw(document.querySelector("[data-plot=upload]"), [
    ["path", "c-items", { d: path(xs, curve.items.map(y)) }],
    ...(now >= 0 ? [["line", "c-present", upright(xs[now], 0, 100)]] : []),
    ["line", "c-proposed", upright(xs[uploadPlace()], 0, 100)],
  ]);
}

function move() {
  showValues();
  drawAlarms();
  drawUpload();
}

// ---- the service

async function ask(query) {
  const mine = ++asked;
  let answer;
  let facts;
  try {
    answer = await fetch(`${page.dataset.address}/forecast?${query}`);
    facts = await answer.json();
  } catch {
    facts = { detail: "The service does not answer: there is no forecast now." };
  }
  if (mine !== asked) return false;
  if (!answer?.ok) {
    const reason = answer?.status === 404 ? "There is no forecast: the group has no device." : facts.detail;
    document.querySelector("[data-sentences]").textContent = reason;
    return false;
  }
  forecast = facts;
  return true;
}

async function refresh() {
  const query = new URLSearchParams({ false_alarms_per_day: alarmSetting(), max_samples_per_s: uploadSetting() });
  if (await ask(query)) {
    showFigures();
    move();
  }
}

function onMove(name) {
  if (!forecast) return;
  form.elements[name === "alarms" ? "false_alarms_per_day" : "max_samples_per_s"].value = name === "alarms" ? alarmSetting() : uploadSetting();
  showMoving();
  move();
  clearTimeout(timer);
  timer = setTimeout(refresh, REST_MS);
}

async function apply(headers) {
  const failed = form.querySelector(".v-failed");
  const values = {};
  for (const field of form.elements) if (field.name && field.value !== "") values[field.name] = Number(field.value);
  let answer;
  try {
    answer = await fetch(`${page.dataset.address}/settings`, {
      method: "PUT",
      headers: { "Content-Type": "application/json", "X-CSRF-Token": document.body.dataset.csrf ?? "", ...headers },
      body: JSON.stringify(values),
    });
  } catch {
    answer = null;
  }
  if (answer?.ok) return location.reload();
  const facts = await answer?.json().catch(() => null);
  failed.textContent = facts?.detail ?? "The service does not answer: nothing was changed.";
  failed.hidden = false;
  for (const name of ["anyway", "again"]) form.querySelector(`[data-${name}]`).hidden = answer?.status !== 412;
}

async function begin() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    apply({ "If-Match": `"${page.dataset.version}"` });
  });
  form.querySelector("[data-anyway]").addEventListener("click", () => apply({}));
  if (!(await ask(""))) return;
  slider("alarms").value = Math.log10(Math.max(forecast.present.false_alarms_per_day ?? 1, 10 ** LOW));
  const { settings } = forecast.upload_curve;
  const rate = forecast.present.max_samples_per_s ?? 0;
  slider("upload").value = rate ? settings.findLastIndex((value) => value && value <= rate * 1.001) : settings.length - 1;
  for (const name of ["alarms", "upload"]) slider(name).addEventListener("input", () => onMove(name));
  showFigures();
  move();
}

if (page) begin();
start();
