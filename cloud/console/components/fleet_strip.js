// The figures of the whole fleet, above every page. Ages count on between two answers of the server.
import { age, secondsSince } from "vedette_format";

export default {
  template: `
    <section class="v-strip" aria-label="Fleet summary">
      <div class="v-figure" v-for="figure in figures" :key="figure.name" :title="figure.title">
        <span class="v-figure-name">{{ figure.name }}</span>
        <span class="v-figure-value" :class="figure.tone">{{ figure.value }}</span>
        <span class="v-figure-note">{{ figure.note }}</span>
      </div>
    </section>
  `,
  props: { summary: Object },
  mixins: [secondsSince("summary")],
  computed: {
    figures() {
      const s = this.summary;
      if (!s) return ["Devices", "Last heartbeat", "Screened", "Sent", "Upload ratio", "Pending", "Verdicts"].map((name) => ({ name, value: "–", note: "" }));
      const silent = s.devices - s.reporting;
      return [
        { name: "Devices", value: `${s.reporting} of ${s.devices}`, note: "reporting", tone: silent > 0 ? "v-warn" : "", title: silent > 0 ? `${silent} enrolled, but without a recent heartbeat: see Devices` : "" },
        { name: "Last heartbeat", value: s.last_heartbeat_at_s === null ? "never" : age(s.now_s + this.elapsed_s - s.last_heartbeat_at_s), note: s.last_heartbeat_at_s === null ? "" : "ago" },
        { name: "Screened", value: s.screened, note: "samples at the edge" },
        { name: "Sent", value: s.sent, note: s.sent_share, title: "Samples sent to the cloud (forwarded and audited), and their share of those screened" },
        { name: "Upload ratio", value: s.upload_ratio, note: s.uploaded, title: "Bytes sent to the cloud, of the bytes screened" },
        { name: "Pending", value: s.pending, note: s.pending_age ? `oldest ${s.pending_age}` : "none waits", title: "Samples that wait for their verdict" },
        { name: "Verdicts", value: s.verdicts, note: `${s.anomalous} anomalous`, title: s.undecided ? `${s.undecided} undecided: review needed` : "" },
        ...(s.dropped ? [{ name: "Dropped", value: String(s.dropped), note: "by full spools", tone: "v-bad", title: "Samples that devices dropped: see Devices" }] : []),
      ];
    },
  },
};
