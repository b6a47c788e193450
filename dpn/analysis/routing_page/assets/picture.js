// An image as the tower sees it, square, under the grid of tokens that a stage has.

const addresses = new Map();

// Address of an image's bytes; made when it is first shown.
function imageAddress(index) {
  if (!addresses.has(index)) {
    const bytes = Uint8Array.from(atob(images[index].data), (character) => character.charCodeAt(0));
    addresses.set(index, URL.createObjectURL(new Blob([bytes], { type: images[index].type })));
  }
  return addresses.get(index);
}

// Rows and columns of the start grid that one token of a stage covers: kernels multiply.
function coverage(sample, stage) {
  return sample.route.slice(0, stage).reduce(
    ([rows, columns], kernel) => {
      const [down, across] = kernel.split("x").map(Number);
      return [rows * down, columns * across];
    },
    [1, 1],
  );
}

const dots = (steps) => steps.join("");

// Lines of a grid in units of the start grid's cells; a last cell that sticks out ends at the edge.
function gridLines(sample, stage) {
  const [[height, width], [rows, columns]] = [sample.stages[0], sample.stages[stage]];
  const [down, across] = coverage(sample, stage);
  const [bottom, right] = [Math.min(rows * down, height), Math.min(columns * across, width)];
  const level = Array.from({ length: rows + 1 }, (_, row) => `M0 ${Math.min(row * down, height)}H${right}`);
  const upright = Array.from(
    { length: columns + 1 },
    (_, column) => `M${Math.min(column * across, width)} 0V${bottom}`,
  );
  return { path: dots([...level, ...upright]), bottom, right, height, width };
}

function gridDrawing(sample, stage, { isLarge = false } = {}) {
  const { path, bottom, right, height, width } = gridLines(sample, stage);
  const finest = Math.max(height, width);
  const tokens = Math.max(...sample.stages[stage].slice(0, 2));
  const kind = !isLarge && tokens > 12 ? "grid fine" : "grid";
  const parts = [];
  if (stage && (isLarge || finest <= 12)) {
    parts.push(drawing("path", { class: "cells", d: gridLines(sample, 0).path }));
  }
  // What an expert that keeps whole windows only has dropped at the edges.
  parts.push(
    drawing("path", { class: "dropped", d: `M${right} 0H${width}V${height}H0V${bottom}H${right}z` }),
  );
  parts.push(drawing("path", { class: "casing", d: path }), drawing("path", { class: "line", d: path }));
  return drawing(
    "svg",
    { class: kind, viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" },
    parts,
  );
}

function frame(sample, stage, options) {
  const { fit } = sources[sample.source];
  const image = images[sample.image];
  const picture = element("img", {
    src: imageAddress(sample.image),
    alt: image.path,
    decoding: "async",
    draggable: "false",
  });
  styled(picture, { "object-fit": fit });
  const grid = sample.stages === null || stage === null ? null : gridDrawing(sample, stage, options);
  return element("span", { class: "frame" }, picture, grid);
}

function stageText(sample, stage) {
  if (sample.stages === null) return "grid unknown";
  const [rows, columns, tokens] = sample.stages[stage];
  return sample.crops > 1
    ? `${whole(tokens)} in ${sample.crops} crops`
    : `${rows} ${times} ${columns} = ${whole(tokens)}`;
}

function dpeName(sample, dpe) {
  const layer = sources[sample.source].layers[dpe];
  return layer === undefined ? `DPE ${dpe + 1}` : `DPE ${dpe + 1}, layer ${layer}`;
}
