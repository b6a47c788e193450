// Elements and numbers. Text becomes text nodes: nothing on this page is parsed as HTML.

const SVG = document.querySelector("svg").namespaceURI;
// Wide enough for one column only; decides what is folded at first.
const isNarrow = matchMedia("(max-width: 60rem)").matches;
const byId = (id) => document.getElementById(id);

// Make an element; attributes that are functions become event listeners, those that are null are left out.
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function drawing(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null));
  return node;
}

// Style properties are set through the object model, which the page's policy allows, unlike style attributes.
function styled(node, properties) {
  for (const [name, value] of Object.entries(properties)) node.style.setProperty(name, value);
  return node;
}

const whole = (value) => value.toLocaleString("en");
const decimal = (value) => value.toLocaleString("en", { maximumFractionDigits: 1 });
const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}\u00a0%`;
const plural = (count, word) => `${whole(count)} ${word}${count === 1 ? "" : "s"}`;
const times = "\u00d7";

function mean(values) {
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function countBy(items, key) {
  const counts = new Map();
  for (const item of items) counts.set(key(item), (counts.get(key(item)) ?? 0) + 1);
  return counts;
}
