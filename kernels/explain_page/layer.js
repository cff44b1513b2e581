// A layer's numbers, where an output's window lies, and the cell that all its views look at.
"use strict";
class Layer {
  constructor(entry, number) {
    this.entry = entry;
    this.number = number;
    this.views = [];
    Object.assign(this, { k: 0, p: 0, q: 0, c: 0, r: 0, s: 0 });
    this.use(0);
  }

  use(variant) {
    const data = this.entry.variants[variant];
    this.data = data;
    this.shape = data.shape;
    [this.rows, this.columns] = data.tiles.map((tiles) =>
      tiles.flatMap(([start, stop]) => arrays.range(stop - start, start)));
    this.of = (values) => {
      const decoded = arrays.decode(values), at = (list, value) => list.indexOf(value);
      return (plane, p, q) =>
        decoded[(plane * this.rows.length + at(this.rows, p)) * this.columns.length
          + at(this.columns, q)];
    };
    const { c, h, w, r, s } = this.shape;
    const [input, filter, bias] = [arrays.INPUT, arrays.FILTER, arrays.BIAS].map((kind) =>
      arrays.example(kind, data.seed));
    this.isPadding = (row, column) => row < 0 || row >= h || column < 0 || column >= w;
    this.x = (channel, row, column) =>
      this.isPadding(row, column) ? 0 : input((channel * h + row) * w + column);
    this.w = (k, channel, i, j) => filter(((k * c + channel) * r + i) * s + j);
    this.b = (k) => (data.bias ? bias(k) : 0);
    this.planes = data.filters ?? data.channels; // how many the file has outputs of
    if (data.y) this.y = this.of(data.y);
    this.set({ p: this.rows[0], q: this.columns[0] });
  }

  set(changes) {
    Object.assign(this, changes);
    this.k = Math.min(this.k, this.planes - 1); // another padding may have outputs of fewer
    for (const update of this.views) update();
  }

  look(update) {
    this.views.push(update);
    update();
  }

  // Input row and column of a tap of the chosen output.
  row(r, p = this.p) {
    return p * this.shape.stride_h - this.shape.pad_top + r * (this.shape.dilation_h ?? 1);
  }

  column(s, q = this.q) {
    return q * this.shape.stride_w - this.shape.pad_left + s * (this.shape.dilation_w ?? 1);
  }

  // What tap (r, s) of a channel contributes to an output.
  product(k, c, r, s, p = this.p, q = this.q) {
    return this.x(c, this.row(r, p), this.column(s, q)) * this.w(k, c, r, s);
  }

  channelSum(k, c) {
    let sum = 0;
    for (let r = 0; r < this.shape.r; r++) {
      for (let s = 0; s < this.shape.s; s++) sum += this.product(k, c, r, s);
    }
    return sum;
  }

  // The tile of outputs that holds the chosen one: [start, stop] of rows and of columns.
  tile() {
    return this.data.tiles.map((tiles, axis) => {
      const at = axis ? this.q : this.p;
      return tiles.find(([start, stop]) => at >= start && at < stop);
    });
  }

  // Input rows and columns under a tile, padding too; the last tile's go to the end.
  region(most) {
    const { stride_h, stride_w, pad_top, pad_left, pad_bottom, pad_right, h, w, p, q } = this.shape;
    const [rows, columns] = this.tile();
    const along = ([start, stop], stride, before, after, extent, outputs, window) => {
      const first = start * stride - before;
      const last = stop === outputs ? extent + after : (stop - 1) * stride - before + window;
      return arrays.range(Math.min(last - first, most), first);
    };
    return [
      along(rows, stride_h, pad_top, pad_bottom, h, p, this.data.window[0]),
      along(columns, stride_w, pad_left, pad_right, w, q, this.data.window[1]),
    ];
  }

  // Whether the chosen output reads an input cell: "tap", "gap" inside its window, or "".
  reads(row, column) {
    const { dilation_h = 1, dilation_w = 1 } = this.shape;
    const down = row - this.row(0), across = column - this.column(0);
    const [height, width] = this.data.window;
    if (down < 0 || across < 0 || down >= height || across >= width) return "";
    return down % dilation_h || across % dilation_w ? "gap" : "tap";
  }

  // From output to output, across tiles; past a row's end to the next with `wrap`.
  step(dp, dq, wrap = false) {
    let i = this.rows.indexOf(this.p) + dp, j = this.columns.indexOf(this.q) + dq;
    if (wrap && j === this.columns.length) [i, j] = [(i + 1) % this.rows.length, 0];
    this.set({
      p: this.rows[arrays.clamp(i, 0, this.rows.length - 1)],
      q: this.columns[arrays.clamp(j, 0, this.columns.length - 1)],
    });
  }

  name(view) {
    const slug = this.entry.title.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
    return `layer-${this.number}-${slug}-${view}`;
  }
}
