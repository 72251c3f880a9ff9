// A zoom and a place that several pictures share; `factor` gives how much larger than fitting into the stage they are.
const lensOf = (factor) => {
  let x = 0.5, y = 0.5;
  const inside = (value, z) => (z <= 1 ? 0.5 : Math.min(1 - 0.5 / z, Math.max(0.5 / z, value)));
  return {
    get x() { return x; },
    transform() {
      const z = factor();
      [x, y] = [inside(x, z), inside(y, z)];
      return `scale(${z}) translate(${(0.5 - x) * 100}%, ${(0.5 - y) * 100}%)`;
    },
    move(right, down) {  // by shares of the stage
      x -= right / factor();
      y -= down / factor();
    },
  };
};
const dragOf = (lens, box) => (event) => lens.move(event.movementX / box.width, event.movementY / box.height);

// Keys (name -> [range, steps]), the wheel and dragging on a stage; `drag(event, box)` gives what to do with every move. The wheel scrolls the
// page unless Ctrl is down or the stage has been chosen.
const handleStage = (stage, zoom, lens, keys, drag, draw) => {
  const turn = (range, by) => {
    range.value = Number(range.value) + by * Number(range.step);
    range.dispatchEvent(new Event("input"));
  };
  const all = { "+": [zoom, 1], "=": [zoom, 1], "-": [zoom, -1], ...keys };
  const shifts = { ArrowLeft: [0.1, 0], ArrowRight: [-0.1, 0], ArrowUp: [0, 0.1], ArrowDown: [0, -0.1] };
  stage.addEventListener("keydown", (event) => {
    if (event.shiftKey && shifts[event.key]) {
      lens.move(...shifts[event.key]);
      draw();
    } else if (all[event.key]) turn(...all[event.key]);
    else return;
    event.preventDefault();
  });
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && document.activeElement !== stage) return;
    turn(zoom, event.deltaY < 0 ? 1 : -1);
    event.preventDefault();
  }, { passive: false });
  stage.addEventListener("pointerdown", (event) => {
    const follow = drag(event, stage.getBoundingClientRect());
    stage.setPointerCapture(event.pointerId);
    const move = (now) => { follow(now); draw(); };
    stage.addEventListener("pointermove", move);
    stage.addEventListener("lostpointercapture", () => stage.removeEventListener("pointermove", move), { once: true });
    event.preventDefault();
    stage.focus();
  });
};
