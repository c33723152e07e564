// Calls of the admin API, with the operator's token. The token stays in this tab and goes with it.

const KEY = "sharedline-token";
const PREFIX = "/v1/admin";
/** How long an answer may take, in milliseconds: the broker itself gives up after ten seconds. */
const WITHIN_MS = 15_000;

/** What the API refuses, with its code. */
export class Refused extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export const token = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** `GET`, with the parameters that have a value. */
export function look(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== "");
  const query = new URLSearchParams(given).toString();
  return call("GET", query ? `${path}?${query}` : path);
}

/** `POST` of an object. */
export function tell(path, body) {
  return call("POST", path, JSON.stringify(body));
}

/** All pages of a list: `name` is what the answer calls it. */
export async function lookAtAll(path, name) {
  const found = [];
  for (let after; ;) {
    const page = await look(path, { after });
    found.push(...page[name]);
    if (!page.next) return found;
    after = page.next;
  }
}

async function call(method, path, body) {
  const headers = { authorization: `Bearer ${token.get()}` };
  if (body) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(PREFIX + path, { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(WITHIN_MS) });
  } catch {
    throw new Refused(0, "unreachable", "the broker does not answer");
  }
  const told = await answer.json().catch(() => ({ code: "unreadable", message: "the answer can not be read" }));
  if (!answer.ok) throw new Refused(answer.status, told.code, told.message);
  return told;
}
