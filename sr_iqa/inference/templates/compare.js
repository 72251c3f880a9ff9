"use strict";
// One choice of left, right and zoom for all images; each has its own line and place.
const data = JSON.parse(document.getElementById("data").textContent);
const [left, right, zoom] = ["left", "right", "zoom"].map((id) => document.getElementById(id));
const stages = [...document.querySelectorAll(".stage")].map(makeStage);
right.selectedIndex = right.options.length - 1;

function makeStage(stage) {
  const { pictures, notes } = data[stage.dataset.image], names = Object.keys(pictures);
  const [under, over] = stage.querySelectorAll("img"), line = stage.querySelector(".line");
  const wipe = stage.parentElement.querySelector(".wipe input"), note = stage.parentElement.querySelector(".note");
  const tags = [stage.querySelector(".at-left"), stage.querySelector(".at-right")];
  let x = 0.5, y = 0.5;  // the picture's place in the middle of the stage
  const times = () => {  // how much larger the picture is than at fit
    const wanted = Number(zoom.value);
    return wanted && under.naturalWidth ? (wanted * under.naturalWidth) / devicePixelRatio / stage.clientWidth : 1;
  };
  const moves = () => times() > 1.001;
  const draw = () => {
    const k = times(), half = Math.min(0.5, 0.5 / k);
    x = Math.min(1 - half, Math.max(half, x));
    y = Math.min(1 - half, Math.max(half, y));
    for (const image of [under, over]) image.style.transform = `scale(${k}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    const at = Number(wipe.value) / 100, seen = x + (at - 0.5) / k;  // the line's place inside the picture
    over.style.clipPath = `inset(0 0 0 ${seen * 100}%)`;
    under.style.clipPath = `inset(0 ${(1 - seen) * 100}% 0 0)`;  // pictures may be transparent
    line.style.left = `${at * 100}%`;
    stage.classList.toggle("moves", moves());
    stage.classList.toggle("large", Number(zoom.value) >= 2);
  };
  const choose = () => {
    for (const [image, select, tag, other] of [[under, left, tags[0], 0], [over, right, tags[1], 1]]) {
      const name = names.includes(select.value) ? select.value : names[other];
      image.src = pictures[name];
      image.alt = tag.textContent = name;
      if (image === over) note.textContent = notes[name] ?? "";
    }
    draw();
  };
  const put = (value) => { wipe.value = value; draw(); };
  const step = (by) => put(Number(wipe.value) + by);
  const move = (dx, dy) => { x += dx / times(); y += dy / times(); draw(); };
  under.addEventListener("load", () => {  // turned by its EXIF tag, a picture has another shape than its file says
    stage.parentElement.style.setProperty("--ratio", under.naturalWidth / under.naturalHeight);
    draw();
  });
  wipe.addEventListener("input", draw);
  stage.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const places = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    const keys = {
      ArrowLeft: () => step(-2), ArrowRight: () => step(2), "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1),
      0: () => zoomTo(0), 1: () => zoomTo(1), f: () => put(Number(wipe.value) < 50 ? 100 : 0), o: nextOutput,
    };
    const act = event.shiftKey && places[event.key] ? () => move(...places[event.key]) : keys[event.key.toLowerCase()] ?? keys[event.key];
    if (act) { act(); event.preventDefault(); }
  });
  stage.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey) { zoomBy(event.deltaY < 0 ? 1 : -1); event.preventDefault(); }
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const box = stage.getBoundingClientRect();
    const wiping = !moves() || Math.abs(event.clientX - box.left - (Number(wipe.value) / 100) * box.width) < 24;
    let last = event;
    stage.setPointerCapture(event.pointerId);
    const follow = (now) => {
      if (wiping) put((100 * (now.clientX - box.left)) / box.width);
      else move((last.clientX - now.clientX) / box.width, (last.clientY - now.clientY) / box.height);
      last = now;
    };
    const end = () => { for (const kind of ["pointermove", "pointerup", "pointercancel"]) stage.removeEventListener(kind, kind === "pointermove" ? follow : end); };
    stage.addEventListener("pointermove", follow);
    stage.addEventListener("pointerup", end);
    stage.addEventListener("pointercancel", end);
    if (wiping) follow(event);
    event.preventDefault();
    stage.focus({ preventScroll: true });
  });
  return { draw, choose };
}

function drawAll() { for (const stage of stages) stage.draw(); }
function chooseAll() { for (const stage of stages) stage.choose(); }
function zoomBy(by) { zoom.selectedIndex = Math.min(zoom.options.length - 1, Math.max(0, zoom.selectedIndex + by)); drawAll(); }
function zoomTo(value) { zoom.value = value; drawAll(); }
function nextOutput() {
  const first = right.options.length > 1 ? 1 : 0;  // the input is not an output
  right.selectedIndex = right.selectedIndex + 1 < right.options.length ? right.selectedIndex + 1 : first;
  chooseAll();
}

for (const select of [left, right]) select.addEventListener("change", chooseAll);
zoom.addEventListener("change", drawAll);
addEventListener("resize", drawAll);
chooseAll();
