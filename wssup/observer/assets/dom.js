// Small helpers for the page's elements. All text goes in as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element of an id. */
export const $ = (id) => document.getElementById(id);

/**
 * A new element.
 * @param {string} name of the tag.
 * @param {Object<string, string|number|null>} attributes those that are null are left out.
 * @param {...(Node|string)} children what stands in it.
 */
export function el(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** The same for SVG. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) set(node, key, value);
  node.append(...children);
  return node;
}

/** Set an attribute, or remove it if the value is null; nothing is touched that is so already. */
export function set(node, key, value) {
  if (value === null || value === undefined) node.removeAttribute(key);
  else if (node.getAttribute(key) !== String(value)) node.setAttribute(key, value);
}

/** Have an element say something; it is touched only if it says something else. */
export function say(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

/**
 * Have a <data> element show a number of the document, with the exact value beside its text.
 * @param {HTMLDataElement} node the element.
 * @param {number} value as the document has it.
 * @param {string} text as people read it.
 */
export function show(node, value, text) {
  set(node, "value", value);
  say(node, text);
}

/**
 * As many children as there are items, each made once and then brought up to date.
 * @param {Element} parent of nothing else.
 * @param {Array} items in the order of the page.
 * @param {function(*): string} key what makes an item the same as before.
 * @param {function(*): Element} make a new child.
 * @param {function(Element, *): void} update what a child shows.
 */
export function list(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = known.get(name);
    if (node === undefined) {
      node = make(item);
      node.dataset.key = name;
    }
    known.delete(name);
    if (node === place) place = place.nextElementSibling;
    else parent.insertBefore(node, place);
    update(node, item);
  }
  for (const node of known.values()) node.remove();
}
