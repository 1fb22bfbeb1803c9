// One page of verdicts. Rows have one height and columns one width, so the list does not jump. While a row is selected
// or the list is scrolled, the server holds the list and only counts new verdicts.
import { clock, decisions, exact } from "vedette_format";

export default {
  template: `
    <section class="v-list" :class="{'v-beside': opened}">
      <div class="v-scroll" ref="scroll" @scroll.passive="tellHold" tabindex="-1">
        <table class="v-table" aria-label="Verdicts, newest first">
          <colgroup>
            <col v-for="column in columns" :key="column.key" :class="css_class(column)">
          </colgroup>
          <thead>
            <tr>
              <th v-for="column in columns" :key="column.key" :class="css_class(column)" :title="column.hint || null">{{ column.title }}</th>
            </tr>
          </thead>
          <tbody>
            <tr v-for="row in rows" :key="row.sample_id" :ref="'row-' + row.sample_id" :data-sample="row.sample_id"
                :class="['d-' + row.decision, {'v-chosen': row.sample_id === chosen}]" :aria-selected="row.sample_id === chosen"
                @click="open(row.sample_id)">
              <td v-for="column in columns" :key="column.key" :class="[css_class(column), {'v-number': is_number(column)}]" :title="tooltip(row, column)">
                <span v-if="column.kind === 'decision'" class="v-decision" :class="'d-' + row.decision" :title="row.reason">{{ decisions[row.decision] }}</span>
                <span v-else-if="column.kind === 'thumbnail'" class="v-thumb">
                  <img v-if="row.thumbnail.kind === 'picture' && !broken[row.sample_id]" :src="row.thumbnail.url" alt="" loading="lazy" decoding="async" @error="broken[row.sample_id] = true">
                  <span v-else-if="row.thumbnail.kind === 'bars' && row.thumbnail.bars.length" class="v-bars" :title="barsTitle(row)">
                    <i v-for="(bar, place) in row.thumbnail.bars" :key="place" :style="{height: barHeight(row, bar)}"></i>
                  </span>
                  <span v-else class="v-none" title="Nothing to show: the payload has expired or cannot be read">–</span>
                </span>
                <span v-else-if="column.kind === 'route'" class="v-route" :class="'r-' + row.route">{{ row.route }}</span>
                <span v-else-if="column.kind === 'text'" class="v-cut" :title="row[column.key]">{{ row[column.key] }}</span>
                <template v-else>{{ text(row, column) }}</template>
              </td>
            </tr>
          </tbody>
        </table>
        <div v-if="!rows.length && empty" class="v-empty">
          <h2>{{ empty.title }}</h2>
          <p v-for="line in empty.lines" :key="line">{{ line }}</p>
          <ol v-if="empty.steps && empty.steps.length"><li v-for="step in empty.steps" :key="step.command">{{ step.text }}<code>{{ step.command }}</code></li></ol>
        </div>
      </div>
      <footer class="v-foot">
        <button type="button" class="v-button" :disabled="!has_newer && !waiting" @click="newest">Newest<span class="v-wide"> (g)</span></button>
        <button type="button" class="v-button" :disabled="!has_newer" @click="turn('newer')">‹ Newer</button>
        <button type="button" class="v-button" :disabled="!has_older" @click="turn('older')">Older ›</button>
        <span class="v-state" aria-live="polite">
          <template v-if="waiting"><b class="v-waiting">{{ waiting > 99 ? "99+" : waiting }} new</b><span class="v-wide">, held back</span></template>
          <template v-else-if="has_newer">an earlier page</template>
          <template v-else-if="rows.length">{{ rows.length }} newest, live</template>
        </span>
        <span class="v-space"></span>
        <span class="v-legend v-wide">† extrapolated beyond the calibration data</span>
        <span class="v-legend v-wide"><kbd>j</kbd><kbd>k</kbd> move <kbd>Enter</kbd> open <kbd>Esc</kbd> close <kbd>h</kbd> heatmap</span>
      </footer>
    </section>
  `,
  emits: ["open", "turn", "hold"],
  props: { columns: Array, rows: Array, has_older: Boolean, has_newer: Boolean, waiting: Number, opened: String, empty: Object, turned: Number },
  data() {
    return { chosen: "", broken: {}, held: false };
  },
  watch: {
    opened(id) {
      if (id) this.chosen = id;
      this.tellHold();
    },
    rows(rows) {
      if (this.chosen && !rows.some((row) => row.sample_id === this.chosen) && !this.opened) this.chosen = "";
    },
    turned() {
      this.$nextTick(() => {
        this.$refs.scroll.scrollTop = 0;
        if (this.turnedByKey && this.rows.length) this.choose(this.turnedByKey === "older" ? 0 : this.rows.length - 1);
        this.turnedByKey = "";
        this.tellHold();
      });
    },
  },
  mounted() {
    window.addEventListener("keydown", this.onKey);
  },
  unmounted() {
    window.removeEventListener("keydown", this.onKey);
  },
  methods: {
    css_class(column) {
      return "c-" + column.title.toLowerCase();
    },
    is_number(column) {
      return ["p_value", "time", "duration"].includes(column.kind);
    },
    text(row, column) {
      const value = row[column.key];
      return column.kind === "p_value" ? value.words : column.kind === "time" ? clock(value) : value;
    },
    tooltip(row, column) {
      const value = row[column.key];
      return { p_value: () => value.exact, time: () => exact(value), duration: () => row.latency_parts }[column.kind]?.() ?? null;
    },
    onKey(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || /^(input|select|textarea)$/i.test(event.target.tagName)) return;
      const move = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
      if (move !== undefined) {
        event.preventDefault();
        this.move(move);
      } else if (event.key === "Enter" && this.chosen && !/^(a|button)$/i.test(event.target.tagName)) {
        event.preventDefault();
        this.open(this.chosen);
      } else if (event.key === "Escape") {
        this.opened ? this.$emit("open", "") : this.letGo();
      } else if (event.key === "g") {
        this.newest();
      }
    },
    place() {
      return this.rows.findIndex((row) => row.sample_id === this.chosen);
    },
    move(step) {
      const place = this.place() + step;
      if (place < -1 || !this.rows.length) return;
      if (place >= this.rows.length) {
        if (this.has_older) this.turn("older", true);
      } else if (place < 0) {
        if (this.has_newer) this.turn("newer", true);
      } else {
        this.choose(place);
      }
    },
    choose(place) {
      const id = this.rows[place].sample_id;
      this.chosen = id;
      this.tellHold();
      const row = this.$refs["row-" + id];
      (Array.isArray(row) ? row[0] : row)?.scrollIntoView({ block: "nearest" });
      if (this.opened) {
        clearTimeout(this.opening); // while j is held down, open only the last one
        this.opening = setTimeout(() => this.$emit("open", id), 60);
      }
    },
    open(id) {
      this.chosen = id;
      this.$emit("open", id);
    },
    letGo() {
      this.chosen = "";
      this.tellHold();
    },
    turn(direction, byKey = false) {
      if (byKey) this.turnedByKey = direction;
      else if (!this.opened) this.chosen = "";
      this.$emit("turn", direction);
    },
    newest() {
      if (!this.opened) this.chosen = "";
      this.$refs.scroll.scrollTop = 0;
      this.$emit("turn", "newest");
      this.tellHold();
    },
    tellHold() {
      const held = Boolean(this.chosen || this.opened || this.$refs.scroll.scrollTop > 8);
      if (held !== this.held) this.$emit("hold", held);
      this.held = held;
    },
    barHeight(row, bar) {
      const largest = Math.max(...row.thumbnail.bars.map((other) => other.share || 0)) || 1;
      return `${Math.max(5, (100 * (bar.share || 0)) / largest)}%`;
    },
    barsTitle(row) {
      return row.thumbnail.bars.map((bar) => `${bar.name}: ${Math.round(100 * (bar.share || 0))} %`).join("\n");
    },
  },
  setup() {
    return { decisions };
  },
};
