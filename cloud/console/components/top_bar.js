// Name, pages, state of the connection to the store, and the theme, which the browser remembers.
import { clock } from "vedette_format";

const THEMES = ["auto", "light", "dark"];

export default {
  template: `
    <header class="v-bar">
      <a class="v-brand" href="/" title="Vedette: live verdicts">
        <svg viewBox="0 0 20 20" width="18" height="18" aria-hidden="true">
          <path d="M10 1.5 17.5 5v5c0 4.4-3 7.4-7.5 8.7C5.5 17.4 2.5 14.4 2.5 10V5z" fill="none" stroke="currentColor" stroke-width="1.6"/>
          <circle cx="10" cy="9.5" r="2.6" fill="currentColor"/>
        </svg>
        <span>Vedette</span>
      </a>
      <nav class="v-nav" aria-label="Pages">
        <a v-for="page in pages" :key="page.path" :href="page.path" :aria-current="page.path === path ? 'page' : null">{{ page.name }}</a>
      </nav>
      <span class="v-space"></span>
      <span v-if="problem" class="v-problem" role="alert" :title="problem"><b>Not up to date.</b> {{ problem }}</span>
      <span v-else-if="read_at_s" class="v-fresh"><i class="v-pulse"></i>as of {{ clock(read_at_s + elapsed_s) }}</span>
      <button type="button" class="v-button" @click="next" :title="'Theme: ' + theme + '. Click for the next one.'">
        <span aria-hidden="true">{{ {auto: "◐", light: "☀", dark: "☾"}[theme] }}</span><span class="v-wide">{{ theme }}</span>
      </button>
    </header>
  `,
  props: { path: String, problem: String, read_at_s: Number },
  data() {
    return {
      elapsed_s: 0,
      pages: [{ path: "/", name: "Live" }, { path: "/devices", name: "Devices" }, { path: "/account", name: "Account" }],
      theme: THEMES.includes(localStorage.getItem("vedette-theme")) ? localStorage.getItem("vedette-theme") : "auto",
    };
  },
  watch: {
    read_at_s() {
      this.shown_at_ms = performance.now();
      this.elapsed_s = 0;
    },
  },
  mounted() {
    window.vedetteTheme();
    this.shown_at_ms = performance.now();
    // The server reports each change at once and a check without one every 10 s: until then nothing has changed.
    this.ticker = setInterval(() => (this.elapsed_s = Math.min((performance.now() - this.shown_at_ms) / 1000, 12)), 1000);
  },
  unmounted() {
    clearInterval(this.ticker);
  },
  methods: {
    clock,
    next() {
      this.theme = THEMES[(THEMES.indexOf(this.theme) + 1) % THEMES.length];
      localStorage.setItem("vedette-theme", this.theme);
      window.vedetteTheme();
    },
  },
};
