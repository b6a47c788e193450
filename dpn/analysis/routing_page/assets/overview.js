// What the shown answers have in common: figures, the histogram of routes, the kernels of every DPE.

const ROUTES_AT_FIRST = isNarrow ? 5 : 10;
let showsAllRoutes = false;

function drawTiles(chosen) {
  const known = chosen.filter((sample) => sample.score !== null).map((sample) => sample.score);
  const unknown = chosen.length - known.length;
  const start = mean(chosen.map((sample) => sample.counts[0]));
  byId("tiles").replaceChildren(
    tile("Answers", whole(chosen.length), `of ${whole(samples.length)}`),
    tile(
      "Right",
      known.length ? percent(mean(known), 1) : "unknown",
      unknown ? `unknown for ${whole(unknown)}` : "mean score per question",
    ),
    tile(
      "Visual tokens",
      chosen.length ? decimal(mean(chosen.map((sample) => sample.tokens))) : "\u2013",
      start === null ? "" : `of ${decimal(start)}, mean over layers`,
    ),
    flopsTile(chosen, "paper", "FLOPs, visual", "of dense, Eq. 8"),
    flopsTile(chosen, "full", "FLOPs, full", "of dense, all tokens"),
  );
}

function flopsTile(chosen, counting, title, note) {
  const shares = chosen.map((sample) => sample.flops[counting]).filter((share) => share !== null);
  const missing = chosen.length - shares.length;
  return tile(
    title,
    shares.length ? percent(mean(shares), 1) : "\u2013",
    missing ? `unknown for ${whole(missing)}` : note,
  );
}

function tile(title, value, note) {
  return element(
    "div",
    { class: "tile" },
    element("dt", {}, title),
    element("dd", {}, value, element("small", {}, note)),
  );
}

// A 2 x 2 block of cells with those merged that a kernel merges (larger kernels: a block of their size).
function kernelIcon(kernel) {
  const [down, across] = kernel.split("x").map(Number);
  const [height, width] = [Math.max(2, down), Math.max(2, across)];
  const level = Array.from(
    { length: Math.ceil(height / down) - 1 },
    (_, row) => `M0 ${(row + 1) * down}H${width}`,
  );
  const upright = Array.from(
    { length: Math.ceil(width / across) - 1 },
    (_, at) => `M${(at + 1) * across} 0V${height}`,
  );
  const field = styled(drawing("rect", { width, height }), { fill: kernelColour(kernel) });
  const viewBox = `0 0 ${width} ${height}`;
  return drawing(
    "svg",
    { class: "kernel", viewBox, preserveAspectRatio: "none", "aria-hidden": "true" },
    field,
    drawing("path", { d: dots([...level, ...upright]) }),
  );
}

function routeLabel(route) {
  const kernelsOf = route.map((kernel) =>
    element("span", { class: "kernel-name" }, kernelIcon(kernel), kernel),
  );
  return element("span", { class: "route" }, kernelsOf);
}

function drawHistogram(update) {
  const candidates = samples.filter((sample) => fits(sample, { ignoreRoute: true }));
  const counts = countBy(candidates, (sample) => sample.key);
  for (const route of state.routes) if (!counts.has(route)) counts.set(route, 0);
  const ordered = [...counts].sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
  const most = Math.max(1, ...counts.values());
  const isLong = ordered.length > ROUTES_AT_FIRST;
  const listed = ordered.filter(
    ([key], place) => showsAllRoutes || place < ROUTES_AT_FIRST || state.routes.has(key),
  );
  const focused = document.activeElement?.dataset?.route;
  byId("histogram").replaceChildren(
    ...listed.map(([key, count]) => {
      const bar = styled(element("span", { class: "bar" }), { width: `${(100 * count) / most}%` });
      const press = () => (toggleRoute(key), update());
      const pressed = String(state.routes.has(key));
      const share = candidates.length ? percent(count / candidates.length, 1) : "\u2013";
      const number = element("span", { class: "count" }, whole(count), element("small", {}, share));
      const attributes = { type: "button", "aria-pressed": pressed, "data-route": key, click: press };
      return element("li", {}, element("button", attributes, bar, routeLabel(key.split(",")), number));
    }),
  );
  if (focused)
    byId("histogram")
      .querySelector(`[data-route="${CSS.escape(focused)}"]`)
      ?.focus();
  byId("all-routes").hidden = !isLong;
  byId("all-routes").textContent = showsAllRoutes ? "Show fewer" : `Show all ${ordered.length} routes`;
}

function buildOverview(update) {
  const legend = kernels.map((kernel) => {
    const keeps = merged(kernel) === 1 ? "keeps all" : `keeps 1 of ${merged(kernel)}`;
    return element("li", {}, kernelIcon(kernel), `${kernel} `, element("small", {}, keeps));
  });
  byId("legend").append(...legend);
  byId("all-routes").addEventListener(
    "click",
    () => ((showsAllRoutes = !showsAllRoutes), drawHistogram(update)),
  );
}

function drawShares(chosen) {
  const rows = Array.from({ length: maxStages }, (_, dpe) => {
    const counts = countBy(
      chosen.filter((sample) => dpe < sample.route.length),
      (sample) => sample.route[dpe],
    );
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    const layers = new Set(sources.map((source) => source.layers[dpe]));
    const [layer] = layers.size === 1 ? layers : [];
    const title = layer === undefined ? `DPE ${dpe + 1}` : `DPE ${dpe + 1}, before layer ${layer}`;
    const parts = kernels
      .filter((kernel) => counts.has(kernel))
      .map((kernel) => sharePart(kernel, counts.get(kernel) / total));
    return element(
      "div",
      { class: "share" },
      element("p", {}, title),
      element("div", { class: "stack" }, parts),
    );
  });
  byId("shares").replaceChildren(...rows);
}

function sharePart(kernel, share) {
  const title = `${kernel}: ${percent(share, 1)}`;
  const text = share > 0.11 ? percent(share) : "";
  const part = element(
    "span",
    { title, class: depth(kernel) > 0.7 ? "deep" : null },
    text,
    element("span", { class: "hidden" }, title),
  );
  return styled(part, { width: `${100 * share}%`, background: kernelColour(kernel) });
}
