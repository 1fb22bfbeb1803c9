// Page of one verdict, which waits for a verdict that does not exist yet.
import { hasModifier, isText } from "./frame.js";
import { start } from "./live.js";
import { addMisses } from "./miss.js";
import { keepCurrent } from "./parts.js";
import { dressShare } from "./share.js";
import { dress, toggleHeatmap } from "./verdict.js";

const page = document.querySelector(".v-detail");
if (page) dress(page);
dressShare();
addMisses(() => location.reload());
keepCurrent(".v-detail[data-waits]", () => `/parts${location.pathname}?whole_page=true`, "verdicts", 0, dress);
document.addEventListener("keydown", (event) => {
  if (event.key === "h" && !hasModifier(event) && !isText(event.target) && !event.target.matches?.("select")) toggleHeatmap();
});
start();
