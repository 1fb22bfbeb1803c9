// One verdict: the sample, its anomalies, and the opinions of edge and cloud.
import { clock, decisions, exact, percent } from "vedette_format";

const HEIGHT = 74, LEFT = 8, RIGHT = 8, TOP = 6, BOTTOM = 6;

export default {
  template: `
    <aside class="v-detail" :class="{'v-page': whole_page}" v-if="verdict || notice" aria-label="Verdict">
      <header class="v-detail-head">
        <template v-if="verdict">
          <span class="v-decision v-large" :class="'d-' + verdict.decision">{{ decisions[verdict.decision] }}</span>
          <span class="v-route" :class="'r-' + verdict.route">{{ verdict.route }}</span>
        </template>
        <span class="v-space"></span>
        <a v-if="verdict && !whole_page" class="v-button" :href="'/verdict/' + verdict.sample_id" target="_blank" rel="noopener" title="Separate page that can be shared">Link ↗</a>
        <a v-if="whole_page" class="v-button" href="/">All verdicts</a>
        <button v-else type="button" class="v-button" @click="$emit('close')" title="Close (Esc)" aria-label="Close">✕</button>
      </header>
      <div class="v-detail-body" ref="body" v-if="!verdict"><p class="v-notice" role="status">{{ notice }}</p></div>
      <div class="v-detail-body" ref="body" v-else>
        <p v-if="notice" class="v-notice" role="alert">{{ notice }}</p>
        <p class="v-headline">{{ verdict.headline }}</p>
        <p v-if="verdict.reason" class="v-notice">{{ verdict.reason }}</p>
        <p v-if="verdict.problem" class="v-notice">{{ verdict.problem }}</p>

        <section v-if="verdict.kind === 'image' || verdict.kind === 'clip'" class="v-block">
          <div v-if="verdict.kind === 'image'" class="v-canvas" :style="{aspectRatio: verdict.width_px + ' / ' + verdict.height_px, maxWidth: canvasWidth}">
            <img :src="verdict.image" :key="verdict.image" alt="The sample" decoding="async" @error="imageFailed = verdict.sample_id">
            <img v-if="map" :src="map" :key="map" alt="" class="v-map" decoding="async" :style="{opacity: shown ? opacity / 100 : 0}">
            <p v-if="imageFailed === verdict.sample_id" class="v-notice">The image could not be loaded.</p>
          </div>
          <div v-else class="v-frames" :style="{'--columns': frameColumns}" aria-label="Frames of the clip">
            <figure v-for="frame in verdict.frames" :key="frame.image" :class="{'v-highest': frame.is_highest}">
              <div class="v-frame">
                <img :src="frame.image" :alt="'Frame ' + (frame.number + 1)" loading="lazy" decoding="async">
                <img v-if="map && frame.is_last" :src="map" :key="map" alt="" class="v-map" decoding="async" :style="{opacity: shown ? opacity / 100 : 0}">
              </div>
              <figcaption>
                <span>Frame {{ frame.number + 1 }}<b v-if="frame.is_highest"> highest</b></span>
                <template v-if="frame.share !== null"><span class="v-meter"><i :style="{width: 100 * frame.share + '%'}"></i></span><span class="v-number">{{ percent(frame.share) }}</span></template>
              </figcaption>
            </figure>
          </div>
          <p v-if="verdict.kind === 'clip'" class="v-hint">{{ frameHint }}</p>
          <div class="v-controls" v-if="verdict.cloud_map || verdict.edge_map">
            <span class="v-toggle" role="group" aria-label="Heatmap">
              <button type="button" class="v-button" :disabled="!verdict.cloud_map" :aria-pressed="shown && by === 'cloud'" @click="show('cloud')">Cloud</button>
              <button type="button" class="v-button" :disabled="!verdict.edge_map" :aria-pressed="shown && by === 'edge'" @click="show('edge')">Edge</button>
              <button type="button" class="v-button" :aria-pressed="!shown" @click="shown = false">Off</button>
            </span>
            <label class="v-slider">Heatmap <input type="range" min="0" max="100" v-model.number="opacity" aria-label="Opacity of the heatmap"><span class="v-number">{{ opacity }} %</span></label>
          </div>
          <p v-else class="v-hint">There is no anomaly map of this sample.</p>
        </section>

        <section v-if="verdict.kind === 'series'" class="v-block">
          <svg class="v-plot" ref="plot" :viewBox="'0 0 ' + width + ' ' + plotHeight" :style="{height: plotHeight + 'px'}" :aria-label="'Channels of the window, ' + verdict.plot.length + ' time points'"
               @pointermove="point" @pointerleave="cursor = null">
            <g v-for="(channel, place) in verdict.plot.channels" :key="place" :transform="'translate(0 ' + place * ${HEIGHT + 18} + ')'">
              <text x="${LEFT}" y="12" class="v-axis v-strong">{{ channel.name }}</text>
              <text :x="width - ${RIGHT}" y="12" text-anchor="end" class="v-axis">{{ readout(channel) }}</text>
              <g transform="translate(0 18)">
                <rect x="${LEFT}" y="0" :width="width - ${LEFT + RIGHT}" height="${HEIGHT}" class="v-ground"/>
                <rect v-for="(span, index) in channel.shaded.length ? channel.shaded : []" :key="index" :x="x(span[0] - 0.5)" y="0" :width="Math.max(1.5, x(span[1]) - x(span[0]))" height="${HEIGHT}" class="v-span" :style="{opacity: 0.12 + 0.4 * span[2]}"/>
                <path :d="path(channel)" class="v-line"/>
                <line v-if="cursor !== null" :x1="x(cursor)" :x2="x(cursor)" y1="0" y2="${HEIGHT}" class="v-cursor"/>
              </g>
            </g>
            <text x="${LEFT}" :y="plotHeight - 3" class="v-axis">0</text>
            <text :x="width - ${RIGHT}" :y="plotHeight - 3" text-anchor="end" class="v-axis">{{ verdict.plot.length - 1 }}</text>
            <text :x="width / 2" :y="plotHeight - 3" text-anchor="middle" class="v-axis">time point of the window{{ cursor === null ? "" : ": " + cursor }}</text>
          </svg>
          <p class="v-hint" v-if="verdict.plot.channels_total > verdict.plot.channels.length">The {{ verdict.plot.channels.length }} channels that contribute most, of {{ verdict.plot.channels_total }}.</p>
          <p class="v-hint" v-if="!verdict.plot.span.length">No span stands out in the anomaly map.</p>
        </section>

        <section v-if="verdict.kind === 'tabular'" class="v-block">
          <table class="v-features">
            <thead><tr><th>Feature</th><th class="v-number">Value</th><th>Contribution</th></tr></thead>
            <tbody>
              <tr v-for="feature in verdict.features" :key="feature.name">
                <td><span class="v-cut" :title="feature.name">{{ feature.name }}</span></td>
                <td class="v-number">{{ feature.value }}</td>
                <td><div class="v-bar-cell"><span class="v-meter"><i :style="{width: 100 * (feature.share || 0) + '%'}"></i></span><span class="v-number v-share">{{ percent(feature.share) }}</span></div></td>
              </tr>
            </tbody>
          </table>
          <p class="v-hint" v-if="verdict.features_total > verdict.features.length">The first {{ verdict.features.length }} of {{ verdict.features_total }} features.</p>
        </section>

        <section class="v-block">
          <h3>Opinions</h3>
          <table class="v-opinions">
            <thead><tr><th>Who</th><th class="v-number">Score</th><th class="v-number" title="How often a normal sample looks at least this odd">As odd as</th><th title="Each third of the bar is a factor of a thousand in the p-value">Rarity</th></tr></thead>
            <tbody>
              <tr class="v-edge"><td>Edge<small>{{ verdict.artefact }}</small></td><td class="v-number">{{ verdict.edge_score_words }}</td><td class="v-number" :title="verdict.edge.exact">{{ verdict.edge.words }}</td><td><span class="v-meter"><i :style="{width: 100 * verdict.edge.rarity + '%'}"></i></span></td></tr>
              <tr class="v-fused"><td>Cloud, fused</td><td></td><td class="v-number" :title="verdict.fused.exact">{{ verdict.fused.words }}</td><td><span class="v-meter"><i :style="{width: 100 * verdict.fused.rarity + '%'}"></i></span></td></tr>
              <tr v-for="opinion in verdict.opinions" :key="opinion.analyzer"><td class="v-inner">{{ opinion.analyzer }}</td><td class="v-number">{{ opinion.score_words }}</td><td class="v-number" :title="opinion.exact">{{ opinion.words }}</td><td><span class="v-meter"><i :style="{width: 100 * opinion.rarity + '%'}"></i></span></td></tr>
            </tbody>
          </table>
        </section>

        <section class="v-block">
          <h3>Facts</h3>
          <dl class="v-facts">
            <template v-for="fact in facts" :key="fact[0]"><dt>{{ fact[0] }}</dt><dd :title="fact[2] || ''">{{ fact[1] }}</dd></template>
          </dl>
        </section>
      </div>
    </aside>
  `,
  emits: ["close"],
  props: { verdict: Object, notice: String, whole_page: Boolean },
  data() {
    return { by: "cloud", shown: true, opacity: 75, cursor: null, width: 560, imageFailed: "" };
  },
  setup() {
    return { decisions };
  },
  mounted() {
    window.addEventListener("keydown", this.onKey);
    // The plot is drawn in the pixels it has, so that its text keeps its size on any screen.
    this.watcher = new ResizeObserver(this.measure);
    this.watcher.observe(document.body);
    this.measure();
  },
  updated() {
    this.measure();
  },
  unmounted() {
    this.watcher.disconnect();
    window.removeEventListener("keydown", this.onKey);
  },
  watch: {
    verdict(now, before) {
      this.cursor = null;
      if (now && before && now.sample_id !== before.sample_id && this.$refs.body) this.$refs.body.scrollTop = 0;
    },
  },
  computed: {
    map() {
      const v = this.verdict;
      return (this.by === "edge" ? v.edge_map || v.cloud_map : v.cloud_map || v.edge_map) || "";
    },
    canvasWidth() {
      return `calc(${this.whole_page ? 72 : 52}vh * ${this.verdict.width_px / this.verdict.height_px})`;
    },
    frameColumns() {
      const count = this.verdict.frames.length;
      return count > 6 ? 4 : count > 4 || count === 3 ? 3 : Math.min(count, 2);
    },
    frameHint() {
      const { frames, frames_total: total, cloud_map: cloud, edge_map: edge } = this.verdict;
      const count = total === 1 ? "One frame" : frames.length < total ? `${frames.length} of ${total} frames` : `${total} frames`;
      const parts = [total === 1 ? count : `${count} in the order of time`];
      if (frames.some((frame) => frame.share !== null)) parts.push("with their shares of the anomaly");
      return `${parts.join(", ")}.${(cloud || edge) && total > 1 ? " The heatmap belongs to the last frame." : ""}`;
    },
    plotHeight() {
      return this.verdict.plot.channels.length * (HEIGHT + 18) + 18;
    },
    facts() {
      const v = this.verdict;
      return [
        ["Device", v.device_id],
        ["Source", v.source_id],
        ["Origin", v.origin],
        ["Modality", v.modality],
        ["Captured", clock(v.captured_at_s), exact(v.captured_at_s)],
        ["Received", clock(v.received_at_s), exact(v.received_at_s)],
        ["Judged", clock(v.judged_at_s), exact(v.judged_at_s)],
        ["Latency", `${v.latency} (${v.latency_parts})`],
        ["Edge bundle", v.edge_bundle_id],
        ["Calibration", v.calibration_id],
        ["Cloud bundle", v.bundle_id],
        ["Payload", v.payload_words],
        ["Sample id", v.sample_id],
      ];
    },
  },
  methods: {
    percent,
    onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.verdict || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
      if (event.key === "h") this.shown = !this.shown;
    },
    measure() {
      const width = this.$refs.plot?.parentElement.clientWidth;
      if (width && width !== this.width) this.width = width;
    },
    show(by) {
      this.by = by;
      this.shown = true;
    },
    x(time) {
      const last = Math.max(1, this.verdict.plot.length - 1);
      return LEFT + (Math.min(Math.max(time, 0), last) / last) * (this.width - LEFT - RIGHT);
    },
    path(channel) {
      const known = channel.points.map((point) => point[1]).filter((value) => value !== null);
      const low = Math.min(...known), high = Math.max(...known);
      let drawing = false;
      return channel.points.map(([time, value]) => {
        if (value === null) {
          drawing = false;
          return "";
        }
        const share = high > low ? (value - low) / (high - low) : 0.5;
        const command = `${drawing ? "L" : "M"}${this.x(time).toFixed(1)} ${(HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)).toFixed(1)}`;
        drawing = true;
        return command;
      }).join("");
    },
    point(event) {
      const box = event.currentTarget.getBoundingClientRect();
      const share = ((event.clientX - box.left) - LEFT) / (this.width - LEFT - RIGHT);
      this.cursor = Math.round(Math.min(1, Math.max(0, share)) * (this.verdict.plot.length - 1));
    },
    readout(channel) {
      const known = channel.points.filter((point) => point[1] !== null);
      if (!known.length) return "no values";
      if (this.cursor !== null) {
        const near = known.reduce((best, point) => (Math.abs(point[0] - this.cursor) < Math.abs(best[0] - this.cursor) ? point : best));
        return near[1].toPrecision(4);
      }
      const values = known.map((point) => point[1]);
      const range = `${Math.min(...values).toPrecision(3)} to ${Math.max(...values).toPrecision(3)}`;
      return channel.share === null ? range : `${percent(channel.share)} of the anomaly, ${range}`;
    },
  },
};
