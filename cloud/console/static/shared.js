// Page of a share link: one verdict without an account.
import { dress } from "./verdict.js";

dress(document.querySelector(".v-detail"));
