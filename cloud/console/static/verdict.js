// One verdict in detail: heatmap over the picture, zoom, playback, reading of a plot under the pointer.
import { dressLater } from "./later.js";
import { dressPlayer } from "./player.js";
import { dressPlot } from "./plot.js";
import { showTimes } from "./time.js";
import { dressZoom } from "./zoom.js";

// The choice stays while other verdicts are opened.
const heatmap = { by: "Cloud", shown: true, opacity: 75 };

export function dress(verdict) {
  showTimes(verdict);
  const canvas = verdict.querySelector(".v-canvas");
  if (canvas) dressZoom(canvas);
  verdict.querySelector("img[data-loss]")?.addEventListener("error", (event) => {
    const notice = document.createElement("p");
    notice.className = "v-notice";
    notice.textContent = event.target.dataset.loss;
    event.target.after(notice);
  });
  const controls = verdict.querySelector(".v-controls:has([data-map])");
  if (controls) dressControls(controls);
  const plot = verdict.querySelector(".v-plot");
  if (plot) dressPlot(plot);
  const player = verdict.querySelector(".v-player");
  if (player) dressPlayer(player);
  if (canvas) dressExamples(verdict, canvas);
  dressLater(verdict, (part) => {
    showTimes(part);
    if (canvas && part.matches(".v-later")) dressExamples(part, canvas);
  });
  for (const bar of verdict.querySelectorAll(".v-history rect[data-sample]")) {
    bar.addEventListener("click", () => { location.href = `/verdict/${bar.dataset.sample}`; });
  }
}

export function toggleHeatmap() {
  heatmap.shown = !heatmap.shown;
  for (const controls of document.querySelectorAll(".v-controls:has([data-map])")) showHeatmap(controls);
}

function dressControls(controls) {
  controls.hidden = false;
  for (const button of controls.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      heatmap.shown = button.textContent !== "Off";
      if (heatmap.shown) heatmap.by = button.textContent;
      showHeatmap(controls);
    });
  }
  const slider = controls.querySelector("input");
  slider.addEventListener("input", () => {
    heatmap.opacity = Number(slider.value);
    showHeatmap(controls);
  });
  showHeatmap(controls);
}

function showHeatmap(controls) {
  const buttons = [...controls.querySelectorAll("button")];
  const usable = buttons.filter((button) => button.dataset.map);
  const used = usable.find((button) => button.textContent === heatmap.by) ?? usable[0];
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(heatmap.shown ? button === used : !button.dataset.map && !button.disabled));
  }
  for (const map of controls.closest(".v-block").querySelectorAll(".v-map")) {
    if (map.getAttribute("src") !== used.dataset.map) map.src = used.dataset.map;
    map.style.opacity = heatmap.shown ? heatmap.opacity / 100 : 0;
  }
  controls.querySelector("input").value = heatmap.opacity;
  controls.querySelector("output").textContent = `${heatmap.opacity}\u00a0%`;
}

// A chosen normal picture stands in place of the sample, at the same zoom, until it is chosen again.
function dressExamples(verdict, canvas) {
  const base = canvas.querySelector(".v-base");
  const own = base.getAttribute("src");
  const map = canvas.querySelector(".v-map");
  const buttons = [...verdict.querySelectorAll("button[data-picture]")];
  for (const button of buttons) {
    button.addEventListener("click", () => {
      const chosen = button.getAttribute("aria-pressed") !== "true";
      for (const each of buttons) each.setAttribute("aria-pressed", String(chosen && each === button));
      base.src = chosen ? button.dataset.picture : own;
      base.alt = chosen ? "A normal picture in place of the sample" : "The sample";
      canvas.classList.toggle("v-other", chosen);
      if (map) map.hidden = chosen;
    });
  }
}
