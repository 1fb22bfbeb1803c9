// One verdict in detail: heatmap over the picture, reading of a plot under the pointer.
import { showTimes } from "./time.js";

// The choice stays while other verdicts are opened.
const heatmap = { by: "Cloud", shown: true, opacity: 75 };

export function dress(verdict) {
  showTimes(verdict);
  const canvas = verdict.querySelector(".v-canvas");
  canvas?.style.setProperty("--ratio", canvas.dataset.ratio);
  verdict.querySelector("img[data-loss]")?.addEventListener("error", (event) => {
    const notice = document.createElement("p");
    notice.className = "v-notice";
    notice.textContent = event.target.dataset.loss;
    event.target.after(notice);
  });
  const controls = verdict.querySelector(".v-controls");
  if (controls) dressControls(controls);
  const plot = verdict.querySelector(".v-plot");
  if (plot) dressPlot(plot, verdict.dataset.sample);
}

export function toggleHeatmap() {
  heatmap.shown = !heatmap.shown;
  for (const controls of document.querySelectorAll(".v-controls")) showHeatmap(controls);
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
  const map = controls.closest(".v-block").querySelector(".v-map");
  if (map.getAttribute("src") !== used.dataset.map) map.src = used.dataset.map;
  map.style.opacity = heatmap.shown ? heatmap.opacity / 100 : 0;
  controls.querySelector("input").value = heatmap.opacity;
  controls.querySelector("output").textContent = `${heatmap.opacity}\u00a0%`;
}

function dressPlot(plot, sample) {
  const last = Math.max(1, Number(plot.dataset.length) - 1);
  let channels = null;
  plot.addEventListener("pointermove", async (event) => {
    channels ??= fetch(`/api/verdicts/${sample}`).then((answer) => answer.json()).then((view) => view.plot.channels);
    const box = plot.querySelector("svg").getBoundingClientRect();
    const time = Math.round(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * last);
    const known = await channels.catch(() => []);
    read(plot, time, last, known);
  });
  plot.addEventListener("pointerleave", () => {
    for (const line of plot.querySelectorAll(".v-cursor")) line.setAttribute("visibility", "hidden");
    for (const readout of plot.querySelectorAll(".v-readout")) readout.textContent = readout.dataset.range;
    plot.querySelector(".v-place").textContent = "";
  });
}

function read(plot, time, last, channels) {
  plot.querySelector(".v-place").textContent = `: ${time}`;
  plot.querySelectorAll(".v-channel").forEach((channel, place) => {
    const line = channel.querySelector(".v-cursor");
    line.setAttribute("visibility", "visible");
    for (const end of ["x1", "x2"]) line.setAttribute(end, (1000 * time) / last);
    const points = (channels[place]?.points ?? []).filter((point) => point[1] !== null);
    if (!points.length) return;
    const nearest = points.reduce((best, point) => (Math.abs(point[0] - time) < Math.abs(best[0] - time) ? point : best));
    channel.querySelector(".v-readout").textContent = nearest[1].toPrecision(4);
  });
}
