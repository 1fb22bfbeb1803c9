// Page of one device.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";
import { addLiveViews } from "./live_view.js";
import { addMisses } from "./miss.js";
import { keepCurrent } from "./parts.js";

keepCurrent(".v-device-page", () => `/parts${location.pathname}${location.search}`, "store", 5000);
addMisses(() => location.reload());
addLiveViews();
start();
