// Page "Defect classes".
import "./frame.js";
import "./actions.js";
import { start } from "./live.js";

start();
