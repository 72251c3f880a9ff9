// The dial: one slider runs through the outputs that were computed at each scale. A point of a curve moves the slider, the slider marks its point.
const told = (lower, found) => Object.entries(found ?? {}).map(([column, value]) => `${directed(lower, column)} ${shortNumber(value)}`).join(", ");

// The plane beside the slider; `pick` as drawPlane's. Returns mark(curve, point), which draws what it needs and marks the point.
const dialPlane = (data, pick) => {
  const holder = document.querySelector(".dial-plane"), svg = holder.querySelector("svg"), fieldset = holder.querySelector("fieldset");
  const [across, up] = ["dial-x", "dial-y"].map((id) => document.getElementById(id));
  const names = Object.keys(data.lower), others = data.points.filter((point) => !data.curves.some((curve) => curve.name === point.name));
  let spots = [], at = [0, 0];
  const redraw = () => {
    const seen = (entries, first) => entries.map((entry, k) => (boxes[first + k].checked ? entry : { ...entry, points: [], values: {} }));
    const curves = seen(data.curves, 0), points = seen(others, data.curves.length);
    spots = drawPlane(svg, {
      ...data, across: across.value, up: up.value, curves, points, chosen: at[0], pick, label: "choose a point to see its pictures",
      gold: gold.checked ? data.gold : {}, fit: everything.checked ? undefined : curves[at[0]].points,
    });
    press();
  };
  const press = () => spots.forEach((row, c) => row.forEach((spot, k) => spot?.setAttribute("aria-pressed", String(c === at[0] && k === at[1]))));
  const boxes = offerBoxes(fieldset, [...data.curves, ...others], redraw);
  const [gold, everything] = [["Gold Standard", true], ["all of the range", false]].map((box) => offerBox(fieldset, ...box, redraw));
  for (const select of [across, up]) offerColumns(select, data.lower, redraw);
  across.value = names.includes("psnr_original") ? "psnr_original" : names.find((name) => name !== data.q) ?? data.q;
  up.value = data.q;
  return (c, k) => {
    const other = c !== at[0] || !spots.length, focused = svg.contains(document.activeElement);
    at = [c, k];
    if (other) redraw();
    else press();
    if (focused) spots[c][k]?.focus();
  };
};

// The pictures: thumbnails, the output and a reference under one zoom. Returns { set(), show(curve, point, words) }.
const dialStages = (data, slider, changed) => {
  const pictures = document.querySelector(".dial-pictures");
  if (!pictures) return { set: () => null, show: () => {} };
  const [reference, zoom, written, about] = ["dial-reference", "dial-zoom", "dial-factor", "dial-about"].map((id) => document.getElementById(id));
  const holder = pictures.querySelector(".stages"), stages = [...holder.querySelectorAll(".stage")];
  const [output, beside] = stages.map((stage) => stage.querySelector("img")), [below, besideBelow] = holder.querySelectorAll("figcaption");
  let set = data.sets[0];
  const fitting = () => stages[0].clientWidth / Math.max(...set.size);  // screen pixels for one of the picture's, as a whole
  const lens = lensOf(() => (Number(zoom.value) || fitting()) / fitting());
  const draw = () => {
    const whole = zoom.value === "0";
    written.textContent = whole ? `whole picture (${fitting().toFixed(2)}:1)` : `${zoom.value}:1`;
    for (const image of [output, beside]) {
      image.style.transform = lens.transform();
      image.classList.toggle("smooth", whole);
    }
  };
  const showReference = () => {
    beside.src = set.pool[set.references[reference.value]];
    beside.alt = besideBelow.textContent = `${reference.value}, ${set.image}`;
  };
  const choose = (entry) => {
    const kind = reference.value.split(" (")[0], names = Object.keys(entry.references);  // the same reference, whatever is said of it
    set = entry;
    thumbs.forEach((button, k) => button.setAttribute("aria-pressed", String(data.sets[k] === entry)));
    reference.replaceChildren(...names.map((name) => new Option(name)));
    reference.value = names.find((name) => name.split(" (")[0] === (kind || "GT original")) ?? names[names.length - 1];
    about.textContent = [entry.image, entry.gain, entry.cut].filter(Boolean).join("; ");
    showReference();
    draw();
    changed();
  };
  const thumbs = data.sets.map((entry) => {
    const button = document.createElement("button"), image = document.createElement("img");
    Object.assign(button, { type: "button", className: "thumb", title: entry.gain });
    Object.assign(image, { src: entry.thumbnail, alt: entry.image });
    button.append(image);
    button.addEventListener("click", () => choose(entry));
    return button;
  });
  document.getElementById("dial-sets").replaceChildren(...thumbs);
  reference.addEventListener("change", showReference);
  zoom.addEventListener("input", draw);
  window.addEventListener("resize", draw);
  const keys = { ArrowLeft: [slider, -1], ArrowRight: [slider, 1] };
  for (const stage of stages) handleStage(stage, zoom, lens, keys, (_, box) => dragOf(lens, box), draw);
  const touched = matchMedia("(pointer: coarse)").matches;  // a finger on a part of a picture could not scroll the page
  zoom.value = fitting() < 1 && touched ? 0 : Math.max(1, Math.floor(fitting()));
  const show = (curve, k, words) => {
    holder.hidden = !set.outputs[curve.name];
    if (holder.hidden) return;
    output.src = set.pool[set.outputs[curve.name][k]];
    output.alt = `output for ${set.image} at ${words}`;
    below.textContent = `output at ${words}: ${told(data.lower, set.values[curve.name][k])}`;
  };
  return { set: () => set, show, start: () => choose(set) };
};

