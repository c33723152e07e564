// A bot on @kapso/whatsapp-cloud-api, as it would be written for WhatsApp's Cloud API. It answers texts that begin with
// `js` and says on standard output, a JSON object a line, what the library has told it.

import { createHash } from "node:crypto";
import { createServer } from "node:http";

import { WhatsAppClient } from "@kapso/whatsapp-cloud-api";
import { normalizeWebhook, verifySignature } from "@kapso/whatsapp-cloud-api/server";

const { APP_SECRET, BASE_URL, PHONE_NUMBER_ID, PORT, TOKEN } = process.env;
const say = (event, fields) => console.log(JSON.stringify({ event, ...fields }));

// All that joining a shared number takes: another base URL and another token.
const client = new WhatsAppClient({ baseUrl: BASE_URL, accessToken: TOKEN });

async function onMessage(message, echo) {
  if (echo) return say("echo", { text: message.text?.body });
  if (message.type === "text") {
    say("text", { text: message.text.body, from: message.from });
    if (message.text.body.startsWith("js")) {
      const sent = await client.messages.sendInteractiveButtons({
        phoneNumberId: PHONE_NUMBER_ID,
        to: message.from,
        bodyText: "js-answer",
        buttons: [{ id: "js-secret", title: "Go" }],
        bizOpaqueCallbackData: "js-tracker",
      });
      say("sent", { id: sent.messages[0].id });
    }
  }
  if (message.type === "interactive") {
    say("button", { reply: message.interactive.buttonReply ?? message.interactive.button_reply });
  }
  if (message.type === "image") {
    const bytes = await client.media.download({ mediaId: message.image.id, phoneNumberId: PHONE_NUMBER_ID });
    say("image", { sha256: createHash("sha256").update(Buffer.from(bytes)).digest("hex") });
  }
}

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
    response.writeHead(200).end();
    const webhook = normalizeWebhook(JSON.parse(rawBody.toString()));
    for (const status of webhook.statuses) {
      const tracker = status.bizOpaqueCallbackData;
      say("status", { id: status.id, status: status.status, tracker, user: status.recipientUserId });
    }
    for (const message of webhook.messages) {
      await onMessage(message, message.kapso?.direction === "outbound").catch((error) =>
        say("error", { message: String(error) }),
      );
    }
  });
}).listen(Number(PORT), "127.0.0.1", () => say("ready", {}));
