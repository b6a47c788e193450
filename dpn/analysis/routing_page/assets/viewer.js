// One image large, stage by stage.

let viewed = null;

function openViewer(sample, stage) {
  viewed = { sample, stage };
  byId("viewer-title").textContent = sample.question;
  byId("viewer-tabs").replaceChildren(
    ...["start", ...sample.route].map((kernel, at) => {
      const label = at ? `${at}: ${kernel}` : kernel;
      return element("button", { type: "button", click: () => showStage(at) }, label);
    }),
  );
  showStage(stage);
  byId("viewer").showModal();
}

function showStage(stage) {
  const { sample } = viewed;
  if (stage < 0 || stage > sample.route.length) return;
  viewed.stage = stage;
  for (const [at, button] of [...byId("viewer-tabs").children].entries()) {
    button.setAttribute("aria-pressed", String(at === stage));
  }
  byId("viewer-picture").replaceChildren(frame(sample, stage, { isLarge: true }));
  byId("viewer-caption").textContent = caption(sample, stage);
}

function caption(sample, stage) {
  if (sample.stages === null) return "Which tokens were merged isn't known.";
  const place = stage
    ? `After ${dpeName(sample, stage - 1)} (${sample.route[stage - 1]})`
    : "In front of the decoder";
  const [down, across] = coverage(sample, stage);
  const covers =
    down * across === 1 ? "every cell has its own token" : `one token for ${down} ${times} ${across} cells`;
  return `${place}: ${stageText(sample, stage)} visual ${sample.counts[stage] === 1 ? "token" : "tokens"}, ${covers}.${fitText(sample)}`;
}

function fitText(sample) {
  const { width, height } = images[sample.image];
  if (width === height) return "";
  const { fit } = sources[sample.source];
  const said = {
    contain: "padded to a square",
    cover: "cut to its central square",
    fill: "squeezed to a square",
  };
  const more =
    sample.crops > 1 ? "; the other crops, which show parts of it, are pooled by the same route" : "";
  return ` The image (${width} ${times} ${height} pixels) is ${said[fit]}${more}.`;
}

function buildViewer() {
  byId("viewer-close").addEventListener("click", () => byId("viewer").close());
  byId("viewer").addEventListener(
    "click",
    (event) => event.target === byId("viewer") && byId("viewer").close(),
  );
  byId("viewer").addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) showStage(viewed.stage + step);
  });
}
