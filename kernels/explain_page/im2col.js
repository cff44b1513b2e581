// The convolution as one matrix product: where each number of X_col comes from, and what it meets.
"use strict";
const matrices = (() => {
  const { grid, view } = grids;
  const { clamp, follow, range } = arrays;
  const MOST_TAPS = 32, MOST_FILTERS = 32, MOST_COLUMNS = 16;

  function im2col(layer, place) {
    view(place, () => layer.name("im2col"), ({ body, tell }) => {
      const { c: channels, r, s } = layer.shape, taps = channels * r * s;
      const start = { tap: 0, filter: 0, column: 0 };
      const tapOf = () => (layer.c * r + layer.r) * s + layer.s;
      const tapAt = (t) => ({ c: Math.floor(t / (r * s)), r: Math.floor(t / s) % r, s: t % s });
      const columnAt = (j) => ({ p: Math.floor(j / layer.shape.q), q: j % layer.shape.q });
      const columnOf = () => layer.p * layer.shape.q + layer.q;
      const x = (t, j) => {
        const at = { ...tapAt(t), ...columnAt(j) };
        const h = layer.row(at.r, at.p), w = layer.column(at.s, at.q);
        return { ...at, h, w, value: layer.x(at.c, h, w) };
      };
      const weight = (k, t) => layer.w(k, tapAt(t).c, tapAt(t).r, tapAt(t).s);

      // The columns of the chosen output's tile, and the windows on them, on taps and on filters.
      const tileColumns = () => {
        const [rows, columns] = layer.tile();
        return range(rows[1] - rows[0], rows[0]).flatMap((p) =>
          range(columns[1] - columns[0], columns[0]).map((q) => p * layer.shape.q + q));
      };
      const tapsShown = () => range(Math.min(taps, MOST_TAPS), start.tap);
      const filtersShown = () => range(Math.min(layer.planes, MOST_FILTERS), start.filter);
      const columnsShown = () => tileColumns().slice(start.column, start.column + MOST_COLUMNS);
      const moved = (list, from, by) => list[clamp(list.indexOf(from) + by, 0, list.length - 1)];
      const toTap = (by) => tapAt(clamp(tapOf() + by, 0, taps - 1));
      const toColumn = (by) => columnAt(moved(tileColumns(), columnOf(), by));
      const toFilter = (by) => ({ k: clamp(layer.k + by, 0, layer.planes - 1) });

      const part = (name, shown, all) => {
        if (shown.length === all) return "";
        const gaps = shown.at(-1) - shown[0] >= shown.length ? `${shown.length} of the ` : "";
        return `, ${gaps}${name} ${shown[0]} to ${shown.at(-1)}`;
      };
      const outputs = () => layer.shape.p * layer.shape.q;
      const lines = (row, column) => `${row ? "row " : ""}${column ? "column" : ""}`;
      const all = [
        grid(body, {
          label: "input; the cell that the chosen number of X_col comes from is marked",
          caption: () => `Input, channel ${layer.c}`,
          rows: () => layer.region(MOST_TAPS)[0],
          columns: () => layer.region(MOST_TAPS)[1],
          cell: (h, w) =>
            [layer.x(layer.c, h, w), `${layer.isPadding(h, w) ? "pad " : ""}${layer.reads(h, w)}`],
          at: () => [layer.row(layer.r), layer.column(layer.s)],
        }),
        grid(body, {
          label: "W_row, a row is one filter; the arrow keys go from weight to weight",
          caption: () => `W_row: ${layer.shape.k}x${taps}`
            + part("rows", filtersShown(), layer.shape.k) + part("columns", tapsShown(), taps),
          rows: filtersShown, columns: tapsShown,
          cell: (k, t) => [weight(k, t), lines(k === layer.k, t === tapOf())],
          at: () => [layer.k, tapOf()],
          pick: (k, t) => layer.set({ k, ...tapAt(t) }),
          move: (dk, dt) => layer.set({ ...toFilter(dk), ...toTap(dt) }),
        }),
        grid(body, {
          label: "X_col, a column is what one output sees; the arrow keys go from number to number",
          caption: () => `X_col: ${taps}x${outputs()}`
            + part("rows", tapsShown(), taps) + part("columns", columnsShown(), outputs()),
          rows: tapsShown, columns: columnsShown,
          cell: (t, j) => {
            const { h, w, value } = x(t, j);
            const pad = layer.isPadding(h, w) ? "pad " : "";
            return [value, pad + lines(t === tapOf(), j === columnOf())];
          },
          at: () => [tapOf(), columnOf()],
          pick: (t, j) => layer.set({ ...tapAt(t), ...columnAt(j) }),
          move: (dt, dj) => layer.set({ ...toTap(dt), ...toColumn(dj) }),
        }),
        grid(body, {
          label: "the product, W_row times X_col; the arrow keys go from output to output",
          caption: () =>
            `W_row X_col${layer.data.bias ? " + b" : ""}: ${layer.shape.k}x${outputs()}`
            + part("rows", filtersShown(), layer.shape.k)
            + part("columns", columnsShown(), outputs()),
          rows: filtersShown, columns: columnsShown,
          cell: (k, j) => {
            const { p, q } = columnAt(j);
            return [layer.y(k, p, q), lines(k === layer.k, j === columnOf())];
          },
          at: () => [layer.k, columnOf()],
          pick: (k, j) => layer.set({ k, ...columnAt(j) }),
          move: (dk, dj) => layer.set({ ...toFilter(dk), ...toColumn(dj) }),
        }),
      ];
      layer.look(() => {
        const columns = tileColumns(), at = columns.indexOf(columnOf());
        start.tap = follow(start.tap, tapOf(), MOST_TAPS, taps);
        start.filter = follow(start.filter, layer.k, MOST_FILTERS, layer.planes);
        start.column = follow(start.column, at, MOST_COLUMNS, columns.length);
        all.forEach((one) => one.update());
        const t = tapOf(), j = columnOf(), { c, h, w, value } = x(t, j);
        const outside = layer.isPadding(h, w);
        tell(
          `X_col[${t}, ${j}] = ${value}: `
            + `${outside ? "padding" : `input channel ${c}, row ${h}, column ${w}`}; `
            + `it meets W_row[${layer.k}, ${t}] = ${weight(layer.k, t)}.`,
          `Row ${layer.k} times column ${j}. ${sums.total(layer)}`,
        );
      });
    });
  }

  return { im2col };
})();
