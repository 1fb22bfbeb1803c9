// Swipe of a row on a touch screen: to the right real, to the left a false alarm.

const BEGIN_PX = 14;
const DECIDE_SHARE = 0.32;

export function addSwipe(page, decide, isAllowed) {
  let drag = null;
  page.addEventListener("pointerdown", (event) => {
    const row = event.target.closest(".r-row");
    if (row) delete row.dataset.dragged;
    if (!row || event.pointerType === "mouse" || !isAllowed()) return;
    drag = { row, id: event.pointerId, x: event.clientX, y: event.clientY, by: 0 };
  });
  page.addEventListener("pointermove", (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    const by = event.clientX - drag.x;
    if (!drag.by && Math.abs(by) < BEGIN_PX) return;
    if (!drag.by && Math.abs(event.clientY - drag.y) > Math.abs(by)) {
      drag = null;
      return;
    }
    drag.by = by;
    drag.row.dataset.dragged = "1"; // a click that follows does not open it
    drag.row.classList.add("r-dragged");
    drag.row.classList.toggle("r-right", by > 0);
    drag.row.classList.toggle("r-left", by < 0);
    drag.row.querySelector(".r-slide").style.transform = `translateX(${by}px)`;
  });
  const end = (event) => {
    if (!drag || event.pointerId !== drag.id) return;
    const { row, by } = drag;
    drag = null;
    row.classList.remove("r-dragged", "r-left", "r-right");
    row.querySelector(".r-slide").style.transform = "";
    const isFar = Math.abs(by) > DECIDE_SHARE * row.clientWidth;
    if (event.type === "pointerup" && isFar) decide(row, by > 0 ? "real" : "false_alarm");
  };
  page.addEventListener("pointerup", end);
  page.addEventListener("pointercancel", end);
}
