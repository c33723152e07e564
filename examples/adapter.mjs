#!/usr/bin/env node
// A whole service adapter: it picks every customer's message up and answers it, once. Node's standard library alone.
//
//     SHAREDLINE_TOKEN=… ./adapter.mjs 127.0.0.1:7411 acme crm +15550783881 ann
import net from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";

const [address, portal, service, number, agent] = process.argv.slice(2);
const name = agent[0].toUpperCase() + agent.slice(1);
const FINAL = new Set(["unauthenticated", "unsupported_version", "replaced", "revoked"]); // coming again would be in vain
const AGAIN = new Set(["overloaded", "unavailable", "internal"]); // the same request may work later
const done = new Set(); // channel and offset of all that is done: how a repeat is told
let pause = 100, retryAfter = 0; // before connecting again, in ms: what grows, and what the broker asks for
let peer, asked, turn, lastId = 0; // the connection; requests without an answer, by id; its deliveries, one after the other

function take(message) {
  if (FINAL.has(message.code)) process.exit(1);
  if (message.type === "goaway") retryAfter = message.retry_after_ms;
  else if (message.id) asked.get(message.id)?.resolve(message);
  else if (message.channel) turn = turn.then(() => work(message));
  turn.catch(() => peer.destroy()); // what is not done comes again
}

function send(message) {
  if (peer.destroyed) throw new Error("the connection is lost");
  peer.write(JSON.stringify(message) + "\n");
}

async function ask(request) {
  const id = ++lastId;
  const response = await new Promise((resolve, reject) => {
    asked.set(id, { resolve, reject });
    send({ ...request, id });
  });
  asked.delete(id);
  if (response.type === "warning") { // a person would be shown the texts, and decide
    console.log("warned", ...response.warnings.map(({ text }) => text));
    return ask({ ...request, confirm: response.confirm });
  }
  if (!AGAIN.has(response.code)) return response;
  await sleep(response.retry_after_ms ?? 1000);
  return ask(request);
}

// The `ack` comes last: it covers all that came before.
async function work({ type, channel, offset, conversation, message_id, content }) {
  if (offset === undefined) return; // `presence` needs none
  const place = `${channel}:${offset}`;
  if (type === "message" && !done.has(place)) {
    const of = { channel, conversation, agent };
    let response = await ask({ type: "pick_up", ...of });
    if (response.type === "picked_up") response = await ask({ type: "open", ...of });
    if (response.type === "conversation") {
      const text = { body: `${name} has read: ${content.text?.body ?? ""}` };
      // The same message always gives the same name and content: however often it is sent, it is one reply.
      response = await ask({ type: "reply", ...of, seen: response.head, reply_id: place, content: { type: "text", text } });
    }
    // Refused is refused for good: claimed, window_closed, channel_closed …
    console.log(response.code ? "not answered" : "answered", message_id, response.code ?? "");
  }
  if (done.add(place).size > 10_000) done.delete(done.values().next().value);
  send({ type: "ack", channel, offset });
}

for (;;) {
  const colon = address.lastIndexOf(":");
  // A broker whose machine is gone is noticed; a request behind an `ack` leaves at once.
  peer = net.connect({ host: address.slice(0, colon), port: +address.slice(colon + 1), keepAlive: true, noDelay: true });
  [asked, turn] = [new Map(), Promise.resolve()];
  const over = new Promise((resolve) => peer.on("error", (error) => console.error("lost:", error.message)).on("close", resolve));
  over.then(() => asked.forEach(({ reject }) => reject(new Error("the connection is lost"))));
  createInterface({ input: peer }).on("line", (line) => take(JSON.parse(line))).on("error", () => {});
  try {
    await ask({ type: "hello", version: 1, portal, service, adapter: `${service}-${agent}`, window: 256, token: process.env.SHAREDLINE_TOKEN });
    pause = 100;
    await ask({ type: "roster", agents: [{ agent, name }], replace: false });
    await ask({ type: "create_channel", number }); // joins, or comes back; changes nothing where it is there
  } catch {} // it is lost
  await over;
  await turn.catch(() => {});
  await sleep(Math.max(retryAfter, pause * (0.5 + Math.random() / 2)));
  [pause, retryAfter] = [Math.min(pause * 2, 10_000), 0];
}
