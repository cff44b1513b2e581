// Fills the page's places with its views.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explain-data").textContent);
  const layers = data.layers.map((entry, i) => new Layer(entry, i + 1));
  const views = {
    sliding: (place, at) => sums.sliding(layers[at], place),
    channels: (place, at) => sums.channels(layers[at], place),
    im2col: (place, at) => matrices.im2col(layers[at], place),
    pooling: (place, at) => pools.pooling(layers[at], place),
    field: (place) => fields.field(data.field, place, () => "receptive-field"),
    pixelwise: (place) => pixelwise.perceptron(data.pixelwise, place, () => "1x1"),
    picture: (place) => pictures.through(data.picture, place),
    learned: (place, at) => learned.stage(data.learned.stages[at], at, place),
  };
  for (const place of document.querySelectorAll(".view")) {
    views[place.dataset.view](place, Number(place.dataset.at));
  }
})();
