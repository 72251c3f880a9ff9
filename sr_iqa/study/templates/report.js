// A tile opens large; left and right then flip through the same place in the set's other pictures, so that differences blink.
const dialog = document.getElementById("viewer");
let tiles = [], at = 0;
function show(i) {
  at = (i + tiles.length) % tiles.length;
  const tile = tiles[at], image = dialog.querySelector("img");
  image.src = tile.querySelector("img").src;
  image.alt = tile.querySelector("img").alt;
  dialog.querySelector("b").textContent = tile.querySelector("b").textContent;
  dialog.querySelector("span").textContent = tile.querySelector("span").textContent;
}
document.querySelectorAll(".tile").forEach((tile) => tile.addEventListener("click", () => {
  tiles = [...tile.closest(".set").querySelectorAll(".tile")];
  show(tiles.indexOf(tile));
  dialog.showModal();
}));
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") show(at + 1);
  if (event.key === "ArrowLeft") show(at - 1);
});
dialog.querySelector("[data-step='-1']").addEventListener("click", () => show(at - 1));
dialog.querySelector("[data-step='1']").addEventListener("click", () => show(at + 1));
dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
