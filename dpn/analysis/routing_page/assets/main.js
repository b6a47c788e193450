// Build the page once, draw it again whenever the filters change.

function update() {
  state.page = 1;
  draw();
}

function draw() {
  const chosen = samples.filter((sample) => fits(sample));
  drawTiles(chosen);
  drawHistogram(update);
  drawShares(chosen);
  drawGroups(chosen);
  writeAddress();
}

function about() {
  const runs = [...new Set(sources.map((source) => source.run))];
  const benchmarks = [...new Set(sources.map((source) => source.protocol ?? source.benchmark))];
  const unrouted = sources.reduce((sum, source) => sum + source.unrouted, 0);
  const control = sources.some((source) => source.choice === "random" || source.choice === "static");
  return [
    `${runs.join(", ")}: ${plural(samples.length, "answer")} about ${plural(images.length, "image")} (${benchmarks.join(", ")}).`,
    "The grid shows which parts of an image still have a visual token of their own after each dynamic pooling expert (DPE).",
    control ? "Routes of a run with random or static choice ignore its router's probabilities." : null,
    unrouted ? `${plural(unrouted, "answer")} without a route (no image) are left out.` : null,
  ];
}

document.title = `Routes: ${[...new Set(sources.map((source) => source.run))].join(", ")}`;
byId("about").append(
  about()
    .filter((sentence) => sentence !== null)
    .join(" "),
);
if (isNarrow) {
  for (const panel of document.querySelectorAll("#filters, #shares-panel")) panel.open = false;
}
buildFilters(update);
buildOverview(update);
buildCards();
buildViewer();
readAddress();
draw();
addEventListener("hashchange", () => (readAddress(), draw()));
