#!/usr/bin/env node
// A whole service adapter: it picks every customer's message up and answers it, once. Node's standard library alone.
//
//     SHAREDLINE_TOKEN=… ./adapter.mjs 127.0.0.1:7411 acme crm +15550783881 ann
import net from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const [address, portal, service, number, agent] = process.argv.slice(2);
const name = agent[0].toUpperCase() + agent.slice(1);
const FINAL = new Set(["unauthenticated", "unsupported_version", "replaced", "revoked"]); // coming again would be in vain
const AGAIN = new Set(["overloaded", "unavailable", "internal"]); // the same request may work later
const done = new Set(); // channel and offset of all that is done: how a repeat is told

class Refused extends Error {}

class Connection {
  waiting = new Map(); // requests without an answer, by id
  turn = Promise.resolve(); // one delivery after the other, and its `ack` last: it covers all that came before
  lastId = 0;
  retryAfterMs = 0;
  wasWelcome = false;

  async run() {
    const colon = address.lastIndexOf(":");
    this.socket = net.connect({ host: address.slice(0, colon), port: +address.slice(colon + 1), keepAlive: true }); // a broker whose machine is gone is noticed
    const over = new Promise((resolve, reject) => this.socket.on("error", reject).on("close", resolve));
    over.catch(() => {}).finally(() => this.waiting.forEach(({ reject }) => reject(new Error("the connection is lost"))));
    this.read();
    try {
      await this.ask({ type: "hello", version: 1, portal, service, adapter: `${service}-${agent}`, window: 256, token: process.env.SHAREDLINE_TOKEN });
      this.wasWelcome = true;
      await this.ask({ type: "roster", agents: [{ agent, name }], replace: false });
      await this.ask({ type: "create_channel", number }); // joins, or comes back; changes nothing where it is there
      await over;
    } finally {
      this.socket.destroy();
      await this.turn.catch(() => {});
    }
  }

  read() {
    let rest = "";
    this.socket.setEncoding("utf8").on("data", (text) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      lines.forEach((line) => this.take(JSON.parse(line)));
    });
  }

  take(message) {
    if (message.id) {
      this.waiting.get(message.id)?.resolve(message);
      this.waiting.delete(message.id);
    } else if (message.type === "goaway") this.retryAfterMs = message.retry_after_ms;
    else if (message.type === "error") FINAL.has(message.code) && process.exit(1);
    else if (message.channel) {
      this.turn = this.turn.then(() => this.work(message));
      this.turn.catch(() => this.socket.destroy()); // what is not done comes again
    }
  }

  async work(delivery) {
    if (delivery.offset === undefined) return; // `presence` needs none
    const place = `${delivery.channel}:${delivery.offset}`;
    if (delivery.type === "message" && !done.has(place)) {
      await this.answer(delivery, place).catch((error) => {
        if (!(error instanceof Refused)) throw error;
        console.log("not answered", delivery.message_id, error.message); // for good: claimed, window_closed …
      });
    }
    done.add(place);
    if (done.size > 10_000) done.delete(done.values().next().value);
    this.send({ type: "ack", channel: delivery.channel, offset: delivery.offset });
  }

  async answer({ channel, conversation, message_id, content }, place) {
    const of = { channel, conversation, agent };
    await this.askConfirmed({ type: "pick_up", ...of });
    const { head: seen } = await this.ask({ type: "open", ...of });
    const body = `${name} has read: ${content.text?.body ?? ""}`;
    // The same message always gives the same name and content: however often it is sent, it is one reply.
    await this.askConfirmed({ type: "reply", ...of, seen, reply_id: place, content: { type: "text", text: { body } } });
    console.log("answered", message_id);
  }

  async askConfirmed(request) {
    let response = await this.ask(request);
    while (response.type === "warning") { // a person would be shown the texts, and decide
      console.log("warned", ...response.warnings.map(({ text }) => text));
      response = await this.ask({ ...request, confirm: response.confirm });
    }
    return response;
  }

  async ask(request) {
    const id = ++this.lastId;
    const response = await new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ ...request, id });
    });
    if (response.type !== "error") return response;
    if (FINAL.has(response.code)) process.exit(1);
    if (!AGAIN.has(response.code)) throw new Refused(response.code);
    await sleep(response.retry_after_ms ?? 1000);
    return this.ask(request);
  }

  send(message) {
    if (this.socket.destroyed) throw new Error("the connection is lost");
    this.socket.write(JSON.stringify(message) + "\n");
  }
}

for (let pause = 100; ; pause = Math.min(pause * 2, 10_000)) {
  const connection = new Connection();
  await connection.run().catch((error) => console.error("lost:", error.message));
  if (connection.wasWelcome) pause = 100;
  await sleep(Math.max(connection.retryAfterMs, pause * (0.5 + Math.random() / 2)));
}
