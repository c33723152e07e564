// A bot on @kapso/whatsapp-cloud-api, as it would be written for WhatsApp's Cloud API. It does what texts that begin with
// `js` ask for, and says on standard output, a JSON object a line, what the library has told it.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

import { GraphApiError, WhatsAppClient } from "@kapso/whatsapp-cloud-api";
import { normalizeWebhook, verifySignature } from "@kapso/whatsapp-cloud-api/server";

const { APP_SECRET, BASE_URL, PHONE_NUMBER_ID, PORT, TOKEN } = process.env;
const phoneNumberId = PHONE_NUMBER_ID;
const bizOpaqueCallbackData = "js-tracker";
const say = (event, fields) => console.log(JSON.stringify({ event, ...fields }));
const sha256 = (bytes) => createHash("sha256").update(Buffer.from(bytes)).digest("hex");

// All that joining a shared number takes: another base URL and another token.
const client = new WhatsAppClient({ baseUrl: BASE_URL, accessToken: TOKEN });

async function upload() {
  const file = new Blob(["a picture of js"], { type: "image/png" });
  return (await client.media.upload({ phoneNumberId, type: "image/png", file, fileName: "js.png" })).id;
}

const template = {
  name: "booking",
  language: { code: "en_US" },
  components: [
    { type: "header", parameters: [{ type: "image", image: { link: "https://example.com/js-answer.png" } }] },
    { type: "body", parameters: [{ type: "text", text: "js-answer" }] },
    { type: "button", sub_type: "quick_reply", index: "0", parameters: [{ type: "payload", payload: "js-secret" }] },
  ],
};
const rows = [{ id: "js-secret", title: "By the door", description: "js-answer" }];
const flow = { flowId: "1104", flowCta: "Book", flowToken: "js-secret", flowAction: "navigate",
  flowActionPayload: { screen: "FIRST" } };
const ada = { name: { formattedName: "js-answer", firstName: "Ada" }, phones: [{ phone: "+47 400 00 001", type: "WORK" }] };
const location = { latitude: 59.9139, longitude: 10.7522, name: "js-answer", address: "Street 1" };

const sends = {
  text: (to, m, id) => m.sendText({ ...to, contextMessageId: id, body: "js-answer", previewUrl: true }),
  buttons: (to, m) => m.sendInteractiveButtons({ ...to, bodyText: "js-answer", buttons: [{ id: "js-secret", title: "Yes" }] }),
  list: (to, m) => m.sendInteractiveList({ ...to, bodyText: "js-answer", buttonText: "Choose", sections: [{ title: "Inside", rows }] }),
  link: (to, m) => m.sendInteractiveCtaUrl({ ...to, bodyText: "js-answer",
    parameters: { displayText: "Menu", url: "https://example.com/js-answer" } }),
  flow: (to, m) => m.sendInteractiveFlow({ ...to, bodyText: "js-answer", parameters: flow }),
  image: async (to, m) => m.sendImage({ ...to, image: { id: await upload(), caption: "js-answer" } }),
  document: (to, m) => m.sendDocument({ ...to,
    document: { link: "https://example.com/js-answer.pdf", filename: "js-answer.pdf", caption: "js-answer" } }),
  voice: async (to, m) => m.sendAudio({ ...to, audio: { id: await upload(), voice: true } }),
  video: async (to, m) => m.sendVideo({ ...to, video: { id: await upload(), caption: "js-answer" } }),
  sticker: async (to, m) => m.sendSticker({ ...to, sticker: { id: await upload() } }),
  location: (to, m) => m.sendLocation({ ...to, location }),
  contacts: (to, m) => m.sendContacts({ ...to, contacts: [ada] }),
  reaction: (to, m, id) => m.sendReaction({ ...to, reaction: { messageId: id, emoji: "👍" } }),
  template: (to, m) => m.sendTemplate({ ...to, template }),
};

