// Page of all groups.
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";

start();
