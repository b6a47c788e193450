// What Python wrote down, and what follows from it.

const { sources, images, samples } = JSON.parse(byId("data").textContent);

const merged = (kernel) => kernel.split("x").reduce((product, side) => product * Number(side), 1);
const byMerged = (a, b) => merged(a) - merged(b) || a.localeCompare(b);

for (const [index, sample] of samples.entries()) {
  const { run, benchmark } = sources[sample.source];
  Object.assign(sample, {
    index,
    run,
    benchmark,
    verdict: verdictOf(sample.score),
    key: sample.route.join(","),
  });
  const texts = [sample.prompt, sample.text, sample.gold, sample.id, imagePath(sample)];
  sample.haystack = texts
    .filter((text) => text !== null)
    .join("\n")
    .toLowerCase();
}

const kernels = [...new Set(samples.flatMap((sample) => sample.route))].sort(byMerged);
const maxStages = Math.max(...samples.map((sample) => sample.route.length));

// A score that isn't in the file is unknown; nothing here compares answers with the truth.
function verdictOf(score) {
  if (score === null) return "unknown";
  return score >= 1 ? "right" : score <= 0 ? "wrong" : "partly right";
}

function imagePath(sample) {
  return sample.image === null ? null : images[sample.image].path;
}

// How much a kernel merges among those that occur, from 0 (least) to 1.
const depth = (kernel) => (kernels.length > 1 ? kernels.indexOf(kernel) / (kernels.length - 1) : 0);

// Colour of a kernel: from the first over the middle to the last of three, by depth.
function kernelColour(kernel) {
  const way = 2 * depth(kernel);
  const [from, to, share] = way < 1 ? ["first", "middle", way] : ["middle", "last", way - 1];
  return `color-mix(in oklab, var(--kernel-${to}) ${Math.round(100 * share)}%, var(--kernel-${from}))`;
}

// Answers about one image, in file order; the same question of several runs side by side.
function groupByImage(chosen) {
  const groups = new Map();
  for (const sample of chosen) {
    const key = sample.image === null ? `alone ${sample.index}` : sample.image;
    if (!groups.has(key)) groups.set(key, { image: sample.image, samples: [] });
    groups.get(key).samples.push(sample);
  }
  for (const group of groups.values()) {
    const first = new Map();
    for (const sample of group.samples) if (!first.has(sample.prompt)) first.set(sample.prompt, sample.index);
    group.samples.sort((a, b) => first.get(a.prompt) - first.get(b.prompt) || a.index - b.index);
  }
  return [...groups.values()];
}
