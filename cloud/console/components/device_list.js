// One page of devices: health, counters, running bundles and warnings.
import { age, exact, secondsSince } from "vedette_format";

export default {
  template: `
    <section class="v-devices">
      <article v-for="device in devices" :key="device.device_id" class="v-device" :class="'h-' + device.health.replace(' ', '-')">
        <header>
          <h2 class="v-cut" :title="device.device_id">{{ device.device_id }}</h2>
          <span class="v-health" :class="'h-' + device.health.replace(' ', '-')">{{ device.health }}</span>
          <span class="v-space"></span>
          <a class="v-button" :href="'/?device=' + encodeURIComponent(device.device_id)">Verdicts</a>
        </header>
        <p class="v-seen">
          <template v-if="device.heartbeat_at_s !== null"><span :title="exact(device.heartbeat_at_s)">heartbeat {{ age(now_s + elapsed_s - device.heartbeat_at_s) }} ago</span>, agent {{ device.agent_version || "of unknown version" }}</template>
          <template v-else>enrolled <span :title="exact(device.enrolled_at_s)">{{ age(now_s + elapsed_s - device.enrolled_at_s) }} ago</span></template>
        </p>
        <p class="v-seen">site {{ device.site }}, group {{ device.group }}</p>
        <p v-if="device.advice" class="v-notice">{{ device.advice }}</p>
        <ul v-if="device.warnings.length" class="v-warnings"><li v-for="(warning, place) in device.warnings" :key="place">{{ warning }}</li></ul>
        <dl class="v-counters">
          <div v-for="(value, name) in device.figures" :key="name" :class="{'v-bad': device.alarming.includes(name)}"><dt>{{ name }}</dt><dd class="v-number">{{ value }}</dd></div>
        </dl>
        <p class="v-decisions">
          <a v-for="name in ['anomalous', 'normal', 'undecided']" :key="name" class="v-decision" :class="['d-' + name, {'v-zero': !device.decisions[name]}]" :href="'/?decision=' + name + '&device=' + encodeURIComponent(device.device_id)">{{ device.decisions[name] }} {{ name }}</a>
        </p>
        <table v-if="device.running.length" class="v-running">
          <thead><tr><th>Source</th><th>State</th><th>Bundle</th><th>Artefact</th></tr></thead>
          <tbody><tr v-for="item in device.running" :key="item.source_id">
            <td><span class="v-cut" :title="item.source_id">{{ item.source_id }}</span></td>
            <td :class="{'v-warn': item.source_state && item.source_state !== 'running'}">{{ item.source_state || "–" }}</td>
            <td><a v-if="item.bundle_id" class="v-cut" :href="'/bundle/' + encodeURIComponent(item.bundle_id)" :title="item.bundle_id">{{ item.bundle_id }}</a><span v-else>–</span><small :class="{'v-warn': item.state !== 'current'}">{{ item.state }}</small></td>
            <td>{{ item.artefact }}</td>
          </tr></tbody>
        </table>
        <p v-else class="v-hint">No bundle is running here. Publish one of the name its source asks for: <code>vedette cloud publish BUNDLE --config cloud.toml</code></p>
      </article>
      <p v-if="after || following" class="v-seen">
        <a v-if="after" class="v-button" href="/devices">First devices</a>
        <a v-if="following" class="v-button" :href="'/devices?after=' + encodeURIComponent(following)">More devices ›</a>
      </p>
      <div v-if="!devices.length && empty" class="v-empty">
        <h2>{{ empty.title }}</h2>
        <p v-for="line in empty.lines" :key="line">{{ line }}</p>
        <ol><li v-for="step in empty.steps" :key="step.command">{{ step.text }}<code>{{ step.command }}</code></li></ol>
      </div>
    </section>
  `,
  props: { devices: Array, now_s: Number, empty: Object, after: String, following: String },
  mixins: [secondsSince("now_s")],
  methods: { age, exact },
};
