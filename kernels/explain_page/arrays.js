// Example numbers as a hash of their place, the same as in examples.py; and packed arrays.
"use strict";
const arrays = (() => {
  const INPUT = 1, FILTER = 2, BIAS = 3;

  function mix(bits) { // the 32-bit finaliser of counter_hash.py
    bits = Math.imul(bits ^ bits >>> 16, 0x85ebca6b);
    bits = Math.imul(bits ^ bits >>> 13, 0xc2b2ae35);
    return bits ^ bits >>> 16;
  }

  const absorb = (key, word) => mix((key ^ word) + 0x9e3779b9 | 0);

  // Returns index => number: 1 to 5 for inputs, -2 to 2 for filters and biases.
  function example(kind, layer) {
    const key = absorb(mix(kind), layer), least = kind === INPUT ? 1 : -2;
    return (index) => (absorb(key, index) >>> 0) % 5 + least;
  }

  const decode = (text) =>
    new Float32Array(Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0)).buffer);

  const range = (count, start = 0) => Array.from({ length: count }, (_, i) => start + i);
  const clamp = (value, least, most) => Math.max(least, Math.min(most, value));

  // The start of a window of `most` among `count` that moves no further than to hold `at`.
  function follow(start, at, most, count) {
    const moved = clamp(start, at - most + 1, at);
    return clamp(moved, 0, Math.max(count - most, 0));
  }

  // Whole numbers as they are, others with four digits.
  function written(value) {
    if (Number.isInteger(value)) return String(value);
    const digits = Math.abs(value) >= 100 ? 1 : Math.abs(value) >= 1 ? 2 : 4;
    return value.toFixed(digits).replace(/\.?0+$/, "").replace(/^-0$/, "0");
  }

  // "3 - 2 + 1": numbers with the sign of each but the first as an operator.
  const summed = (values) => values.map((value, i) =>
    i ? `${value < 0 ? " - " : " + "}${written(Math.abs(value))}` : written(value)).join("");

  // What conv2d gave, and whether what was worked out here is the same.
  function judged(here, given, tolerance = 0) {
    const same = Math.abs(here - given) <= tolerance;
    return `conv2d: ${written(given)}, ${same ? "the same." : "WHICH DIFFERS."}`;
  }

  const times = (a, b) => `${written(a)}×${b < 0 ? `(${written(b)})` : written(b)}`;

  return {
    INPUT, FILTER, BIAS, example, decode, range, clamp, follow, written, judged, summed, times,
  };
})();
