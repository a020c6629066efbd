// Builds and updates elements. Data becomes text nodes only, never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: attributes first, then children (elements, text, or nothing). */
export function make(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Make an SVG element. */
export function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Set the text of an element, leaving the page alone where nothing has changed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set an attribute likewise. */
export function mark(element, name, value) {
  if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

/** Set a sentence whose `quoted` parts are code. */
export function prose(element, text) {
  if (element.textContent === text.replaceAll("`", "")) return;
  const parts = text.split("`");
  element.replaceChildren(...parts.map((part, index) => (index % 2 ? make("code", {}, part) : part)));
}

export const byId = (id) => document.getElementById(id);

/**
 * Keep one child per item: children of items that are gone leave, new ones are made, all are
 * updated, in the order of the items. What has the focus keeps it.
 */
export function keep(parent, items, key, create, update) {
  const focused = document.activeElement;
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    old.delete(name);
    if (child === undefined) {
      child = create(item);
      child.dataset.key = name;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    update(child, item);
  }
  for (const child of old.values()) child.remove();
  // An element that is moved loses the focus.
  if (document.activeElement !== focused && parent.contains(focused)) {
    focused.focus({ preventScroll: true });
  }
}
