// A view as a PNG, painted from what the browser laid out: boxes, borders, canvases and words.
"use strict";
const png = (() => {
  const SCALE = 2, MARGIN = 12;

  function save(view, name) {
    const shown = [...view.querySelectorAll(".body, .body *, .said")].filter((one) =>
      one.checkVisibility());
    const boxes = shown.map(ink).filter(Boolean);
    const left = Math.min(...boxes.map((box) => box.left)) - MARGIN;
    const top = Math.min(...boxes.map((box) => box.top)) - MARGIN;
    const right = Math.max(...boxes.map((box) => box.right)) + MARGIN;
    const bottom = Math.max(...boxes.map((box) => box.bottom)) + MARGIN;
    const canvas = document.createElement("canvas");
    canvas.width = Math.ceil((right - left) * SCALE);
    canvas.height = Math.ceil((bottom - top) * SCALE);
    const context = canvas.getContext("2d");
    context.setTransform(SCALE, 0, 0, SCALE, -left * SCALE, -top * SCALE);
    context.fillStyle = getComputedStyle(document.body).backgroundColor;
    context.fillRect(left, top, right - left, bottom - top);
    shown.forEach((one) => paint(context, one, one.getBoundingClientRect()));
    canvas.toBlob((blob) => {
      const link = Object.assign(document.createElement("a"), {
        href: URL.createObjectURL(blob), download: name,
      });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // Where there is something to see of an element; what is as wide as the page has its words alone.
  function ink(one) {
    if (one.matches(".cells, canvas, fieldset, .sign, strong")) return one.getBoundingClientRect();
    if (!one.matches(".said, figcaption, h4")) return null;
    const range = document.createRange();
    range.selectNodeContents(one);
    return range.getBoundingClientRect();
  }

  function paint(context, one, box) {
    const style = getComputedStyle(one);
    context.fillStyle = style.backgroundColor;
    context.fillRect(box.left, box.top, box.width, box.height);
    border(context, style, box);
    if (one instanceof HTMLCanvasElement) {
      context.drawImage(one, box.left, box.top, box.width, box.height);
    }
    context.font = `${style.fontStyle} ${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    context.fillStyle = style.color;
    context.textBaseline = "middle";
    if (one instanceof HTMLInputElement) {
      context.fillText(one.value, box.left + 5, box.top + box.height / 2);
    }
    for (const node of one.childNodes) {
      if (node.nodeType === Node.TEXT_NODE) words(context, node);
    }
  }

  function border(context, style, box) {
    const sides = {
      Top: [box.left, box.top, box.right, box.top],
      Bottom: [box.left, box.bottom, box.right, box.bottom],
      Left: [box.left, box.top, box.left, box.bottom],
      Right: [box.right, box.top, box.right, box.bottom],
    };
    for (const [side, ends] of Object.entries(sides)) {
      const [width, kind, colour] = ["Width", "Style", "Color"].map((one) =>
        style[`border${side}${one}`]);
      line(width, kind, colour, ends);
    }
    if (style.outlineStyle !== "none") {
      const by = parseFloat(style.outlineOffset) + parseFloat(style.outlineWidth) / 2;
      const [l, t, r, b] = [box.left - by, box.top - by, box.right + by, box.bottom + by];
      for (const ends of [[l, t, r, t], [l, b, r, b], [l, t, l, b], [r, t, r, b]]) {
        line(style.outlineWidth, style.outlineStyle, style.outlineColor, ends);
      }
    }
    function line(width, kind, colour, [x1, y1, x2, y2]) {
      context.lineWidth = parseFloat(width);
      if (kind === "none" || !context.lineWidth || !parseFloat(width)) return;
      context.setLineDash({ dashed: [3, 2], dotted: [1, 2] }[kind] ?? []);
      context.strokeStyle = colour;
      context.beginPath();
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      context.stroke();
      context.setLineDash([]);
    }
  }

  // Word by word: a paragraph's lines break where the browser broke them.
  function words(context, node) {
    const range = document.createRange();
    for (const match of node.data.matchAll(/\S+/g)) {
      range.setStart(node, match.index);
      range.setEnd(node, match.index + match[0].length);
      const box = range.getBoundingClientRect();
      context.fillText(match[0], box.left, box.top + box.height / 2);
    }
  }

  return { save };
})();
