// Pages of models: parts that stay current.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

if (document.querySelector(".v-live")) keepCurrent(".v-live", () => `/parts${location.pathname}${location.search}`, "store", 2000);
start();
