// What several views of a layer are made of: controls, the player, grids of input, output and taps.
"use strict";
const layerGrids = (() => {
  const { element, grid, number, list } = grids;
  const MOST = 40, MOST_TAPS = 12, PACE = 700;

  function controls(layer, bar, planeName) {
    const { shape, entry } = layer;
    list(bar, "padding", entry.variants.map((one) => one.label), (i) => layer.use(i));
    const tileLists = ["rows", "columns"].map((name, axis) => {
      const line = element("span", bar);
      return () => {
        line.replaceChildren();
        const tiles = layer.data.tiles[axis];
        const names = tiles.map(([start, stop]) => `${start} to ${stop - 1}`);
        const select = list(line, `output ${name}`, names, (i) =>
          layer.set(axis ? { q: tiles[i][0] } : { p: tiles[i][0] }));
        select.selectedIndex = tiles.findIndex(([start]) => start === layer.tile()[axis][0]);
      };
    });
    let tilesOf = "";
    const plane = number(bar, planeName, layer.planes - 1, (k) =>
      layer.set(planeName === "filter" ? { k } : { c: k }));
    const channel = planeName === "filter"
      ? number(bar, "channel", shape.c - 1, (c) => layer.set({ c })) : null;
    layer.look(() => {
      const now = JSON.stringify([layer.data.tiles, layer.tile()]);
      if (now !== tilesOf) tileLists.forEach((fill) => fill());
      tilesOf = now;
      const value = planeName === "filter" ? layer.k : layer.c;
      if (document.activeElement !== plane) plane.value = value;
      if (channel && document.activeElement !== channel) channel.value = layer.c;
    });
  }

  // A button, and what the space key does: it plays, or steps where motion is unwanted.
  function player(layer, bar) {
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const button = element("button", bar, { type: "button", textContent: still ? "Step" : "Play" });
    const next = () => layer.step(0, 1, true);
    let timer = null;
    function toggle() {
      if (still) return next();
      button.textContent = timer === null ? "Stop" : "Play";
      clearInterval(timer);
      if (timer !== null) return (timer = null);
      next();
      timer = setInterval(next, PACE);
    }
    button.addEventListener("click", toggle);
    return toggle;
  }

  // `padding` is what a cell of it says.
  function input(layer, body, keys, padding) {
    return grid(body, {
      label: "input with its padding; the arrow keys slide the window", keys,
      caption: () => {
        const { h, w, pad_top, pad_bottom, pad_left, pad_right } = layer.shape;
        const padded = [h + pad_top + pad_bottom, w + pad_left + pad_right];
        const [rows, columns] = layer.region(MOST);
        const part = rows.length < padded[0] || columns.length < padded[1]
          ? `, rows ${rows[0]} to ${rows.at(-1)}, columns ${columns[0]} to ${columns.at(-1)}` : "";
        const wider = padded[0] > h || padded[1] > w ? `, padded ${padded.join("x")}` : "";
        return `Input, channel ${layer.c}: ${h}x${w}${wider}${part}`;
      },
      rows: () => layer.region(MOST)[0],
      columns: () => layer.region(MOST)[1],
      cell: (h, w) => {
        const outside = layer.isPadding(h, w);
        const marks = `${outside ? "pad " : ""}${layer.reads(h, w)}`;
        return [outside ? padding : layer.x(layer.c, h, w), marks];
      },
      at: () => [layer.row(layer.r), layer.column(layer.s)],
      // Over a cell, the output whose window begins nearest.
      pick: (h, w) => {
        const { stride_h, stride_w, pad_top, pad_left } = layer.shape;
        const [height, width] = layer.data.window, [rows, columns] = layer.tile();
        const middle = (at, pad, window, stride, [start, stop]) =>
          arrays.clamp(Math.round((at + pad - (window - 1) / 2) / stride), start, stop - 1);
        layer.set({
          p: middle(h, pad_top, height, stride_h, rows),
          q: middle(w, pad_left, width, stride_w, columns),
        });
      },
      move: (dp, dq) => layer.step(dp, dq),
    });
  }

  function output(layer, body, { caption, text, keys }) {
    return grid(body, {
      label: `${caption().split(":")[0]}; the arrow keys go from output to output`, keys, caption,
      rows: () => arrays.range(layer.tile()[0][1] - layer.tile()[0][0], layer.tile()[0][0]),
      columns: () => arrays.range(layer.tile()[1][1] - layer.tile()[1][0], layer.tile()[1][0]),
      cell: (p, q) => [text(p, q), ""],
      at: () => [layer.p, layer.q],
      pick: (p, q) => layer.set({ p, q }),
      move: (dp, dq) => layer.step(dp, dq),
    });
  }

  // A grid of a filter's extent whose cells are its taps.
  function taps(layer, body, name, channel, value, marks = () => "") {
    const { r, s } = layer.shape;
    return grid(body, {
      label: `${name}; the arrow keys go from tap to tap`,
      caption: () =>
        `${name}: ${r}x${s}${Math.max(r, s) > MOST_TAPS ? `, ${MOST_TAPS} each way at most` : ""}`,
      heads: false,
      rows: () => arrays.range(Math.min(r, MOST_TAPS)),
      columns: () => arrays.range(Math.min(s, MOST_TAPS)),
      cell: (i, j) => [value(i, j), marks(i, j)],
      at: () => (channel() === layer.c ? [layer.r, layer.s] : null),
      pick: (i, j) => layer.set({ c: channel(), r: i, s: j }),
    });
  }

  const onPadding = (layer) => (i, j) =>
    (layer.isPadding(layer.row(i), layer.column(j)) ? "pad" : "");

  return { controls, player, input, output, taps, onPadding };
})();
