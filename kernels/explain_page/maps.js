// Planes too large for numbers: a canvas of cells, grey or marked, pointed at as a grid is.
"use strict";
const maps = (() => {
  const SHARPNESS = 2, LINES_FROM = 5; // canvas pixels a CSS pixel; CSS pixels of a cell with lines
  const schemes = matchMedia("(prefers-color-scheme: dark)");

  // Neighbouring numbers of a sorted list as [first, last].
  function runs(list) {
    const found = [];
    for (const one of list) {
      if (found.length && found.at(-1)[1] === one - 1) found.at(-1)[1] = one;
      else found.push([one, one]);
    }
    return found;
  }

  function grey(values, rows, columns, low, high) {
    const picture = document.createElement("canvas");
    Object.assign(picture, { width: columns, height: rows });
    const data = new ImageData(columns, rows);
    for (let at = 0; at < rows * columns; at++) {
      const level = 255 * (values[at] - low) / (high - low || 1);
      data.data.set([level, level, level, 255], 4 * at); // clamped to bytes by its type
    }
    picture.getContext("2d").putImageData(data, 0, 0);
    return picture;
  }

  /* Returns a map with update(). Options beside a grid's label, caption, at, pick, move, keys:
     extents   [rows, columns]
     side      CSS pixels of the longer side, at most
     picture() what `grey` made, or nothing
     seen()    {rows, columns}: sorted lists, marked where both meet; or nothing
     frame()   {rows: [first, last], columns: [first, last]} to outline; or nothing */
  function map(parent, options) {
    const { label, caption, extents, side, picture, seen, frame, at, pick, move, keys } = options;
    const [rows, columns] = extents, ideal = Math.min(side / Math.max(rows, columns), 28);
    const cell = ideal >= 2 ? Math.floor(ideal) : ideal;
    const height = Math.max(rows * cell, 8), width = Math.max(columns * cell, 8);
    const [down, across] = [height / rows, width / columns];
    const box = grids.element("figure", parent, { className: "numbers" });
    const title = grids.element("figcaption", box);
    const roles = pick ? { role: "application", tabindex: 0 } : { role: "img" };
    const canvas = grids.element("canvas", box, {
      width: width * SHARPNESS, height: height * SHARPNESS,
    }, { ...roles, "aria-label": label });
    canvas.style.cssText = `width: ${width}px; height: ${height}px`;
    const context = canvas.getContext("2d");

    // A canvas's rectangle around the first to the last of rows and of columns.
    const rectangle = ([top, bottom], [left, right]) =>
      [left * across, top * down, (right - left + 1) * across, (bottom - top + 1) * down];

    function outline(rowEnds, columnEnds, thick) {
      for (const [colour, line] of [["--paper", thick + 2], ["--ink", thick]]) {
        context.strokeStyle = getComputedStyle(canvas).getPropertyValue(colour);
        context.lineWidth = line;
        context.strokeRect(...rectangle(rowEnds, columnEnds));
      }
    }

    function update() {
      const colour = (name) => getComputedStyle(canvas).getPropertyValue(name);
      title.textContent = caption();
      context.setTransform(SHARPNESS, 0, 0, SHARPNESS, 0, 0);
      context.imageSmoothingEnabled = false;
      context.fillStyle = colour("--shade");
      context.fillRect(0, 0, width, height);
      const drawn = picture?.(), marked = seen?.(), framed = frame?.(), chosen = at?.();
      if (drawn) context.drawImage(drawn, 0, 0, width, height);
      context.fillStyle = colour("--tap");
      for (const rowRun of runs(marked?.rows ?? [])) {
        for (const columnRun of runs(marked.columns)) {
          context.fillRect(...rectangle(rowRun, columnRun));
        }
      }
      if (!drawn) {
        context.strokeStyle = colour("--line");
        context.lineWidth = 1;
        const [i_step, j_step] = cell >= LINES_FROM ? [1, 1] : [rows, columns];
        for (let i = 0; i <= rows; i += i_step) context.strokeRect(0, i * down, width, 0);
        for (let j = 0; j <= columns; j += j_step) context.strokeRect(j * across, 0, 0, height);
      }
      if (marked?.rows.length && marked.columns.length) {
        const ends = (list) => [list[0], list.at(-1)];
        outline(ends(marked.rows), ends(marked.columns), 1);
      }
      if (framed) outline(framed.rows, framed.columns, 1.5);
      if (chosen) outline([chosen[0], chosen[0]], [chosen[1], chosen[1]], 2);
    }

    if (pick) {
      const point = (event) => pick(
        arrays.clamp(Math.floor(event.offsetY / down), 0, rows - 1),
        arrays.clamp(Math.floor(event.offsetX / across), 0, columns - 1));
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
      grids.keys(canvas, move ?? ((di, dj) => {
        const [i, j] = at() ?? [0, 0];
        pick(arrays.clamp(i + di, 0, rows - 1), arrays.clamp(j + dj, 0, columns - 1));
      }), keys);
    }
    schemes.addEventListener("change", update);
    return { update, canvas };
  }

  return { map, grey };
})();
