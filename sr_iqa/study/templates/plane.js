// A plane of two columns: better is right and up. `points` are variants, `curves` run through the scales of a dial; the Gold Standard of
// `up` is a line. With `pick(curve, point)` the points of curves can be chosen; returns their elements, one list for each curve.
const drawPlane = (svg, { lower, across, up, points, curves, gold, pick, label }) => {
  const add = (name, attributes, text, parent = svg) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.textContent = text ?? "";
    parent.append(element);
    return element;
  };
  const ticks = (low, high) => {  // about five round numbers
    const rough = (high - low) / 5, size = 10 ** Math.floor(Math.log10(rough));
    const step = size * [1, 2, 5, 10].find((factor) => factor * size >= rough), digits = Math.max(0, -Math.floor(Math.log10(step)));
    const found = [];
    for (let k = Math.ceil(low / step); k * step <= high; k++) found.push([k * step, (k * step).toFixed(digits)]);
    return found;
  };
  const has = (point) => point.values[across] && point.values[up];
  const shown = points.filter(has), all = [...shown, ...curves.flatMap((curve) => curve.points.filter(has))];
  const axis = (column, from, to, more) => {  // value -> place, with a tenth of the range around all points
    const values = [...all.flatMap((point) => point.values[column]), ...more];
    const margin = 0.1 * (Math.max(...values) - Math.min(...values)) || 1;
    const [low, high] = [Math.min(...values) - margin, Math.max(...values) + margin];
    const [a, b] = lower[column] ? [to, from] : [from, to];
    return { place: (value) => a + ((value - low) / (high - low)) * (b - a), ticks: ticks(low, high) };
  };
  const level = gold[up], x = axis(across, 48, 320, []), y = axis(up, 208, 8, level === undefined ? [] : [level]);
  const place = (point) => [x.place(point.values[across][0]), y.place(point.values[up][0])];
  const bars = (point, colour, width) => {
    const [px, py] = place(point), [, ...ends] = point.values[across], [, ...tops] = point.values[up];
    if (ends.length) add("path", { d: `M${x.place(ends[0])} ${py}H${x.place(ends[1])}`, stroke: colour, "stroke-width": width });
    if (tops.length) add("path", { d: `M${px} ${y.place(tops[0])}V${y.place(tops[1])}`, stroke: colour, "stroke-width": width });
  };
  svg.replaceChildren();
  svg.setAttribute("aria-label", `${up} against ${across}; ${label}`);
  for (const [value, text] of x.ticks) {
    add("path", { d: `M${x.place(value)} 8V208`, stroke: "var(--rule)", "stroke-width": 0.5 });
    add("text", { x: x.place(value), y: 222, "text-anchor": "middle" }, text);
  }
  for (const [value, text] of y.ticks) {
    add("path", { d: `M48 ${y.place(value)}H320`, stroke: "var(--rule)", "stroke-width": 0.5 });
    add("text", { x: 43, y: y.place(value) + 3.5, "text-anchor": "end" }, text);
  }
  add("path", { d: "M48 8V208H320", stroke: "var(--rule)", fill: "none" });
  add("text", { x: 184, y: 242, "text-anchor": "middle" }, directed(lower, across));
  add("text", { transform: "translate(11 108) rotate(-90)", "text-anchor": "middle" }, directed(lower, up));
  if (level !== undefined) {
    add("path", { d: `M48 ${y.place(level)}H320`, stroke: "currentColor", "stroke-dasharray": "4 3" });
    add("text", { x: 318, y: y.place(level) - 3, "text-anchor": "end" }, "Gold Standard");
  }
  const beats = (a, b) => a[0] >= b[0] && a[1] <= b[1] && (a[0] !== b[0] || a[1] !== b[1]);
  const places = shown.map(place), front = places.filter((p) => !places.some((q) => beats(q, p))).sort((p, q) => p[0] - q[0] || q[1] - p[1]);
  if (!pick) add("polyline", { points: front.join(" "), stroke: "currentColor", fill: "none", opacity: 0.5 });
  for (const curve of curves) {
    const dash = curve.dashed ? { "stroke-dasharray": "5 3" } : {};
    add("polyline", { points: curve.points.filter(has).map(place).join(" "), stroke: curve.colour, fill: "none", "stroke-width": 1.5, ...dash });
    if (!pick) curve.points.filter(has).map(place).forEach(([cx, cy]) => add("circle", { cx, cy, r: 2.5, fill: curve.colour, class: "small" }));
  }
  for (const point of shown) bars(point, point.colour, 1.5);
  if (pick) for (const curve of curves) for (const point of curve.points.filter(has)) bars(point, curve.colour, 0.7);
  for (const point of shown) {
    const [px, py] = place(point);
    add("circle", { cx: px, cy: py, r: 6.5, fill: point.colour });
    add("text", { x: px, y: py + 3, "text-anchor": "middle", class: "number" }, point.number);
  }
  const written = [];  // places of scales: one that would stand on another is left out
  const free = (at) => !written.some(([wx, wy]) => Math.abs(wx - at[0]) < 22 && Math.abs(wy - at[1]) < 9) && written.push(at);
  return curves.map((curve, c) => curve.points.map((point, k) => {
    if (!has(point) || !pick) return null;
    const [px, py] = place(point), at = curve.dashed ? [px - 8, py + 11] : [px + 8, py - 5];
    const words = [across, up].map((column) => `${column} ${shortNumber(point.values[column][0])}`).join(", ");
    const name = `${curve.name}, ${curve.sign} = ${point.scale}`;
    const button = add("g", { role: "button", tabindex: 0, class: "pick", "aria-label": `${name}: ${words}`, "aria-pressed": "false" });
    add("title", {}, `${name}: ${words}`, button);
    add("circle", { cx: px, cy: py, r: 12, fill: "transparent" }, "", button);
    add("circle", { cx: px, cy: py, r: 5, fill: curve.colour, class: "spot" }, "", button);
    if (free(at)) add("text", { x: at[0], y: at[1], "text-anchor": curve.dashed ? "end" : "start", class: "scale" }, point.scale, button);
    button.addEventListener("click", () => pick(c, k));
    button.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { pick(c, k); event.preventDefault(); }
    });
    return button;
  }));
};
const directed = (lower, column) => `${column} ${lower[column] ? "↓" : "↑"}`;
const shortNumber = (value) => (value === undefined ? "–" : value.toFixed(Math.abs(value) < 2 ? 3 : 2));
const offerColumns = (select, lower, draw) => {
  select.replaceChildren(...Object.keys(lower).map((name) => new Option(directed(lower, name), name)));
  select.addEventListener("change", draw);
};
