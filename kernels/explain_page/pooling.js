// Pooling: the window slides over one channel; the maximum, where it is, and the average.
"use strict";
const pools = (() => {
  const { view } = grids;
  const { controls, player, input, output } = layerGrids;
  const MOST_WRITTEN = 12;

  function pooling(layer, place) {
    const { r, s } = layer.shape;
    const [greatest, argmax, mean] = ["max", "argmax", "mean"].map((name) =>
      layer.of(layer.data[name]));
    view(place, () => layer.name("pooling"), ({ bar, body, tell }) => {
      const toggle = player(layer, bar);
      controls(layer, bar, "channel");
      const keys = { " ": toggle };
      const picture = input(layer, body, keys, "-");
      const all = ["maximum", "average"].map((name, i) => output(layer, body, {
        caption: () => {
          const { p, q, c } = layer.shape;
          const first = layer.planes < c ? `, of the first ${layer.planes} of ${c}` : "";
          return `The ${name}, channel ${layer.c}${first}: ${p}x${q}`;
        },
        text: (p, q) => arrays.written([greatest, mean][i](layer.c, p, q)), keys,
      }));
      layer.look(() => {
        const { c, p, q } = layer;
        const at = argmax(c, p, q);
        Object.assign(layer, { r: Math.floor(at / s), s: at % s }); // the input marks the maximum
        picture.update();
        all.forEach((one) => one.update());
        const seen = arrays.range(r * s)
          .map((tap) => [layer.row(Math.floor(tap / s)), layer.column(tap % s)])
          .filter(([h, w]) => !layer.isPadding(h, w)).map(([h, w]) => layer.x(c, h, w));
        const sum = seen.reduce((a, b) => a + b, 0);
        const values = seen.length <= MOST_WRITTEN ? seen.join(", ") : `${seen.length} numbers`;
        const best = seen.reduce((a, b) => Math.max(a, b));
        const y = greatest(c, p, q), average = mean(c, p, q);
        const same = best === y && Math.abs(sum / seen.length - average) < 1e-5;
        tell(
          `Output (${p}, ${q}) of channel ${c}: the maximum of ${values} is ${best}, first at `
            + `row ${layer.row(layer.r)}, column ${layer.column(layer.s)}; the average is `
            + `${sum} / ${seen.length} = ${arrays.written(sum / seen.length)}. ` + (same
            ? "max_pool2d and avg_pool2d: the same."
            : `max_pool2d ${y} and avg_pool2d ${average} DIFFER.`),
        );
      });
    });
  }

  return { pooling };
})();
