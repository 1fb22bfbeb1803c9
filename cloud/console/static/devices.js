// Page of the devices.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

const isTyping = () => document.activeElement?.closest(".v-filters");

keepCurrent(".v-fleet", () => `/parts/devices${location.search}`, "store", 5000, undefined, isTyping);
start();
