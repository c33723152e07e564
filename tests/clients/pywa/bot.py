"""A bot on pywa, as it would be written for WhatsApp's Cloud API. It answers texts that begin with `py` and says on
standard output, a JSON object a line, what pywa has told it."""

import hashlib
import json
import os
import threading

from pywa import WhatsApp, errors, filters, types


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


wa = WhatsApp(
    phone_id=os.environ["PHONE_NUMBER_ID"],
    waba_id=os.environ["WABA_ID"],
    token=os.environ["TOKEN"],
    app_secret=os.environ["APP_SECRET"],
    verify_token="unused",
    webhook_endpoint="/hook",
)
# All that joining a shared number takes: another base URL, and another token above.
wa.api._session.base_url = os.environ["BASE_URL"]


@wa.on_message(filters.text)
def on_text(_, msg):
    say("text", text=msg.text, name=msg.from_user.name, wa_id=msg.from_user.wa_id)
    if msg.text.startswith("py"):
        button = types.Button(title="Yes", callback_data="py-secret")
        sent = msg.reply_text("py-answer", buttons=[button], tracker="py-tracker")
        say("sent", id=sent.id)
    if msg.text.startswith("old"):
        try:
            wa.send_message(to="16505550000", text="too late")
        except errors.ReEngagementMessage as error:
            say("refused", code=error.code)


@wa.on_message(filters.image)
def on_image(_, msg):
    data = msg.image.get_bytes()
    say("image", sha256=hashlib.sha256(data).hexdigest())


@wa.on_message_status
def on_status(_, status):
    say("status", id=status.id, status=status.status.value, tracker=status.tracker)


@wa.on_callback_button
def on_button(_, button):
    say("button", data=button.data)


@wa.on_outgoing_message
def on_outgoing(_, msg):
    say("echo", text=msg.text)


threading.Timer(0, lambda: say("ready")).start()
wa.run(port=int(os.environ["PORT"]), log_level="warning")