if (document.getElementById("dial-view")) {
  const data = JSON.parse(document.getElementById("dial-data").textContent);
  const [choice, slider, values, ends] = ["dial-curve", "dial-scale", "dial-values", "dial-ends"].map((id) => document.getElementById(id));
  const curve = () => data.curves[Number(choice.value)];
  const show = () => {
    const k = Number(slider.value), point = curve().points[k], words = `${curve().sign} = ${point.scale}`, set = pictures.set();
    const means = Object.fromEntries([data.q, "psnr_original"].filter((c) => point.values[c]).map((c) => [c, point.values[c][0]]));
    const own = told(data.lower, set?.values[curve().name]?.[k]);
    values.textContent = `${curve().name}, ${words}. ${own && `${set.image}: ${own}; `}mean over all images: ${told(data.lower, means)}`;
    slider.setAttribute("aria-valuetext", `${words}, ${own || told(data.lower, means)}`);
    mark(Number(choice.value), k);
    pictures.show(curve(), k, words);
  };
  const writeEnds = () => {  // the first and the last scale, and of the others those that have room
    const scales = curve().points.map((point) => point.scale), last = scales.length - 1;
    const place = (k) => (ends.clientWidth * k) / Math.max(last, 1), kept = [0];
    for (let k = 1; k < last; k++) if (place(k) - place(kept[kept.length - 1]) >= 44 && place(last) - place(k) >= 44) kept.push(k);
    ends.replaceChildren(...[...new Set([...kept, last])].map((k) => {
      const tick = Object.assign(document.createElement("span"), { textContent: scales[k] });
      tick.style.left = `${(100 * k) / Math.max(last, 1)}%`;
      return tick;
    }));
  };
  const chooseCurve = (c) => {
    const scale = curve().points[Number(slider.value)]?.scale ?? 1;
    choice.value = c;
    slider.max = curve().points.length - 1;
    slider.value = Math.max(curve().points.findIndex((point) => point.scale === scale), 0);
    writeEnds();
  };
  choice.replaceChildren(...data.curves.map((entry, c) => new Option(entry.name, c)));
  choice.closest("label").hidden = data.curves.length === 1;
  const mark = dialPlane(data, (c, k) => { chooseCurve(c); slider.value = k; show(); });
  const pictures = dialStages(data, slider, () => show());
  choice.addEventListener("change", () => { chooseCurve(Number(choice.value)); show(); });
  slider.addEventListener("input", show);
  window.addEventListener("resize", writeEnds);
  chooseCurve(0);
  slider.value = curve().points.findIndex((point) => point.scale === 1);
  (pictures.start ?? show)();
}
