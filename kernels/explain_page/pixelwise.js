// 1x1 convolutions: the same small network at every pixel, from its channels to others.
"use strict";
const pixelwise = (() => {
  const { element, grid, view } = grids;
  const { range, written } = arrays;

  function perceptron(data, place, name) {
    const { height, width, planes, layers } = data; // planes[i]: channels of pixels before layer i
    view(place, name, ({ body, tell }) => {
      let chosen = [1, 1];
      const all = [], pixel = () => chosen[0] * width + chosen[1];
      const choose = (i, j) => {
        chosen = [i, j];
        all.forEach((one) => one.update());
        tell(...layers.map(({ w, b }, i) => {
          const x = planes[i].map((plane) => plane[pixel()]), y = layers[i].y[0][pixel()];
          const sum = w[0].reduce((total, weight, c) => total + weight * x[c], b[0]);
          const products = w[0].map((weight, c) => arrays.times(x[c], weight)).join(" + ");
          return `Layer ${i + 1}, unit 0 at pixel (${chosen.join(", ")}): ${products}, `
            + `bias ${b[0]}; sum ${sum}. ${arrays.judged(sum, y)}`;
        }));
      };
      const line = () => element("div", body, { className: "equation" });
      const image = (parent, caption, plane) => all.push(grid(parent, {
        label: `${caption}; the arrow keys go from pixel to pixel`, caption: () => caption,
        heads: false, rows: () => range(height), columns: () => range(width),
        cell: (i, j) => [written(plane[i * width + j]), ""], at: () => chosen, pick: choose,
      }));
      const matrix = (parent, caption, rows, columns, value, marks = "") => all.push(grid(parent, {
        label: caption, caption: () => `${caption}: ${rows}x${columns}`, heads: false,
        rows: () => range(rows), columns: () => range(columns),
        cell: (i, j) => [value(i, j), marks],
      }));
      const sign = (parent, textContent) =>
        element("span", parent, { className: "sign", textContent });
      const images = line();
      planes[0].forEach((plane, c) => image(images, `Input, channel ${c}`, plane));
      layers.forEach(({ w, b, y }, i) => {
        const one = line(), last = i === layers.length - 1;
        matrix(one, `W${i + 1}`, w.length, w[0].length, (k, c) => w[k][c]);
        sign(one, "·");
        matrix(one, i ? "hidden" : "pixel", w[0].length, 1, (c) => planes[i][c][pixel()], "tap");
        sign(one, "+");
        matrix(one, `b${i + 1}`, w.length, 1, (k) => b[k]);
        sign(one, "=");
        matrix(one, `y${i + 1}`, w.length, 1, (k) => y[k][pixel()], last ? "tap" : "");
        if (last) return;
        sign(one, "ReLU");
        matrix(one, "hidden", w.length, 1, (k) => planes[i + 1][k][pixel()], "tap");
      });
      const outputs = line();
      layers.at(-1).y.forEach((plane, k) => image(outputs, `Output, channel ${k}`, plane));
      choose(...chosen);
    });
  }

  return { perceptron };
})();
