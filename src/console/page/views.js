// What each view shows. A view is asked with its address; it gives what to show, made of what the API answered.

import { look, lookAtAll, tell } from "./api.js";
import { ask, bytes, figures, make, span, table, time } from "./dom.js";

const STANDING = {
  none: [["create", "Create"]],
  subscribed: [["deactivate", "Deactivate"], ["delete", "Delete"]],
  inactive: [["activate", "Activate"], ["delete", "Delete"]],
};
/** Conversations that a page has. */
const PAGE = 50;
/** Entries of a timeline that are shown at first, and that each "Earlier" adds. */
const ENTRIES = 50;

const here = (...parts) => `#/${parts.map(encodeURIComponent).join("/")}`;
const to = (href, text, kind) => make("a", { href, class: kind }, text);

/** The whole broker: how it is, its channels, and what is connected. */
export async function overview() {
  const [health, { portals }, channels, { sessions }] = await Promise.all([
    look("/health"), look("/portals"), lookAtAll("/channels", "channels"), look("/sessions"),
  ]);
  const { journal } = health;
  return [
    figures([
      ["Broker", health.ready ? "works" : `halted: ${health.halted}`, health.ready ? "good" : "bad"],
      ["Up for", span(health.uptime_seconds)],
      ["Version", health.version],
      ["Channels", `${health.channels.active} active, ${health.channels.dormant} dormant`],
      ["Quarantined", health.channels.quarantined, health.channels.quarantined ? "bad" : ""],
      ["Conversations", health.conversations],
      ["Replies on their way", health.replies_open],
      ["Journal", bytes(journal.size_bytes)],
      ["Room without asking the disk", journal.has_room ? bytes(journal.room_bytes) : "none", journal.has_room ? "" : "bad"],
      ["Damage found", journal.damage_found, journal.damage_found ? "bad" : ""],
    ]),
    make("h2", {}, "Numbers"),
    table(["Portal", "Number", "State", "Parent", "Subscribers", ""],
      numbers(portals, channels), "The configuration has no numbers."),
    make("h2", {}, "Connected"),
    table(["Portal", "Service", "Adapter", "Takes", "Unacknowledged", "In flight"],
      sessions.map((seen) => [seen.portal, seen.service ?? "gateway", seen.adapter, seen.kind,
        `${seen.unacknowledged} of ${seen.window}`, String(seen.in_flight)]), "Nobody is connected."),
  ];
}

/** Every number with its channels; one that has none can be created. */
function numbers(portals, channels) {
  return portals.flatMap(({ portal, services, numbers }) => numbers.flatMap((number) => {
    const own = channels.filter((channel) => channel.portal === portal && channel.number === number);
    if (own.length === 0) {
      const creates = services.map((service) => change("Create in " + service, `Create ${number} in ${service}?`,
        "/channels", { portal, service, number }));
      return [[portal, number, make("span", { class: "soft" }, "no channel"), "", "", make("div", { class: "row" }, creates)]];
    }
    return own.map((channel) => [portal, to(here("channels", channel.channel), number), stateOf(channel),
      channel.parent, channel.subscribers.join(", "), ""]);
  }));
}

function stateOf({ state, quarantined }) {
  if (quarantined) return make("span", { class: "bad" }, "quarantined");
  return make("span", { class: { active: "good", dormant: "warn", closed: "soft" }[state] }, state);
}

/** A button that changes something once it is confirmed. */
function change(text, question, path, body, wanted) {
  const pressed = async () => {
    const given = await ask(question, text, wanted?.label);
    if (!given) return;
    // The button may have been drawn anew while the question stood.
    document.getElementById("view").dispatchEvent(new CustomEvent("change-asked", {
      detail: () => tell(path, wanted ? { ...body, [wanted.field]: given } : body),
    }));
  };
  return make("button", { type: "button", onclick: pressed }, text);
}

/** One channel: its list, and who may come and go. */
export async function channel([id]) {
  const [seen, { portals }] = await Promise.all([look(`/channels/${id}`), look("/portals")]);
  const services = portals.find(({ portal }) => portal === seen.portal)?.services ?? [];
  const all = [...seen.subscribers, ...seen.inactive, ...services.filter((service) =>
    !seen.subscribers.includes(service) && !seen.inactive.includes(service))];
  return [
    make("h1", {}, seen.number, " ", make("small", { class: "soft" }, seen.portal)),
    figures([
      ["State", seen.quarantined ? "quarantined" : seen.state, seen.quarantined ? "bad" : ""],
      ["Parent", seen.parent ?? "none"],
      ["Last offset", seen.head],
      ["Others see who replied", seen.settings.reveal_service ? "yes" : "no"],
      ["Others see the kind of a reply", seen.settings.reveal_kind ? "yes" : "no"],
    ]),
    make("h2", {}, "Services"),
    table(["Service", "Standing", "Conversations", ""],
      all.map((service) => serviceRow(seen, service)), "The portal has no services."),
    make("p", { class: "soft" }, "Channel ", make("span", { class: "id" }, seen.channel)),
  ];
}

function serviceRow(seen, service) {
  const place = seen.subscribers.indexOf(service);
  const standing = place >= 0 ? "subscribed" : seen.inactive.includes(service) ? "inactive" : "none";
  const words = standing === "subscribed" ? `${place + 1}${service === seen.parent ? ", parent" : ""}` : standing;
  const buttons = STANDING[standing].map(([action, text]) => {
    const creates = action === "create";
    return change(text, `${text} ${seen.number} in ${service}?`,
      creates ? "/channels" : `/channels/${seen.channel}/${action}`,
      creates ? { portal: seen.portal, service, number: seen.number } : { service });
  });
  const conversations = standing === "subscribed" ? to(here("channels", seen.channel, "as", service), "as it sees them") : "";
  return [service, words, conversations, seen.state === "closed" ? "" : make("div", { class: "row" }, buttons)];
}

