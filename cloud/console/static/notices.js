// Page of the notices.
import "./frame.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

keepCurrent(".v-notices", () => `/parts/notices${location.search}`, "store", 5000);
start();
