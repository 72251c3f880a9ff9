// A plane of two columns: better is right and up. `points` are variants, `curves` run through the scales of a dial; the Gold Standard of
// `up` is a line where it is in the range. The axes fit the points of `fit`, or all with their intervals. With `pick(curve, point)` the
// points of curves can be chosen; returns their elements, one list for each curve. The curve number `chosen` lies on top.
const drawPlane = (svg, { lower, across, up, points, curves, gold, fit, chosen, pick, label }) => {
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${up} against ${across}; ${label}`);
  const add = (name, attributes, text, parent = svg) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text ?? "";
    parent.append(element);
    return element;
  };
  const has = (point) => point.values[across] && point.values[up], level = gold[up];
  const all = [...points, ...curves.flatMap((curve) => curve.points)].filter(has), fitted = fit?.filter(has) ?? [];
  const ends = (column, more) => [...(fitted.length ? fitted.map((point) => point.values[column][0]) : all.flatMap((point) => point.values[column])), ...more];
  const x = axisOf(ends(across, []), 48, 320, lower[across]);
  const y = axisOf(ends(up, level === undefined || fitted.length ? [] : [level]), 208, 8, lower[up]);
  drawAxes(add, x, y, directed(lower, across), directed(lower, up));
  if (level !== undefined && y.holds(level)) {
    add("path", { d: `M48 ${y.place(level)}H320`, stroke: "currentColor", "stroke-dasharray": "4 3" });
    add("text", { x: 318, y: y.place(level) - 3, "text-anchor": "end" }, "Gold Standard");
  }
  const inside = (point) => has(point) && x.holds(point.values[across][0]) && y.holds(point.values[up][0]);
  const place = (point) => [x.place(point.values[across][0]), y.place(point.values[up][0])];
  if (!pick) drawFront(add, points.filter(inside).map(place));
  const order = curves.map((_, c) => c).sort((a, b) => (a === chosen) - (b === chosen));
  add("rect", { x: 48, y: 8, width: 272, height: 200 }, "", add("clipPath", { id: `${svg.id}-inside` }, "", add("defs", {})));
  for (const curve of order.map((c) => curves[c])) {
    const look = { stroke: curve.colour, fill: "none", "stroke-width": 1.5, "clip-path": `url(#${svg.id}-inside)` };
    if (curve.dashed) look["stroke-dasharray"] = "5 3";
    add("polyline", { points: curve.points.filter(has).map(place).join(" "), ...look });
  }
  const bars = (point, colour, width) => {
    const [px, py] = place(point), [, ...wide] = point.values[across], [, ...tall] = point.values[up];
    if (wide.length) add("path", { d: `M${x.place(wide[0])} ${py}H${x.place(wide[1])}`, stroke: colour, "stroke-width": width });
    if (tall.length) add("path", { d: `M${px} ${y.place(tall[0])}V${y.place(tall[1])}`, stroke: colour, "stroke-width": width });
  };
  if (!fitted.length) {
    for (const point of points.filter(has)) bars(point, point.colour, 1.5);
    for (const curve of curves) for (const point of curve.points.filter(has)) bars(point, curve.colour, 0.7);
  }
  for (const point of points.filter(inside)) {
    const [px, py] = place(point);
    add("circle", { cx: px, cy: py, r: 6.5, fill: point.colour });
    add("text", { x: px, y: py + 3, "text-anchor": "middle", class: "number" }, point.number);
  }
  return drawPicks(add, { across, up, curves, order, inside, place, pick });
};

