// Playback of a clip with a cursor on the curve of its frames' shares. It uses the pictures of the frames below it.

export function dressPlayer(player) {
  const pictures = [...player.parentElement.querySelectorAll(".v-frames .v-frame img:first-child")];
  const captions = [...player.parentElement.querySelectorAll(".v-frames figcaption")];
  const screen = player.querySelector(".v-screen .v-base");
  const map = player.querySelector(".v-screen .v-map"); // it belongs to the last frame
  const seek = player.querySelector(".v-seek");
  const button = player.querySelector(".v-play");
  const cursor = player.querySelector(".v-cursor");
  const curve = player.querySelector(".v-curve");
  const last = pictures.length - 1;
  let shown = last;
  let timer = null;
  if (last < 1) return;
  player.hidden = false;
  player.style.setProperty("--ratio", player.dataset.ratio);

  const show = (place) => {
    shown = Math.min(last, Math.max(0, place));
    screen.src = pictures[shown].src;
    screen.alt = pictures[shown].alt;
    if (map) map.hidden = shown !== last;
    seek.value = shown;
    player.querySelector("output").textContent = pictures[shown].alt.replace("Frame ", "");
    seek.setAttribute("aria-valuetext", captions[shown].textContent.trim());
    for (const end of ["x1", "x2"]) cursor?.setAttribute(end, (1000 * shown) / last);
  };
  const pause = () => {
    clearInterval(timer);
    timer = null;
    button.setAttribute("aria-pressed", "false");
    button.textContent = "▶ Play";
  };
  const play = () => {
    for (const picture of pictures) picture.loading = "eager";
    const frame_ms = Math.max(60, 1000 * Number(player.dataset.frameS));
    timer = setInterval(() => {
      if (!player.isConnected) pause();
      else show(shown === last ? 0 : shown + 1);
    }, frame_ms);
    button.setAttribute("aria-pressed", "true");
    button.textContent = "❚❚ Pause";
  };
  const toggle = () => (timer ? pause() : play());

  button.addEventListener("click", toggle);
  seek.addEventListener("input", () => {
    pause();
    show(Number(seek.value));
  });
  curve?.addEventListener("click", (event) => {
    const box = curve.getBoundingClientRect();
    pause();
    show(Math.round(((event.clientX - box.left) / box.width) * last));
  });
  player.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ",": -1, ".": 1 }[event.key];
    if (step) {
      pause();
      show(shown + step);
    } else if (event.key === " " && event.target !== button) {
      toggle();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  show(last);
}
