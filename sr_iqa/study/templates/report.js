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
  let pictures = {}, x = 0.5, y = 0.5;
  const draw = () => {
    const z = Number(zoom.value), half = 0.5 / z;
    x = Math.min(1 - half, Math.max(half, x));
    y = Math.min(1 - half, Math.max(half, y));
    const place = `scale(${z}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    for (const image of [under, over]) image.style.transform = place;
    const at = Number(wipe.value) / 100, seen = x + (at - 0.5) / z;  // the line's place inside the picture
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
  const turn = (range, by) => { range.value = Number(range.value) + by; draw(); };
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [wipe, -2], ArrowRight: [wipe, 2], "+": [zoom, 0.5], "=": [zoom, 0.5], "-": [zoom, -0.5] }[event.key];
    if (step) { turn(...step); event.preventDefault(); }
  });
  stage.addEventListener("wheel", (event) => { turn(zoom, event.deltaY < 0 ? 0.5 : -0.5); event.preventDefault(); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const box = stage.getBoundingClientRect();
    const wiping = Math.abs(event.clientX - box.left - (Number(wipe.value) / 100) * box.width) < 24;
    stage.setPointerCapture(event.pointerId);
    const move = (now) => {
      if (wiping) wipe.value = (100 * (now.clientX - box.left)) / box.width;
      else {
        x -= now.movementX / box.width / Number(zoom.value);
        y -= now.movementY / box.height / Number(zoom.value);
      }
      draw();
    };
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
    event.preventDefault();
    stage.focus();
  });
}

// The plane of any two columns, drawn as the fixed ones: better is right and up.
const plane = document.getElementById("any-plane");
if (plane) {
  const data = JSON.parse(plane.querySelector("script").textContent), svg = plane.querySelector("svg");
  const [across, up] = ["plane-x", "plane-y"].map((id) => document.getElementById(id));
  const add = (name, attributes, text) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text ?? "";
    svg.append(element);
  };
  const ticks = (low, high) => {  // about five round numbers
    const rough = (high - low) / 5, size = 10 ** Math.floor(Math.log10(rough));
    const step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough), digits = Math.max(0, -Math.floor(Math.log10(step)));
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push([k * step, (k * step).toFixed(digits)]);
    return found;
  };
  const boxes = data.points.map((point) => {  // a variant far off would press all others together
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true }), label = document.createElement("label");
    label.append(box, ` ${point.number} ${point.name}`);
    plane.querySelector("fieldset").append(label);
    box.addEventListener("change", () => { if (!shown().length) box.checked = true; draw(); });
    return box;
  });
  const shown = () => data.points.filter((_, k) => boxes[k].checked);
  const axis = (column, from, to, more) => {  // value -> place, with a tenth of the range around all points
    const values = [...shown().flatMap((point) => point.values[column] ?? []), ...more];
    const margin = 0.1 * (Math.max(...values) - Math.min(...values)) || 1;
    const [low, high] = [Math.min(...values) - margin, Math.max(...values) + margin];
    const [a, b] = data.lower[column] ? [to, from] : [from, to];
    return { place: (value) => a + ((value - low) / (high - low)) * (b - a), ticks: ticks(low, high) };
  };
  const arrow = (column) => `${column} ${data.lower[column] ? "↓" : "↑"}`;
  const draw = () => {
    const gold = data.gold[up.value], points = shown().filter((p) => p.values[across.value] && p.values[up.value]);
    const x = axis(across.value, 48, 320, []), y = axis(up.value, 208, 8, gold === undefined ? [] : [gold]);
    const place = (point) => [x.place(point.values[across.value][0]), y.place(point.values[up.value][0])];
    svg.replaceChildren();
    svg.setAttribute("aria-label", `${up.value} against ${across.value}; the figures are in the table`);
    for (const [value, text] of x.ticks) {
      add("path", { d: `M${x.place(value)} 8V208`, stroke: "var(--rule)", "stroke-width": 0.5 });
      add("text", { x: x.place(value), y: 222, "text-anchor": "middle" }, text);
    }
    for (const [value, text] of y.ticks) {
      add("path", { d: `M48 ${y.place(value)}H320`, stroke: "var(--rule)", "stroke-width": 0.5 });
      add("text", { x: 43, y: y.place(value) + 3.5, "text-anchor": "end" }, text);
    }
    add("path", { d: "M48 8V208H320", stroke: "var(--rule)", fill: "none" });
    add("text", { x: 184, y: 242, "text-anchor": "middle" }, arrow(across.value));
    add("text", { transform: "translate(11 108) rotate(-90)", "text-anchor": "middle" }, arrow(up.value));
    if (gold !== undefined) {
      add("path", { d: `M48 ${y.place(gold)}H320`, stroke: "currentColor", "stroke-dasharray": "4 3" });
      add("text", { x: 318, y: y.place(gold) - 3, "text-anchor": "end" }, "Gold Standard");
    }
    const beats = (a, b) => a[0] >= b[0] && a[1] <= b[1] && (a[0] !== b[0] || a[1] !== b[1]);
    const places = points.map(place), front = places.filter((p) => !places.some((q) => beats(q, p))).sort((p, q) => p[0] - q[0] || q[1] - p[1]);
    add("polyline", { points: front.join(" "), stroke: "currentColor", fill: "none", opacity: 0.5 });
    for (const point of points) {
      const [px, py] = place(point), [, ...ends] = point.values[across.value], [, ...tops] = point.values[up.value];
      if (ends.length) add("path", { d: `M${x.place(ends[0])} ${py}H${x.place(ends[1])}`, stroke: point.colour, "stroke-width": 1.5 });
      if (tops.length) add("path", { d: `M${px} ${y.place(tops[0])}V${y.place(tops[1])}`, stroke: point.colour, "stroke-width": 1.5 });
    }
    for (const point of points) {
      const [px, py] = place(point);
      add("circle", { cx: px, cy: py, r: 6.5, fill: point.colour });
      add("text", { x: px, y: py + 3, "text-anchor": "middle", class: "number" }, point.number);
    }
  };
  const names = Object.keys(data.lower);
  for (const select of [across, up]) {
    select.replaceChildren(...names.map((name) => new Option(arrow(name), name)));
    select.addEventListener("change", draw);
  }
  across.value = names.includes("psnr") ? "psnr" : names[0];
  up.value = names.find((name) => name !== across.value && data.gold[name] !== undefined) ?? names[names.length - 1];
  plane.hidden = false;
  draw();
}
