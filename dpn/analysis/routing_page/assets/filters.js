// Which answers are shown: the state, its form fields, and the address that remembers it.

const FACETS = [
  ["run", "Run"],
  ["benchmark", "Benchmark"],
  ["verdict", "Answer is"],
  ["grade", "Grade"],
  ["category", "Category"],
].filter(([name]) => new Set(samples.map((sample) => sample[name])).size > 1);

const TYPING_PAUSE = 150; // ms without a key before the page is drawn again
const ABSENT = "(none)";
const state = { text: "", routes: new Set(), order: "file", facets: {}, page: 1 };

const facetValue = (sample, name) => sample[name] ?? ABSENT;

function fits(sample, { ignoreRoute = false } = {}) {
  if (!ignoreRoute && state.routes.size && !state.routes.has(sample.key)) return false;
  if (state.text && !sample.haystack.includes(state.text.toLowerCase())) return false;
  return FACETS.every(([name]) => !state.facets[name] || facetValue(sample, name) === state.facets[name]);
}

function buildFilters(update) {
  for (const [name, title] of FACETS) {
    const counts = [...countBy(samples, (sample) => facetValue(sample, name))];
    const options = counts.map(([value, count]) =>
      element("option", { value }, `${value} (${whole(count)})`),
    );
    const select = element(
      "select",
      { "data-facet": name, change: () => ((state.facets[name] = select.value), update()) },
      element("option", { value: "" }, "all"),
      options,
    );
    byId("facets").append(element("label", { class: "field" }, title, select));
  }
  let typing = 0;
  byId("search").addEventListener("input", (event) => {
    state.text = event.target.value;
    clearTimeout(typing);
    typing = setTimeout(update, TYPING_PAUSE);
  });
  byId("order").addEventListener("change", (event) => ((state.order = event.target.value), update()));
  byId("clear").addEventListener("click", () => {
    Object.assign(state, { text: "", routes: new Set(), facets: {} });
    showState();
    update();
  });
}

function toggleRoute(key) {
  if (!state.routes.delete(key)) state.routes.add(key);
}

// Bring the fields to what the state says.
function showState() {
  byId("search").value = state.text;
  byId("order").value = state.order;
  for (const select of byId("facets").querySelectorAll("select")) {
    select.value = state.facets[select.dataset.facet] ?? "";
  }
}

// The address after # holds the state, so that a selection can be passed on.
function writeAddress() {
  const words = new URLSearchParams();
  if (state.text) words.set("search", state.text);
  if (state.order !== "file") words.set("order", state.order);
  if (state.page > 1) words.set("page", state.page);
  for (const [name] of FACETS) if (state.facets[name]) words.set(name, state.facets[name]);
  for (const route of [...state.routes].sort()) words.append("route", route);
  const address = words.size ? `#${words}` : "#";
  if (address !== (location.hash || "#")) history.replaceState(null, "", address);
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const known = new Set(samples.map((sample) => sample.key));
  state.text = words.get("search") ?? "";
  state.order = ["routes", "questions"].find((order) => order === words.get("order")) ?? "file";
  state.page = Math.max(1, Math.floor(Number(words.get("page"))) || 1);
  state.routes = new Set(words.getAll("route").filter((route) => known.has(route)));
  for (const [name] of FACETS) {
    const values = new Set(samples.map((sample) => facetValue(sample, name)));
    state.facets[name] = values.has(words.get(name)) ? words.get(name) : "";
  }
  showState();
}
