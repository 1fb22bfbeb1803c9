// Loaded before the first paint, so that a dark page never flashes white; the console keeps the choice.
const show = () => {
  const wanted = localStorage.getItem("vedette-theme");
  const dark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
};
show();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
