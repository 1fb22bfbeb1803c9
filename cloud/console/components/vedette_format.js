// Times in the time zone of the browser.

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
  const time = `${pad(at.getHours())}:${pad(at.getMinutes())}:${pad(at.getSeconds())}`;
  if (at.toDateString() === new Date().toDateString()) return time;
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${time}`;
}

// In UTC to the millisecond, for reports.
export function exact(at_s) {
  return new Date(at_s * 1000).toISOString();
}

export function percent(share) {
  return share === null || share === undefined ? "–" : `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)}\u00a0%`;
}

// Mixin: `elapsed_s` counts the seconds since the property changed, so that ages rise between two answers of the server.
export function secondsSince(property) {
  return {
    data: () => ({ elapsed_s: 0 }),
    watch: {
      [property]() {
        this.read_at_ms = performance.now();
        this.elapsed_s = 0;
      },
    },
    mounted() {
      this.read_at_ms = performance.now();
      this.ticker = setInterval(() => (this.elapsed_s = (performance.now() - this.read_at_ms) / 1000), 1000);
    },
    unmounted() {
      clearInterval(this.ticker);
    },
  };
}

export const decisions = { anomalous: "Anomalous", normal: "Normal", undecided: "Undecided" };
