// Reading of the channels of a plot under the pointer.
import { clock } from "./time.js";

export function dressPlot(plot) {
  const last = Math.max(1, Number(plot.dataset.rows) - 1);
  const begin = Number(plot.dataset.begin);
  const place = plot.querySelector(".v-place");
  let known = null;
  for (const readout of plot.querySelectorAll(".v-readout")) readout.dataset.share = readout.textContent;

  plot.addEventListener("pointermove", async (event) => {
    known ??= fetch(plot.dataset.source).then((answer) => answer.json()).then((view) => view.plot);
    const box = plot.querySelector(".v-lines").getBoundingClientRect();
    const row = Math.round(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * last);
    const figures = await known.catch(() => null);
    if (!figures) {
      known = null;
      return;
    }
    const [first, end] = [figures.ticks[0], figures.ticks.at(-1)];
    const at_s = first.at_s === null ? null : first.at_s + ((end.at_s - first.at_s) * row) / last;
    place.textContent = at_s === null ? `: ${row - begin}` : `: ${clock(at_s)}`;
    plot.querySelectorAll(".v-channel").forEach((channel, number) => read(channel, figures.channels[number], row, last));
  });
  plot.addEventListener("pointerleave", () => {
    for (const line of plot.querySelectorAll(".v-cursor")) line.setAttribute("visibility", "hidden");
    for (const readout of plot.querySelectorAll(".v-readout")) readout.textContent = readout.dataset.share;
    place.textContent = "";
  });
}

function read(channel, figures, row, last) {
  const line = channel.querySelector(".v-cursor");
  line.setAttribute("visibility", "visible");
  for (const end of ["x1", "x2"]) line.setAttribute(end, (1000 * row) / last);
  const value = nearest(figures.points, row);
  const expected = nearest(figures.expected, row);
  const parts = [value === null ? "no reading" : value.toPrecision(5)];
  if (expected !== null) parts.push(`expected ${expected.toPrecision(5)}`);
  if (figures.normal) parts.push(`normal ${figures.normal.words}`);
  channel.querySelector(".v-readout").textContent = parts.join(" · ");
}

// The value of the point next to a row; null where there is none within a few rows.
function nearest(points, row) {
  let best = null;
  for (const point of points) {
    if (point[1] !== null && (best === null || Math.abs(point[0] - row) < Math.abs(best[0] - row))) best = point;
  }
  return best !== null && Math.abs(best[0] - row) <= 3 ? best[1] : null;
}
