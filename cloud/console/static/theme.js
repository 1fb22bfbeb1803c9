// Loaded before the first paint, so that a dark page never flashes white. The browser keeps the choice.
window.vedetteTheme = () => {
  const wanted = localStorage.getItem("vedette-theme");
  const dark = wanted === "dark" || (wanted !== "light" && matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.dataset.theme = dark ? "dark" : "light";
};
window.vedetteTheme();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", window.vedetteTheme);
document.documentElement.dataset.script = "";
