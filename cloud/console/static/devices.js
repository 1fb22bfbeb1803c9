// Page "Devices".
import "./frame.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

keepCurrent(".v-devices", () => `/parts/devices${location.search}`, "store", 2000);
start();
