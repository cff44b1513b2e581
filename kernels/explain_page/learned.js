// LeNet's learned filters, and what they make of an image, convolution by convolution.
"use strict";
const learned = (() => {
  const { element, view } = grids;
  const { range, written } = arrays;
  const TOLERANCE = 1e-4; // float32 in the file against float64 of the kernel

  const unpack = ({ extents, values }) => ({ extents, values: arrays.decode(values) });

  function stage(data, number, place) {
    const { name, padding } = data;
    const [x, w, b, y, pooled] = ["x", "w", "b", "y", "pooled"].map((key) => unpack(data[key]));
    const [filters, channels, r, s] = w.extents, [, height, width] = x.extents;
    const plane = (array, at) => {
      const size = array.extents.at(-1) * array.extents.at(-2);
      return array.values.subarray(at * size, (at + 1) * size);
    };
    // Every plane of an array in one scale of grey; filters with 0 in the middle.
    function greys(array) {
      const extreme = (choice) => array.values.reduce((a, value) => choice(a, value));
      const low = extreme(Math.min), high = extreme(Math.max), most = Math.max(-low, high);
      const scale = array === w ? [-most, most] : [low, high];
      const [rows, columns] = array.extents.slice(-2);
      return range(array.values.length / (rows * columns)).map((at) =>
        maps.grey(plane(array, at), rows, columns, ...scale));
    }
    view(place, () => `lenet-${name}`, ({ body, tell }) => {
      let chosen = [0, Math.floor(y.extents[1] / 2), Math.floor(y.extents[2] / 2)];
      const all = [];
      // The planes of an array from first() on, `count` of them.
      function row(text, array, count, side, { first = () => 0, each = () => ({}) } = {}) {
        element("h4", body, { textContent: text });
        const line = element("div", body, { className: "equation" }), pictures = greys(array);
        range(count).forEach((at) => all.push(maps.map(line, {
          label: `${text}, ${at}`, caption: () => String(at), side,
          extents: array.extents.slice(-2), picture: () => pictures[first() + at], ...each(at),
        })));
      }
      row(`Input of ${name}`, x, channels, channels > 1 ? 98 : 168, {
        each: () => ({
          frame: () => ({
            rows: [chosen[1] - padding, chosen[1] - padding + r - 1],
            columns: [chosen[2] - padding, chosen[2] - padding + s - 1],
          }),
        }),
      });
      if (channels === 1) {
        row(`${filters} learned filters`, w, filters, 70, {
          each: (at) => ({
            frame: () => (chosen[0] === at ? { rows: [0, r - 1], columns: [0, s - 1] } : null),
          }),
        });
      } else {
        row(`The chosen map's filter: ${channels} channels`, w, channels, 70,
          { first: () => chosen[0] * channels });
      }
      row(`Feature maps of ${name}`, y, filters, filters > 6 ? 100 : 140, {
        each: (k) => ({
          label: `map ${k} of ${name}; the arrow keys go from unit to unit`,
          at: () => (chosen[0] === k ? chosen.slice(1) : null),
          pick: (p, q) => choose(k, p, q),
        }),
      });
      row("After activation and pooling", pooled, filters, 70);
      function choose(k, p, q) {
        chosen = [k, p, q];
        all.forEach((one) => one.update());
        const each = range(channels).map((c) => {
          let sum = 0;
          for (let i = 0; i < r; i++) {
            for (let j = 0; j < s; j++) {
              const h = p - padding + i, v = q - padding + j;
              if (h < 0 || h >= height || v < 0 || v >= width) continue;
              sum += plane(x, c)[h * width + v] * plane(w, k * channels + c)[i * s + j];
            }
          }
          return sum;
        });
        const sum = each.reduce((a, c) => a + c, 0) + b.values[k];
        const given = plane(y, k)[p * y.extents[2] + q];
        const tolerance = TOLERANCE * (1 + Math.abs(given));
        tell(`Map ${k}, unit (${p}, ${q}): ${channels} x ${r}x${s} products sum to `
          + `${arrays.summed(each)}, bias ${written(b.values[k])}; together ${written(sum)}. `
          + arrays.judged(sum, given, tolerance));
      }
      choose(...chosen);
    });
  }

  return { stage };
})();
