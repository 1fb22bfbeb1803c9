// Page of one bundle.
import "./frame.js";
import { start } from "./live.js";
import { keepCurrent } from "./parts.js";

keepCurrent(".v-bundle", () => `/parts${location.pathname}`, "store", 2000);
start();
