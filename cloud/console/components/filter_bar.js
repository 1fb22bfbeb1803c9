// Filters of the list. Every change is sent to the server at once, text after a short pause.

export default {
  template: `
    <form class="v-filters" role="search" @submit.prevent="send">
      <label v-for="choice in choices" :key="choice.name">
        <span>{{ choice.label }}</span>
        <select :value="wanted[choice.name]" @change="set(choice.name, $event.target.value)" :class="{'v-set': wanted[choice.name]}">
          <option value="">{{ choice.all }}</option>
          <option v-for="option in choice.options" :key="option[0]" :value="option[0]">{{ option[1] }}</option>
        </select>
      </label>
      <label class="v-search">
        <span>Origin</span>
        <input ref="search" type="search" maxlength="200" placeholder="file name or source  ( / )" title="Origins and sources that begin with the text; *TEXT: anywhere in them" :value="wanted.text" @input="type($event.target.value)" :class="{'v-set': wanted.text}" />
      </label>
      <button type="button" class="v-button" @click="clear" :disabled="!isSet">Clear</button>
    </form>
  `,
  emits: ["change"], // otherwise change events of the fields reach the server too
  props: { filters: Object, choices: Array },
  data() {
    return { wanted: { ...this.unset(), ...this.filters } };
  },
  watch: {
    filters(filters) {
      // While the user types, the field is ahead of the server.
      const text = document.activeElement === this.$refs.search ? this.wanted.text : filters.text;
      this.wanted = { ...this.unset(), ...filters, text };
    },
  },
  computed: {
    isSet() {
      return Object.values(this.wanted).some((value) => value);
    },
  },
  mounted() {
    this.onKey = (event) => {
      const inField = /^(input|select|textarea)$/i.test(event.target.tagName);
      if (event.key === "/" && !inField && !event.ctrlKey && !event.metaKey) {
        event.preventDefault();
        this.$refs.search.focus();
      } else if (event.key === "Escape" && event.target === this.$refs.search) {
        this.$refs.search.blur();
        event.stopPropagation();
      }
    };
    window.addEventListener("keydown", this.onKey, true);
  },
  unmounted() {
    window.removeEventListener("keydown", this.onKey, true);
    clearTimeout(this.pause);
  },
  methods: {
    unset() {
      return { ...Object.fromEntries(this.choices.map((choice) => [choice.name, ""])), text: "" };
    },
    set(name, value) {
      this.wanted = { ...this.wanted, [name]: value };
      this.send();
    },
    type(text) {
      this.wanted = { ...this.wanted, text };
      clearTimeout(this.pause);
      this.pause = setTimeout(this.send, 250);
    },
    clear() {
      this.wanted = this.unset();
      this.send();
    },
    send() {
      clearTimeout(this.pause);
      this.$emit("change", this.wanted);
    },
  },
};
