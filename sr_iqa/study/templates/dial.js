// The dial: one slider runs through the outputs that were computed at each scale. A point of a curve moves the slider, the slider marks its point.
const dial = document.getElementById("dial-view");
if (dial) {
  const data = JSON.parse(document.getElementById("dial-data").textContent), svg = dial.querySelector(".dial-plane svg");
  const [across, up] = ["dial-x", "dial-y"].map((id) => document.getElementById(id));
  const [curveChoice, slider, values] = ["dial-curve", "dial-scale", "dial-values"].map((id) => document.getElementById(id));
  const ends = document.getElementById("dial-ends"), pictures = dial.querySelector(".dial-pictures");
  const others = data.points.filter((point) => !data.curves.some((curve) => curve.name === point.name));
  let spots = [], set = null;
  const boxes = [...data.curves, ...others].map((entry) => {  // what is far off would press the rest together
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true }), label = document.createElement("label");
    label.append(box, ` ${entry.number ? `${entry.number} ` : ""}${entry.name}`);
    dial.querySelector("fieldset").append(label);
    box.addEventListener("change", () => { if (!boxes.some((other) => other.checked)) box.checked = true; drawCurves(); });
    return box;
  });
  const seen = (entries, first) => entries.map((entry, k) => (boxes[first + k].checked ? entry : { ...entry, points: [], values: {} }));
  const curve = () => data.curves[Number(curveChoice.value)];
  const scaleName = () => `${curve().sign} = ${curve().points[Number(slider.value)].scale}`;

  const mark = () => spots.forEach((row, c) => row.forEach((spot, k) => {
    spot?.setAttribute("aria-pressed", String(c === Number(curveChoice.value) && k === Number(slider.value)));
  }));
  const drawCurves = () => {
    spots = drawPlane(svg, {
      ...data, across: across.value, up: up.value, curves: seen(data.curves, 0), points: seen(others, data.curves.length), label: "choose a point to see its pictures", pick: (c, k) => turnTo(c, k),
    });
    mark();
  };
  const told = (found) => Object.entries(found).map(([column, value]) => `${directed(data.lower, column)} ${shortNumber(value)}`).join(", ");
  const show = () => {
    const k = Number(slider.value), means = Object.fromEntries([data.q, "psnr_original"].filter((c) => curve().points[k].values[c])
      .map((c) => [c, curve().points[k].values[c][0]]));
    const own = set ? `${set.image}: ${told(set.values[curve().name][k])}; ` : "";
    values.textContent = `${curve().name}, ${scaleName()}. ${own}mean over all images: ${told(means)}`;
    slider.setAttribute("aria-valuetext", `${scaleName()}, ${set ? told(set.values[curve().name][k]) : told(means)}`);
    mark();
    if (set) showPicture(k);
  };
  const chooseCurve = (c) => {
    const scale = curve().points[Number(slider.value)]?.scale ?? 1;
    curveChoice.value = c;
    const scales = curve().points.map((point) => point.scale);
    slider.max = scales.length - 1;
    slider.value = Math.max(scales.indexOf(scale), 0);
    ends.replaceChildren(...scales.map((value, k) => {
      const tick = Object.assign(document.createElement("span"), { textContent: value });
      tick.style.left = `${(100 * k) / Math.max(scales.length - 1, 1)}%`;
      return tick;
    }));
  };
  const turnTo = (c, k) => {
    chooseCurve(c);
    slider.value = k;
    show();
  };

  let showPicture = () => {};
  if (pictures) {
    const [reference, zoom] = ["dial-reference", "dial-zoom"].map((id) => document.getElementById(id));
    const stages = [...pictures.querySelectorAll(".stage")], [output, beside] = stages.map((stage) => stage.querySelector("img"));
    const [below, besideBelow] = pictures.querySelectorAll("figcaption"), lens = lensOf(zoom);
    const draw = () => { for (const image of [output, beside]) image.style.transform = lens.transform(); };
    showPicture = (k) => {
      output.src = set.pool[set.outputs[curve().name][k]];
      output.alt = `output for ${set.image} at ${scaleName()}`;
      below.textContent = `output at ${scaleName()}: ${told(set.values[curve().name][k])}`;
    };
    const showReference = () => {
      beside.src = set.pool[set.references[reference.value]];
      beside.alt = besideBelow.textContent = `${reference.value}, ${set.image}`;
    };
    const thumbs = data.sets.map((entry) => {
      const button = document.createElement("button"), image = document.createElement("img");
      Object.assign(button, { type: "button", className: "thumb", title: entry.gain });
      Object.assign(image, { src: entry.thumbnail, alt: entry.image });
      button.append(image);
      button.addEventListener("click", () => chooseSet(entry));
      return button;
    });
    const chooseSet = (entry) => {
      const kind = reference.value.split(" (")[0];  // the same reference of the next picture, whatever is said of it
      set = entry;
      thumbs.forEach((button, k) => button.setAttribute("aria-pressed", String(data.sets[k] === entry)));
      const names = Object.keys(entry.references);
      reference.replaceChildren(...names.map((name) => new Option(name)));
      reference.value = names.find((name) => name.split(" (")[0] === (kind || "GT original")) ?? names[names.length - 1];
      document.getElementById("dial-about").textContent = [entry.image, entry.gain, entry.cut].filter(Boolean).join("; ");
      showReference();
      draw();
      show();
    };
    document.getElementById("dial-sets").replaceChildren(...thumbs);
    reference.addEventListener("change", showReference);
    zoom.addEventListener("input", draw);
    for (const stage of stages) {
      handleStage(stage, zoom, { ArrowLeft: [slider, -1], ArrowRight: [slider, 1] }, (_, box) => (now) => lens.move(now, box), draw);
    }
    queueMicrotask(() => chooseSet(data.sets[0]));
  }

  curveChoice.replaceChildren(...data.curves.map((entry, c) => new Option(entry.name, c)));
  curveChoice.closest("label").hidden = data.curves.length === 1;
  curveChoice.addEventListener("change", () => { chooseCurve(Number(curveChoice.value)); show(); });
  slider.addEventListener("input", show);
  for (const select of [across, up]) offerColumns(select, data.lower, drawCurves);
  const names = Object.keys(data.lower);
  across.value = names.includes("psnr_original") ? "psnr_original" : names.find((name) => name !== data.q) ?? data.q;
  up.value = data.q;
  chooseCurve(0);
  slider.value = curve().points.findIndex((point) => point.scale === 1);
  drawCurves();
  show();
}
