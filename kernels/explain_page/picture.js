// An image through a 3x3 filter: a named one, as conv2d made it, or one that is typed here.
"use strict";
const pictures = (() => {
  const { element, grid, list, view } = grids;
  const { range, written } = arrays;
  const SIDE = 384, OWN = "your own";
  const FIRST = 2; // the Gaussian blur
  const TOLERANCE = 1e-3; // grey values: float32 in the file

  function through(data, place) {
    const { height, width } = data, x = arrays.decode(data.x);
    const named = data.filters.map((one) => ({ ...one, y: arrays.decode(one.y) }));
    let now;
    view(place, () => `filter-${now.name.replace(/[^a-z0-9]+/gi, "-").replace(/-$/, "")}`, start);

    function start({ bar, body, tell }) {
      let chosen = [Math.floor(height / 3), Math.floor(width / 3)], after;
      const names = list(bar, "filter", [...named.map((one) => one.name), OWN], (i) => use(i));
      const pixel = (i, j) => (i < 0 || i >= height || j < 0 || j >= width ? 0 : x[i * width + j]);
      const under = (r, s) => pixel(chosen[0] + r - 1, chosen[1] + s - 1);
      const sum = (w, i, j) => w.reduce((total, row, r) =>
        total + row.reduce((part, weight, s) => part + weight * pixel(i + r - 1, j + s - 1), 0), 0);
      const before = maps.grey(x, height, width, 0, 255);
      const image = (label, picture, others) => maps.map(body, {
        label: `${label}; the arrow keys go from pixel to pixel`, side: SIDE,
        extents: [height, width], picture, at: () => chosen, pick: choose, ...others,
      });
      const all = [image("image", () => before, {
        caption: () => `${data.name}, ${height}x${width}`,
        frame: () => {
          const [rows, columns] = chosen.map((middle) => [middle - 1, middle + 1]);
          return { rows, columns };
        },
      })];
      const middle = element("div", body, { className: "column" });
      const box = element("fieldset", middle, { className: "filter" });
      element("legend", box, { textContent: "Filter (type your own)" });
      const inputs = range(9).map((at) => {
        const input = element("input", box, { type: "number", step: "any" },
          { "aria-label": `weight in row ${Math.floor(at / 3)}, column ${at % 3}` });
        input.addEventListener("input", own);
        return input;
      });
      const patch = (caption, value) => all.push(grid(middle, {
        label: caption, caption: () => caption, heads: false,
        rows: () => range(3), columns: () => range(3),
        cell: (r, s) => [written(value(r, s)), ""],
      }));
      patch("Patch", under);
      patch("Products", (r, s) => under(r, s) * now.filter[r][s]);
      all.push(image("filtered image", () => after, {
        caption: () => `Filtered, ${now.name}` + (isSigned() ? ": mid-grey is 0" : ""),
      }));

      const isSigned = () => Math.abs(now.filter.flat().reduce((a, b) => a + b, 0)) < 1e-9;
      function draw() {
        const [low, high] = isSigned() ? [-255, 255] : [0, 255];
        after = maps.grey(now.y, height, width, low, high);
        choose(...chosen);
      }
      function use(i) {
        if (i === named.length) return own();
        now = named[i];
        now.filter.flat().forEach((weight, at) => (inputs[at].value = Number(weight.toFixed(4))));
        draw();
      }
      function own() {
        names.selectedIndex = named.length;
        const weights = inputs.map((input) => input.valueAsNumber || 0); // nothing typed is NaN
        const filter = range(3).map((r) => weights.slice(3 * r, 3 * r + 3));
        const y = Float32Array.from(range(height * width), (at) =>
          sum(filter, Math.floor(at / width), at % width));
        now = { name: OWN, filter, y };
        draw();
      }
      function choose(i, j) {
        chosen = [i, j];
        all.forEach((one) => one.update());
        const products = now.filter.flatMap((row, r) =>
          row.map((weight, s) => under(r, s) * weight));
        const here = sum(now.filter, i, j), y = now.y[i * width + j];
        const judged = now.name === OWN ? "Worked out in this page."
          : arrays.judged(here, y, TOLERANCE);
        tell(`Pixel (${i}, ${j}): ${arrays.summed(products)}; sum ${written(here)}. ${judged}`);
      }
      names.selectedIndex = FIRST;
      use(FIRST);
    }
  }

  return { through };
})();
