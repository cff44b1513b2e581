// The filter slides over the padded input; then what every channel adds to the sum.
"use strict";
const sums = (() => {
  const { element, view } = grids;
  const { controls, player, input, output, taps, onPadding } = layerGrids;
  const MOST_CHANNELS = 4, MOST_WRITTEN = 12;

  function told(layer) {
    const { k, p, q, c, shape } = layer;
    const parts = arrays.range(shape.r).flatMap((i) => arrays.range(shape.s).map((j) => [i, j]));
    const outside = parts.filter(([i, j]) => onPadding(layer)(i, j)).length;
    const product = ([i, j]) =>
      arrays.times(layer.x(c, layer.row(i), layer.column(j)), layer.w(k, c, i, j));
    const products = parts.length <= MOST_WRITTEN
      ? `${parts.map(product).join(" + ")} = ` : `${parts.length} products, `;
    return `Channel ${c} under output (${p}, ${q}): ${products}${layer.channelSum(k, c)}`
      + (outside ? `; ${outside} of ${parts.length} taps are on padding` : "");
  }

  // The sum that the page forms, beside what conv2d gave.
  function total(layer) {
    const { k, p, q, shape, data } = layer;
    const each = arrays.range(shape.c).map((c) => layer.channelSum(k, c));
    const shown = each.slice(0, MOST_WRITTEN);
    const rest = each.slice(MOST_WRITTEN);
    if (rest.length) shown.push(rest.reduce((sum, one) => sum + one));
    const bias = layer.b(k);
    const sum = each.reduce((a, b) => a + b, 0) + bias, y = layer.y(k, p, q);
    return `Output (${p}, ${q}) of filter ${k}: ${arrays.summed(shown)}`
      + (rest.length ? ` (the last: ${rest.length} more channels)` : "")
      + (data.bias ? `, bias ${bias}` : "") + `; sum ${sum}. ${arrays.judged(sum, y)}`;
  }

  function sliding(layer, place) {
    view(place, () => layer.name("sliding"), ({ bar, body, tell }) => {
      const toggle = player(layer, bar);
      controls(layer, bar, "filter");
      const keys = { " ": toggle };
      const all = [
        input(layer, body, keys, 0),
        taps(layer, body, "Filter", () => layer.c, (i, j) => layer.w(layer.k, layer.c, i, j)),
        output(layer, body, {
          caption: () => {
            const { p, q, k } = layer.shape;
            const first = layer.planes < k ? `, of the first ${layer.planes} of ${k}` : "";
            return `Output, filter ${layer.k}${first}: ${p}x${q}`;
          },
          text: (p, q) => layer.y(layer.k, p, q), keys,
        }),
      ];
      layer.look(() => {
        all.forEach((one) => one.update());
        tell(told(layer), total(layer));
      });
    });
  }

  function channels(layer, place) {
    view(place, () => layer.name("channels"), ({ body, tell }) => {
      let start = 0;
      const shown = arrays.range(Math.min(layer.shape.c, MOST_CHANNELS)).map((at) => {
        const channel = () => start + at;
        const line = element("div", body, { className: "equation" });
        const sign = (text) => element("span", line, { className: "sign", textContent: text });
        const name = element("strong", line);
        const under = (i, j) => layer.x(channel(), layer.row(i), layer.column(j));
        const each = [taps(layer, line, "Patch", channel, under, onPadding(layer))];
        sign("×");
        each.push(taps(layer, line, "Filter", channel,
          (i, j) => layer.w(layer.k, channel(), i, j)));
        sign("=");
        each.push(taps(layer, line, "Products", channel,
          (i, j) => layer.product(layer.k, channel(), i, j)));
        const sum = sign("");
        return () => {
          name.textContent = `Channel ${channel()}`;
          sum.textContent = `sum ${layer.channelSum(layer.k, channel())}`;
          each.forEach((one) => one.update());
        };
      });
      layer.look(() => {
        const count = layer.shape.c;
        start = arrays.follow(start, layer.c, MOST_CHANNELS, count);
        shown.forEach((update) => update());
        tell(
          total(layer),
          count > MOST_CHANNELS
            && `Shown: channels ${start} to ${start + MOST_CHANNELS - 1} of ${count}; `
              + "choose another above. The sum is over all of them.",
        );
      });
    });
  }

  return { sliding, channels, total };
})();
