// The receptive field: what a unit of any layer sees of every layer below it, down to the input.
"use strict";
const fields = (() => {
  const SIDE = 230;

  // For each plane, from the input on, the rows or columns that `unit` of plane `depth` sees; and
  // how far they reach on the input with its padding.
  function seenAlong(layers, axis, depth, unit) {
    const seen = Array(layers.length + 1).fill([]);
    seen[depth] = [unit];
    let [first, last] = [unit, unit];
    for (let at = depth - 1; at >= 0; at--) {
      const { size, stride, dilation, padding, input } = layers[at];
      const under = (one, tap) => one * stride[axis] - padding[axis][0] + tap * dilation[axis];
      const found = new Set(seen[at + 1].flatMap((one) =>
        arrays.range(size[axis]).map((tap) => under(one, tap))));
      seen[at] = [...found].filter((one) => one >= 0 && one < input[axis]).sort((a, b) => a - b);
      [first, last] = [under(first, 0), under(last, size[axis] - 1)];
    }
    return { seen, reach: last - first + 1 };
  }

  function field(data, place, name) {
    const { layers } = data;
    const planes = [layers[0].input, ...layers.map((layer) => layer.output)];
    grids.view(place, name, ({ body, tell }) => {
      let chosen = [planes.length - 1, ...planes.at(-1).map((extent) => Math.floor(extent / 2))];
      let along = [];
      const title = (depth) => (depth ? `Layer ${depth}: ${layers[depth - 1].title}` : "Input");
      const all = planes.map((extents, depth) => maps.map(body, {
        label: `${title(depth)}` + (depth ? "; the arrow keys choose a unit" : ""),
        caption: () => `${title(depth)}, ${extents.join("x")}`,
        extents, side: SIDE,
        seen: () => (depth <= chosen[0]
          ? { rows: along[0].seen[depth], columns: along[1].seen[depth] } : null),
        at: () => (chosen[0] === depth ? chosen.slice(1) : null),
        pick: depth ? (i, j) => choose(depth, i, j) : null,
        move: (di, dj) => {
          const [i, j] = chosen[0] === depth ? chosen.slice(1) : [0, 0];
          choose(depth, ...[i + di, j + dj].map((to, axis) =>
            arrays.clamp(to, 0, extents[axis] - 1)));
        },
      }));
      function choose(...next) {
        chosen = next;
        const [depth, ...unit] = chosen;
        along = unit.map((one, axis) => seenAlong(layers, axis, depth, one));
        all.forEach((one) => one.update());
        const reach = along.map((one) => one.reach), on = along.map((one) => one.seen[0].length);
        const counts = (at) => along.map((one) => one.seen[at].length).join("x");
        const below = arrays.range(depth).map((at) =>
          `${counts(at)} of ${at ? `layer ${at}` : "the input"}`).reverse();
        const judge = layers[depth - 1].receptive_field;
        const ends = (list) => (list.length ? `${list[0]} to ${list.at(-1)}` : "none");
        tell(
          `Unit (${unit.join(", ")}) of layer ${depth} depends on ${below.join(", ")}: `
            + `rows ${ends(along[0].seen[0])}, columns ${ends(along[1].seen[0])}.`,
          `Its receptive field is ${reach.join("x")}; receptive_field: ${judge.join("x")}, `
            + (reach.join() === judge.join() ? "the same." : "WHICH DIFFERS.")
            + (on.join() === reach.join() ? ""
              : " The rest is padding or gaps of dilation and stride."),
        );
      }
      choose(...chosen);
    });
  }

  return { field };
})();