/** The conversations of a channel, as one service sees them. */
export async function conversations([id, service], { after, only }) {
  const filters = { unanswered: { unanswered: true }, claimed: { claimed: true } };
  const { conversations, next } = await look(`/channels/${id}/conversations`,
    { as: service, after, limit: PAGE, ...filters[only] });
  const base = here("channels", id, "as", service);
  const choices = [["", "All"], ["unanswered", "Unanswered"], ["claimed", "Picked up"]];
  return [
    make("h1", {}, "Conversations as ", service, " sees them"),
    make("div", { class: "row", role: "group", "aria-label": "Which" }, choices.map(([value, text]) =>
      make("a", { href: value ? `${base}?only=${value}` : base, "aria-current": (only ?? "") === value && "true" }, text))),
    table(["Customer", "Window", "Answered", "Picked up by", "Last offset"],
      conversations.map((seen) => [
        to(here("channels", id, "as", service, seen.conversation), customer(seen.customer)), windowOf(seen),
        seen.unanswered ? make("span", { class: "warn" }, "no") : "yes", holders(seen.claims), String(seen.head),
      ]), "No conversation."),
    next && to(`${base}?after=${next}${only ? `&only=${only}` : ""}`, "Next"),
  ];
}

const customer = ({ id, name, phone }) => [name, phone ?? id].filter(Boolean).join(" · ") || "unknown";

function windowOf({ window, window_expires_at: until }) {
  if (until === undefined) return window;
  return make("span", { title: new Date(until).toLocaleString() }, window);
}

function holders(claims) {
  return claims.map((claim) => (claim.own ? claim.name ?? claim.agent : "someone in another service")).join(", ");
}

/** One conversation with its timeline, as one service sees it. */
export async function conversation([id, service, conversation], { entries }) {
  const path = `/channels/${id}/conversations/${conversation}`;
  const shown = Math.max(ENTRIES, Number(entries) || 0);
  const seen = await timeline(path, service, shown);
  const own = seen.claims.filter((claim) => claim.own && claim.agent);
  return [
    make("h1", {}, customer(seen.customer)),
    figures([["Window", seen.window], ["As", service], ["Last offset", seen.head],
      ["Picked up by", holders(seen.claims) || "nobody"], ["Thread", threadOf(seen.thread, service)]]),
    own.map((claim) => make("div", { class: "row" }, `${claim.name ?? claim.agent} has it since `, time(claim.since),
      change("Release", `Take the conversation from ${claim.name ?? claim.agent}?`, `${path}/release`,
        { service, holder: claim.agent }),
      change("Hand on", `Hand the conversation of ${claim.name ?? claim.agent} on to`, `${path}/transfer`,
        { service, holder: claim.agent }, { field: "to", label: "Agent" }))),
    seen.more && make("div", { class: "row" },
      to(`${here("channels", id, "as", service, conversation)}?entries=${shown + ENTRIES}`, "Earlier")),
    make("ol", { class: "timeline" }, seen.timeline.map(entry)),
  ];
}

/** Whose the thread is, as that service may know it. */
function threadOf({ owner }, service) {
  return { self: service, another: "another service", none: "nobody's" }[owner];
}

/** The last `wanted` entries; the API gives so many at a time and where to go on. */
async function timeline(path, as, wanted) {
  const seen = await look(path, { as, limit: Math.min(wanted, 200) });
  while (seen.more && seen.timeline.length < wanted) {
    const before = seen.timeline[0].offset;
    const earlier = await look(path, { as, before, limit: Math.min(wanted - seen.timeline.length, 200) });
    seen.timeline.unshift(...earlier.timeline);
    seen.more = earlier.more;
  }
  return seen;
}

function entry(told) {
  const { type, at } = told;
  const when = [time(at), ` · ${told.offset}`];
  const foot = make("small", {}, type === "reply" && told.agent ? `${told.agent} · ` : "", when);
  if (type === "message" || type === "reply") return make("li", { class: type }, content(told), foot);
  if (type === "masked_reply") {
    const who = told.service ?? "Another service";
    return make("li", { class: type }, make("p", {}, `${who} replied${told.kind ? ` (${told.kind})` : ""}`), foot);
  }
  return make("li", { class: "fact" }, fact(told), " ", foot);
}

function fact(told) {
  switch (told.type) {
    case "claim": return `${told.own ? told.agent : "someone in another service"}: ${told.action.replace("_", " ")}`;
    case "receipt": return `${told.reply_id}: ${told.status}${told.error ? ` (${told.error.code})` : ""}`;
    case "gap": return `${told.from} to ${told.to} are lost: ${told.reason}`;
    default: return told.type.replaceAll("_", " ");
  }
}

/** What people read of a message, and all of it for who wants to know. */
function content({ content, redacted }) {
  const part = content[content.type] ?? {};
  const text = part.body ?? part.caption ?? part.text ?? part.emoji ?? part.button_reply?.title ?? part.list_reply?.title;
  return [
    make("p", {}, typeof text === "string" ? text : `(${content.type ?? "message"})`),
    make("details", {}, make("summary", { class: "soft" }, redacted ? `${content.type}, redacted` : String(content.type)),
      make("pre", {}, JSON.stringify(content, null, 1))),
  ];
}
