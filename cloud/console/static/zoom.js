// Zoom and pan of a picture: buttons, keys, double click, drag, pinch, and the wheel with Ctrl.

const MOST = 12;
const STEP = 1.5;
const KEYS = { "+": STEP, "=": STEP, "-": 1 / STEP, "0": 0 };
const MOVES = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export function dressZoom(canvas) {
  canvas.style.setProperty("--ratio", canvas.dataset.ratio);
  const view = { scale: 1, x: 0, y: 0 };
  const inner = canvas.querySelector(".v-zoomed");
  const pointers = new Map();

  const show = () => {
    const { width, height } = canvas.getBoundingClientRect();
    view.scale = Math.min(MOST, Math.max(1, view.scale));
    view.x = Math.min(0, Math.max(width * (1 - view.scale), view.x));
    view.y = Math.min(0, Math.max(height * (1 - view.scale), view.y));
    inner.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
    canvas.classList.toggle("v-near", view.scale > 1);
    canvas.dataset.scale = view.scale.toFixed(2);
  };
  // Zoom by a factor about a point in the canvas, by default its centre; 0 shows all.
  const zoom = (factor, at) => {
    const box = canvas.getBoundingClientRect();
    const x = at ? at.clientX - box.left : box.width / 2;
    const y = at ? at.clientY - box.top : box.height / 2;
    const scale = factor ? Math.min(MOST, Math.max(1, view.scale * factor)) : 1;
    view.x = x - ((x - view.x) * scale) / view.scale;
    view.y = y - ((y - view.y) * scale) / view.scale;
    view.scale = scale;
    show();
  };
  const move = (x, y) => {
    view.x += x;
    view.y += y;
    show();
  };

  const buttons = canvas.querySelector(".v-zoom-buttons");
  buttons.hidden = false;
  buttons.addEventListener("click", (event) => {
    const kind = event.target.closest("button")?.dataset.zoom;
    if (kind) zoom({ in: STEP, out: 1 / STEP, all: 0 }[kind]);
  });
  canvas.addEventListener("dblclick", (event) => {
    if (!event.target.closest("button")) zoom(view.scale > 1 ? 0 : 3, event);
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in KEYS) zoom(KEYS[event.key]);
    else if (event.key in MOVES && view.scale > 1) move(...MOVES[event.key].map((side) => 60 * side));
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return; // the wheel alone scrolls the page
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 200), event);
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button") || (view.scale === 1 && event.pointerType === "mouse")) return;
    pointers.set(event.pointerId, event);
    if (view.scale > 1 || pointers.size > 1) canvas.setPointerCapture(event.pointerId);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    pointers.set(event.pointerId, event);
    if (pointers.size === 1 && view.scale > 1) move(event.clientX - before.clientX, event.clientY - before.clientY);
    if (pointers.size !== 2) return;
    const other = [...pointers.values()].find((each) => each.pointerId !== event.pointerId);
    const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
    zoom(distance(event) / distance(before), middle);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  show();
}