// The points of curves as buttons, those of the last curve in `order` on top and the first to get their scales written.
const drawPicks = (add, { across, up, curves, order, inside, place, pick }) => {
  const written = new Map(), beside = (curve, [px, py]) => (curve.dashed ? [px - 8, py + 11] : [px + 8, py - 5]);
  for (const curve of [...order].reverse().map((c) => curves[c])) {
    for (const point of curve.points.filter(inside)) {  // one that would stand on another is left out
      const at = beside(curve, place(point));
      if (![...written.values()].some(([wx, wy]) => Math.abs(wx - at[0]) < 24 && Math.abs(wy - at[1]) < 11)) written.set(point, at);
    }
  }
  const found = curves.map(() => []);
  for (const c of order) {
    const curve = curves[c];
    found[c] = curve.points.map((point, k) => {
      if (!inside(point)) return null;
      const [cx, cy] = place(point), at = written.get(point);
      const words = [across, up].map((column) => `${column} ${shortNumber(point.values[column][0])}`).join(", ");
      const name = `${curve.name}, ${curve.sign} = ${point.scale}`;
      const button = add("g", { role: "button", tabindex: 0, class: "pick", "aria-label": `${name}: ${words}`, "aria-pressed": "false" });
      add("title", {}, `${name}: ${words}`, button);
      add("circle", { cx, cy, r: 12, fill: "transparent" }, "", button);
      add("circle", { cx, cy, r: 5, fill: curve.colour, class: "spot" }, "", button);
      if (at) add("text", { x: at[0], y: at[1], "text-anchor": curve.dashed ? "end" : "start", class: "scale" }, point.scale, button);
      button.addEventListener("click", () => pick(c, k));
      button.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") { pick(c, k); event.preventDefault(); }
      });
      return button;
    });
  }
  return found;
};

// The points that no other one beats on one column without losing on the other.
const drawFront = (add, places) => {
  const beats = (a, b) => a[0] >= b[0] && a[1] <= b[1] && (a[0] !== b[0] || a[1] !== b[1]);
  const front = places.filter((p) => !places.some((q) => beats(q, p))).sort((p, q) => p[0] - q[0] || q[1] - p[1]);
  add("polyline", { points: front.join(" "), stroke: "currentColor", fill: "none", opacity: 0.5 });
};

const drawAxes = (add, x, y, right, upwards) => {
  for (const [value, text] of x.ticks) {
    add("path", { d: `M${x.place(value)} 8V208`, stroke: "var(--rule)", "stroke-width": 0.5 });
    add("text", { x: x.place(value), y: 222, "text-anchor": "middle" }, text);
  }
  for (const [value, text] of y.ticks) {
    add("path", { d: `M48 ${y.place(value)}H320`, stroke: "var(--rule)", "stroke-width": 0.5 });
    add("text", { x: 43, y: y.place(value) + 3.5, "text-anchor": "end" }, text);
  }
  add("path", { d: "M48 8V208H320", stroke: "var(--rule)", fill: "none" });
  add("text", { x: 184, y: 242, "text-anchor": "middle" }, right);
  add("text", { transform: "translate(11 108) rotate(-90)", "text-anchor": "middle" }, upwards);
};

// Value -> place, with a tenth of the range around all values, and about five round numbers.
const axisOf = (given, from, to, lowerBetter) => {
  const values = given.length ? given : [0, 1];
  const margin = 0.1 * (Math.max(...values) - Math.min(...values)) || 1;
  const [low, high] = [Math.min(...values) - margin, Math.max(...values) + margin], [a, b] = lowerBetter ? [to, from] : [from, to];
  const rough = (high - low) / 5, size = 10 ** Math.floor(Math.log10(rough));
  const step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough), digits = Math.max(0, -Math.floor(Math.log10(step)));
  const ticks = [];
  for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push([k * step, (k * step).toFixed(digits)]);
  return { ticks, place: (value) => a + ((value - low) / (high - low)) * (b - a), holds: (value) => value >= low && value <= high };
};

const directed = (lower, column) => `${column} ${lower[column] ? "↓" : "↑"}`;
const shortNumber = (value) => (value === undefined ? "–" : value.toFixed(Math.abs(value) < 2 ? 3 : 2));
const offerColumns = (select, lower, draw) => {
  select.replaceChildren(...Object.keys(lower).map((name) => new Option(directed(lower, name), name)));
  select.addEventListener("change", draw);
};
const offerBox = (fieldset, text, checked, draw) => {
  const box = Object.assign(document.createElement("input"), { type: "checkbox", checked }), label = document.createElement("label");
  label.append(box, ` ${text}`);
  fieldset.append(label);
  box.addEventListener("change", draw);
  return box;
};
// A checked box for each entry; the last one that is checked stays so.
const offerBoxes = (fieldset, entries, draw) => {
  const boxes = entries.map((entry) => offerBox(fieldset, `${entry.number ? `${entry.number} ` : ""}${entry.name}`, true, () => {
    if (!boxes.some((other) => other.checked)) box(entry).checked = true;
    draw();
  }));
  const box = (entry) => boxes[entries.indexOf(entry)];
  return boxes;
};
