// A zoom and a place that several pictures share: dragging moves, the wheel and plus and minus zoom.
const lensOf = (zoom) => {
  let x = 0.5, y = 0.5;
  return {
    get x() { return x; },
    transform() {
      const z = Number(zoom.value), half = 0.5 / z;
      x = Math.min(1 - half, Math.max(half, x));
      y = Math.min(1 - half, Math.max(half, y));
      return `scale(${z}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    },
    move(event, box) {
      x -= event.movementX / box.width / Number(zoom.value);
      y -= event.movementY / box.height / Number(zoom.value);
    },
  };
};

// Keys (name -> [range, by]), the wheel and dragging on a stage; `drag(event, box)` gives what to do with every move.
const handleStage = (stage, zoom, keys, drag, draw) => {
  const turn = (range, by) => {
    range.value = Number(range.value) + by;
    range.dispatchEvent(new Event("input"));
  };
  const all = { "+": [zoom, 0.5], "=": [zoom, 0.5], "-": [zoom, -0.5], ...keys };
  stage.addEventListener("keydown", (event) => {
    if (all[event.key]) { turn(...all[event.key]); event.preventDefault(); }
  });
  stage.addEventListener("wheel", (event) => { turn(zoom, event.deltaY < 0 ? 0.5 : -0.5); event.preventDefault(); }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const box = stage.getBoundingClientRect(), follow = drag(event, box);
    stage.setPointerCapture(event.pointerId);
    const move = (now) => { follow(now); draw(); };
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", () => stage.removeEventListener("pointermove", move), { once: true });
    event.preventDefault();
    stage.focus();
  });
};
