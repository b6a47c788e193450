// The answers, image by image, a page at a time: so thousands of them stay fluid.

const ANSWERS_PER_PAGE = 48;
const MARKS = { right: "\u2713", wrong: "\u2717", "partly right": "~", unknown: "?" };
const ORDERS = {
  file: () => 0,
  routes: (a, b) => distinctRoutes(b) - distinctRoutes(a) || b.samples.length - a.samples.length,
  questions: (a, b) => b.samples.length - a.samples.length,
};
let pages = [];

const distinctRoutes = (group) => new Set(group.samples.map((sample) => sample.key)).size;

// Whole images until a page is full; an image with more answers than that goes on on the next page.
function pagesOf(groups) {
  const filled = [];
  let room = 0;
  for (const group of groups) {
    for (let start = 0; start < group.samples.length; start += ANSWERS_PER_PAGE) {
      const part = { ...group, samples: group.samples.slice(start, start + ANSWERS_PER_PAGE) };
      if (part.samples.length > room) {
        filled.push([]);
        room = ANSWERS_PER_PAGE;
      }
      filled.at(-1).push(part);
      room -= part.samples.length;
    }
  }
  return filled;
}

function drawGroups(chosen) {
  pages = pagesOf(groupByImage(chosen).sort(ORDERS[state.order]));
  state.page = Math.min(state.page, Math.max(1, pages.length));
  byId("nothing").hidden = chosen.length > 0;
  drawPage();
}

function drawPage() {
  byId("groups").replaceChildren(...(pages[state.page - 1] ?? []).map(groupCard));
  byId("pager").hidden = pages.length < 2;
  byId("page-number").textContent = `page ${whole(state.page)} of ${whole(pages.length)}`;
  byId("previous").disabled = state.page <= 1;
  byId("next").disabled = state.page >= pages.length;
}

function turn(step) {
  state.page += step;
  drawPage();
  writeAddress();
  byId("groups").scrollIntoView();
  byId("groups").focus({ preventScroll: true });
}

function buildCards() {
  byId("previous").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
}

function groupCard(group) {
  const [first] = group.samples;
  const path = imagePath(first) ?? "image not in a file";
  const count = `${plural(group.samples.length, "answer")}, ${plural(distinctRoutes(group), "route")}`;
  const sharesStart = new Set(group.samples.map((sample) => startKey(sample))).size === 1;
  return element(
    "article",
    { class: "group" },
    element("header", {}, element("h2", {}, path), element("p", {}, count)),
    startFigure(first, sharesStart),
    element(
      "div",
      { class: "variants" },
      group.samples.map((sample) => card(sample, sharesStart)),
    ),
  );
}

const startKey = (sample) => JSON.stringify([sample.stages && sample.stages[0], sources[sample.source].fit]);

function startFigure(sample, sharesStart) {
  if (sample.image === null) {
    const advice = "The image lies inside the question file; --questions shows it.";
    return element("figure", { class: "start" }, element("p", { class: "no-image" }, advice));
  }
  const caption = sharesStart && sample.stages ? `start: ${stageText(sample, 0)}` : null;
  const picture = sharesStart ? viewButton(sample, 0) : frame(sample, null);
  return element("figure", { class: "start" }, picture, caption && element("figcaption", {}, caption));
}

function viewButton(sample, stage) {
  const label = `${stage ? `after ${dpeName(sample, stage - 1)}` : "start"}: ${stageText(sample, stage)}; enlarge`;
  const attributes = {
    type: "button",
    class: "view",
    "aria-label": label,
    click: () => openViewer(sample, stage),
  };
  return element("button", attributes, frame(sample, stage));
}

// Whether the card shows all of a prompt: neither more lines nor a long one that is cut.
const LONG_QUESTION = 160;
const isWhole = (sample) => sample.prompt === sample.question && sample.prompt.length <= LONG_QUESTION;

function card(sample, sharesStart) {
  const badges = [
    hasSeveral("benchmark") ? sample.benchmark : null,
    hasSeveral("run") ? sample.run : null,
    sample.grade,
    sample.category,
  ];
  const shown = [...new Set(badges)].filter((badge) => badge !== null);
  const start =
    sharesStart || !sample.stages ? null : element("p", { class: "hint" }, `start: ${stageText(sample, 0)}`);
  return element(
    "section",
    { class: "card" },
    element(
      "p",
      { class: "badges" },
      shown.map((badge) => element("span", {}, badge)),
      element("span", { class: "id" }, sample.id),
    ),
    element("h3", {}, sample.question),
    answerLine(sample),
    isWhole(sample)
      ? null
      : element("details", {}, element("summary", {}, "whole prompt"), element("pre", {}, sample.prompt)),
    start,
    element(
      "ol",
      { class: "stages" },
      sample.route.map((kernel, dpe) => stageItem(sample, dpe)),
    ),
    sample.stages
      ? null
      : element("p", { class: "hint" }, `${sample.counts.join(" \u2192 ")} tokens; their grid isn't known`),
    costLine(sample),
  );
}

const hasSeveral = (name) => new Set(sources.map((source) => source[name])).size > 1;

function answerLine(sample) {
  const score = sample.verdict === "partly right" ? ` (${sample.score.toFixed(2)})` : "";
  const verdict = `${MARKS[sample.verdict]} ${sample.verdict}${score}`;
  return element(
    "p",
    { class: "answer" },
    element("span", { class: `verdict ${sample.verdict.split(" ")[0]}` }, verdict),
    element("q", {}, sample.text || "(nothing)"),
    sample.gold === null ? null : element("span", { class: "truth" }, `truth: ${sample.gold}`),
  );
}

function stageItem(sample, dpe) {
  const kernel = sample.route[dpe];
  return element(
    "li",
    {},
    element("p", { class: "dpe" }, dpeName(sample, dpe)),
    probabilityBars(sample, dpe),
    sample.image === null || !sample.stages ? null : viewButton(sample, dpe + 1),
    element(
      "p",
      { class: "left" },
      element("b", {}, kernel),
      sample.stages ? ` ${stageText(sample, dpe + 1)}` : "",
    ),
  );
}

// Probabilities of the experts. A budget or a forced route may choose another than the most probable one.
function probabilityBars(sample, dpe) {
  const probabilities = sample.probabilities[dpe];
  if (!probabilities) return element("p", { class: "hint" }, "no router");
  const names = sources[sample.source].kernels;
  const bars = probabilities.map((probability, expert) => {
    const name = names.length === probabilities.length ? names[expert] : `E${expert + 1}`;
    const isChosen = name === sample.route[dpe];
    const bar = styled(element("span", {}), {
      width: `${100 * probability}%`,
      background: isChosen ? kernelColour(name) : null,
    });
    const isExtreme = Math.abs(probability - 0.5) > 0.495 && Math.abs(probability - 0.5) < 0.4995;
    const value = percent(probability, isExtreme ? 1 : 0); // 99.6 and 0.2, but 100 and 0
    return element(
      "li",
      { class: isChosen ? "chosen" : null },
      element("span", { class: "name" }, name),
      element("span", { class: "track" }, bar),
      element("span", { class: "value" }, value),
    );
  });
  return element("ul", { class: "bars" }, bars);
}

function costLine(sample) {
  const [visual, full] = [sample.flops.paper, sample.flops.full].map((share) =>
    share === null ? "unknown" : percent(share),
  );
  const tokens = `${decimal(sample.tokens)} of ${whole(sample.counts[0])} visual tokens per layer`;
  return element("p", { class: "cost" }, `${tokens} \u00b7 FLOPs ${visual} (visual), ${full} (full)`);
}