const refusals = {
  "too late": () => client.messages.sendText({ phoneNumberId, to: "16505550000", body: "js-answer" }),
  "bad token": (to) =>
    new WhatsAppClient({ baseUrl: BASE_URL, accessToken: "nobody's" }).messages.sendText({ phoneNumberId, to, body: "js-answer" }),
  nobody: () => client.messages.sendText({ phoneNumberId, to: "nobody", body: "js-answer" }),
  "too long": (to) => client.messages.sendText({ phoneNumberId, to, body: "x".repeat(4097) }),
  "not theirs": () => client.media.get({ mediaId: "424242" }),
};

// What an attempt is refused with, as the library's own error tells it.
async function refused(event, attempt) {
  const error = await attempt().catch((error) => error);
  if (!(error instanceof GraphApiError)) throw error;
  const { category, code, details, httpStatus } = error;
  say(event, { type: error.name, code, details, http: httpStatus, category });
}

async function onText(message) {
  const { from, id, text } = message;
  say("text", { text: text.body, from, id });
  const [name, ...rest] = text.body.split(" ");
  const what = rest.join(" ");
  if (name !== "js") return;
  if (what in sends) {
    const sent = await sends[what]({ phoneNumberId, to: from, bizOpaqueCallbackData }, client.messages, id);
    say("sent", { what, id: sent.messages[0].id });
  } else if (what in refusals) {
    await refused(what, () => refusals[what](from));
  } else if (what === "read") {
    const read = await client.messages.markRead({ phoneNumberId, messageId: id });
    const typing = await client.messages.markRead({ phoneNumberId, messageId: id, typingIndicator: { type: "text" } });
    say("read", { read: read.success, typing: typing.success });
  } else if (what === "delete") {
    const mediaId = await upload();
    say("deleted", { deleted: (await client.media.delete({ mediaId, phoneNumberId })).success });
    await refused("gone", () => client.media.get({ mediaId }));
  }
}

async function onMessage(message, echo) {
  const { id, redacted } = message;
  if (echo) return say("echo", { text: message.text?.body });
  const media = message.image ?? message.audio ?? message.video ?? message.document ?? message.sticker;
  if (message.type === "text") return onText(message);
  if (message.type === "interactive") {
    const { buttonReply, listReply, nfmReply } = message.interactive;
    return say("interactive", { buttonReply, listReply, flow: nfmReply && message.kapso?.flowResponse, id, redacted });
  }
  if (message.type === "button") return say("button", { button: message.button, to: message.context.id, redacted });
  if (media) {
    const bytes = await client.media.download({ mediaId: media.id, phoneNumberId });
    return say("media", { kind: message.type, caption: media.caption, sha256: sha256(bytes) });
  }
  say("message", { kind: message.type, context: message.context?.id });
}

const failed = new Set();

createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    const rawBody = Buffer.concat(chunks);
    const signatureHeader = request.headers["x-hub-signature-256"];
    if (!verifySignature({ appSecret: APP_SECRET, rawBody, signatureHeader })) {
      say("forged", {});
      return response.writeHead(401).end();
    }
    if (rawBody.includes("js fails")) {
      say("fails", { sha256: sha256(rawBody) });
      if (!failed.has(signatureHeader)) {
        failed.add(signatureHeader);
        return response.writeHead(500).end();
      }
    }
    response.writeHead(200).end();
    const webhook = normalizeWebhook(JSON.parse(rawBody.toString()));
    for (const { bizOpaqueCallbackData, errors, id, recipientUserId, status } of webhook.statuses) {
      say("status", { id, status, tracker: bizOpaqueCallbackData, user: recipientUserId, error: errors?.[0] });
    }
    for (const message of webhook.messages) {
      await onMessage(message, message.kapso?.direction === "outbound").catch((error) =>
        say("error", { message: String(error) }),
      );
      say("raw", { id: message.id });
    }
  });
}).listen(Number(PORT), "127.0.0.1", () => say("ready", {}));
