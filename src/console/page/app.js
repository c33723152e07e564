// Which view stands for which address, when it is looked at again, and who is signed in.

import { look, token } from "./api.js";
import { make } from "./dom.js";
import { channel, conversation, conversations, overview } from "./views.js";

/** How often what is shown is looked at again, in milliseconds, while the page is. */
const AGAIN_MS = 4_000;

const VIEWS = [
  [/^#\/channels\/([^/?]+)\/as\/([^/?]+)\/([^/?]+)$/, conversation],
  [/^#\/channels\/([^/?]+)\/as\/([^/?]+)$/, conversations],
  [/^#\/channels\/([^/?]+)$/, channel],
  [/^(?:#\/)?$/, overview],
];

const at = (id) => document.getElementById(id);
/** Counts what was begun: an answer to an older question is not shown. */
let turn = 0;
let timer;
/** What was shown last, to leave the page alone (and what is selected in it) while nothing changes. */
let shown = "";

function problem(text) {
  at("problem").hidden = !text;
  at("problem").textContent = text ?? "";
}

function state(text, kind) {
  at("state").textContent = text;
  at("state").className = kind;
}

function where() {
  const [path, query] = location.hash.split("?");
  const parameters = Object.fromEntries(new URLSearchParams(query));
  for (const [shape, view] of VIEWS) {
    const found = path.match(shape);
    if (found) return { view, path, parts: found.slice(1).map(decodeURIComponent), parameters };
  }
  return { view: () => [make("p", {}, "There is nothing here.")], path, parts: [], parameters };
}

function trail(path, parts) {
  const [id, service, last] = parts;
  const steps = [["#/", "Numbers"]];
  if (id) steps.push([`#/channels/${id}`, `channel ${id.slice(0, 9)}…`]);
  if (service) steps.push([`#/channels/${id}/as/${service}`, `as ${service}`]);
  if (last) steps.push([path, "conversation"]);
  at("trail").replaceChildren(...steps.map(([href, text]) => make("a", { href }, text)));
}

/** Looks at the address's view and shows it. */
async function show() {
  clearTimeout(timer);
  const mine = ++turn;
  if (!token.get()) return signIn();
  const { view, path, parts, parameters } = where();
  try {
    const made = make("div", {}, ...(await view(parts, parameters)).flat().filter(Boolean));
    if (mine !== turn) return;
    at("sign-out").hidden = false;
    trail(path, parts);
    if (made.outerHTML !== shown && !at("view").querySelector("details[open]")) {
      shown = made.outerHTML;
      at("view").replaceChildren(made);
    }
    state("live", "good");
    if (document.body.dataset.failing) { problem(); delete document.body.dataset.failing; }
  } catch (refused) {
    if (mine !== turn) return;
    if (refused.status === 401) return signOut("That is not the operator's token.");
    if (refused.status === 403) return signOut(refused.message);
    document.body.dataset.failing = "yes";
    problem(refused.message);
    state(refused.status === 0 ? "not reached" : "refused", "bad");
  }
  if (document.visibilityState === "visible") timer = setTimeout(show, AGAIN_MS);
}

function signIn() {
  shown = "";
  at("trail").replaceChildren();
  state("", "");
  at("sign-out").hidden = true;
  const input = make("input", { id: "token", type: "password", autocomplete: "off", required: true });
  const given = async (event) => {
    event.preventDefault();
    token.set(input.value.trim());
    try {
      await look("/health");
    } catch (refused) {
      return signOut(refused.status === 401 ? "That is not the operator's token." : refused.message);
    }
    problem();
    show();
  };
  at("view").replaceChildren(make("form", { class: "sign-in", onsubmit: given },
    make("h1", {}, "sharedline"),
    make("label", { for: "token" }, "The operator's token"),
    input,
    make("button", { type: "submit" }, "Sign in"),
    make("p", { class: "soft" }, "Its SHA-256 is ", make("code", {}, "http.admin_token_sha256"),
      " in the configuration; ", make("code", {}, "sharedline token new"), " makes one.")));
  input.focus();
}

function signOut(why) {
  token.forget();
  problem(why);
  signIn();
}

/** A change that somebody has confirmed. */
async function carryOut({ detail }) {
  problem();
  try {
    await detail();
  } catch (refused) {
    problem(refused.message);
  }
  shown = "";
  show();
}

function go() {
  shown = "";
  problem();
  at("view").replaceChildren(make("p", { class: "soft" }, "…"));
  at("view").focus();
  show();
}

addEventListener("hashchange", go);
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && show());
at("view").addEventListener("change-asked", carryOut);
at("sign-out").addEventListener("click", () => signOut());
show();
