// How elements are made. Text is always a text node: what a customer wrote can not become markup.

/** An element with attributes (`on…` are listeners, false and null are left out) and children. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A table of rows, each a list of cells; a line of text where there are none. */
export function table(heads, rows, none) {
  if (rows.length === 0) return make("p", { class: "soft" }, none);
  const head = make("tr", {}, heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map((cells) => make("tr", {}, cells.map((cell) => make("td", {}, cell ?? ""))));
  return make("div", { class: "table" }, make("table", {}, make("thead", {}, head), make("tbody", {}, body)));
}

/** Names and figures side by side. */
export function figures(pairs) {
  return make("dl", { class: "figures" }, pairs.map(([name, value, look]) =>
    make("div", {}, make("dt", {}, name), make("dd", { class: look }, String(value)))));
}

/** Asks a question; gives whether the answer is yes, or, where `wanted` names something, what was written. */
export function ask(question, yes, wanted) {
  const dialog = document.getElementById("ask");
  const [label, input] = [document.getElementById("wanted"), document.getElementById("given")];
  document.getElementById("question").textContent = question;
  document.getElementById("yes").textContent = yes;
  label.hidden = !wanted;
  label.firstElementChild.textContent = wanted ?? "";
  input.value = "";
  input.required = Boolean(wanted);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    if (dialog.returnValue !== "yes") resolve(false);
    else resolve(wanted ? input.value.trim() : true);
  }, { once: true }));
}

/** A time in milliseconds as people write it where the browser is. */
export function time(at) {
  return make("time", { datetime: new Date(at).toISOString() }, new Date(at).toLocaleString());
}

/** A number of bytes in the largest unit that leaves a whole. */
export function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count < 10 && unit > 0 ? count.toFixed(1) : Math.round(count)} ${units[unit]}`;
}

/** Seconds in the two largest units. */
export function span(seconds) {
  const [days, hours, minutes] = [Math.floor(seconds / 86400), Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60];
  if (days > 0) return `${days} d ${hours} h`;
  if (hours > 0) return `${hours} h ${minutes} min`;
  return minutes > 0 ? `${minutes} min` : `${seconds} s`;
}
