// The table: a click on a head sorts by that column, a second one turns the order round; the Gold Standard stays on top.
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.querySelectorAll("thead tr:last-child th")];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const rising = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    const key = (row) => {
      const cell = row.children[column], value = cell.dataset.value;
      return value === undefined ? cell.textContent.trim() : value === "" ? NaN : Number(value);
    };
    const order = (a, b) => {
      const x = key(a), y = key(b);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return (x < y ? -1 : x > y ? 1 : 0) * (rising ? 1 : -1);
    };
    const rows = [...table.tBodies[0].rows], gold = rows.filter((row) => row.classList.contains("gold"));
    table.tBodies[0].append(...gold, ...rows.filter((row) => !gold.includes(row)).sort(order));
  }));
});

// A tile opens large; left and right then flip through the same place in the set's other pictures, so that differences blink.
const viewer = document.getElementById("viewer");
if (viewer) {
  let tiles = [], at = 0;
  const show = (i) => {
    at = (i + tiles.length) % tiles.length;
    const tile = tiles[at], image = viewer.querySelector("img");
    image.src = tile.querySelector("img").src;
    image.alt = tile.querySelector("img").alt;
    viewer.querySelector("b").textContent = tile.querySelector("b").textContent;
    viewer.querySelector("span").textContent = tile.querySelector("span").textContent;
  };
  document.querySelectorAll(".tile").forEach((tile) => tile.addEventListener("click", () => {
    tiles = [...tile.closest(".set").querySelectorAll(".tile")];
    show(tiles.indexOf(tile));
    viewer.showModal();
  }));
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") show(at + 1);
    if (event.key === "ArrowLeft") show(at - 1);
  });
  viewer.querySelector("[data-step='-1']").addEventListener("click", () => show(at - 1));
  viewer.querySelector("[data-step='1']").addEventListener("click", () => show(at + 1));
}
document.querySelectorAll("dialog").forEach((dialog) => {
  dialog.querySelector("[data-close]").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
});

// Two whole pictures of a set under one slider. Both share one zoom and one position, so the same place stays under the line.
const compare = document.getElementById("compare");
if (compare) {
  const wholes = JSON.parse(document.getElementById("wholes").textContent);
  const stage = compare.querySelector(".stage"), line = compare.querySelector(".line");
  const [under, over] = stage.querySelectorAll("img");
  const [left, right, zoom, wipe] = ["left", "right", "zoom", "wipe"].map((id) => document.getElementById(id));
  const lens = lensOf(() => Number(zoom.value));
  let pictures = {};
  const draw = () => {
    const z = Number(zoom.value), place = lens.transform();
    for (const image of [under, over]) image.style.transform = place;
    const at = Number(wipe.value) / 100, seen = lens.x + (at - 0.5) / z;  // the line's place inside the picture
    over.style.clipPath = `inset(0 0 0 ${seen * 100}%)`;
    line.style.left = `${at * 100}%`;
  };
  const choose = () => {
    under.src = pictures[left.value];
    over.src = pictures[right.value];
    under.alt = left.value;
    over.alt = right.value;
  };
  document.querySelectorAll("[data-compare]").forEach((button) => button.addEventListener("click", () => {
    pictures = wholes[button.dataset.compare];
    const names = Object.keys(pictures), kept = [left.value, right.value];
    for (const select of [left, right]) select.replaceChildren(...names.map((name) => new Option(name)));
    left.value = names.includes(kept[0]) ? kept[0] : "GT original" in pictures ? "GT original" : names[0];
    right.value = names.includes(kept[1]) ? kept[1] : names[names.length - 1];
    choose();
    draw();
    compare.showModal();
    stage.focus();
  }));
  for (const select of [left, right]) select.addEventListener("change", choose);
  for (const range of [zoom, wipe]) range.addEventListener("input", draw);
  handleStage(stage, zoom, lens, { ArrowLeft: [wipe, -4], ArrowRight: [wipe, 4] }, (event, box) => {
    const wiping = Math.abs(event.clientX - box.left - (Number(wipe.value) / 100) * box.width) < 24;
    return wiping ? (now) => { wipe.value = (100 * (now.clientX - box.left)) / box.width; } : dragOf(lens, box);
  }, draw);
}

// The plane of any two columns, drawn as the fixed ones: better is right and up.
const plane = document.getElementById("any-plane");
if (plane) {
  const data = JSON.parse(plane.querySelector("script").textContent), svg = plane.querySelector("svg");
  const [across, up] = ["plane-x", "plane-y"].map((id) => document.getElementById(id));
  const boxes = offerBoxes(plane.querySelector("fieldset"), data.points, () => draw());  // a variant far off would press all others together
  const draw = () => drawPlane(svg, {
    ...data, across: across.value, up: up.value, points: data.points.filter((_, k) => boxes[k].checked), label: "the figures are in the table",
  });
  for (const select of [across, up]) offerColumns(select, data.lower, draw);
  const names = Object.keys(data.lower);
  across.value = names.includes("psnr") ? "psnr" : names[0];
  up.value = names.find((name) => name !== across.value && data.gold[name] !== undefined) ?? names[names.length - 1];
  plane.hidden = false;
  draw();
}
