"""A bot on pywa, as it would be written for WhatsApp's Cloud API. It does what texts that begin with `py` ask for, and
says on standard output, a JSON object a line, what pywa has told it."""

import hashlib
import json
import logging
import os
import threading

import uvicorn
from pywa import WhatsApp, errors, filters, types
from pywa.types import templates
from starlette.applications import Starlette
from starlette.responses import Response

TRACKER = "py-tracker"


saying = threading.Lock()


def say(event, **fields):
    with saying:
        print(json.dumps({"event": event, **fields}), flush=True)


class Complaints(logging.Handler):
    """What pywa has to say against an update."""

    def emit(self, record):
        error = record.exc_info[0].__name__ if record.exc_info else None
        say("complaint", text=record.getMessage(), error=error)


logging.getLogger("pywa").addHandler(Complaints(level=logging.WARNING))

server = Starlette()
wa = WhatsApp(
    phone_id=os.environ["PHONE_NUMBER_ID"],
    waba_id=os.environ["WABA_ID"],
    token=os.environ["TOKEN"],
    app_secret=os.environ["APP_SECRET"],
    verify_token="unused",
    webhook_endpoint="/hook",
    server=server,
)
# All that joining a shared number takes: another base URL, and another token above.
wa.api._session.base_url = os.environ["BASE_URL"]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def list_of_tables():
    row = types.SectionRow(title="By the door", callback_data="py-secret", description="py-answer")
    return types.SectionList(button_title="Choose", sections=[types.Section(title="Inside", rows=[row])])


def flow():
    return types.FlowButton(
        title="Book",
        flow_id="1104",
        flow_token="py-secret",
        flow_action_type=types.FlowActionType.NAVIGATE,
        flow_action_screen="FIRST",
    )


def ada():
    return types.Contact(
        name=types.Contact.Name(formatted_name="py-answer", first_name="Ada"),
        phones=[types.Contact.Phone(phone="+47 400 00 001", type="WORK")],
    )


def upload():
    return wa.upload_media(b"a picture of py", mime_type="image/png", filename="py.png").id


def template(to):
    params = [
        templates.HeaderImage.params(image="https://example.com/py-answer.png"),
        templates.BodyText.params("py-answer"),
        templates.QuickReplyButton.params(callback_data="py-secret", index=0),
    ]
    language = templates.TemplateLanguage.ENGLISH_US
    return wa.send_template(to, name="booking", language=language, params=params, tracker=TRACKER)


SENDS = {
    "text": lambda m: m.reply_text("py-answer", quote=True, preview_url=True, tracker=TRACKER),
    "buttons": lambda m: m.reply_text("py-answer", buttons=[types.Button("Yes", "py-secret")], tracker=TRACKER),
    "list": lambda m: m.reply_text("py-answer", buttons=list_of_tables(), tracker=TRACKER),
    "link": lambda m: m.reply_text("py-answer", buttons=types.URLButton("Menu", "https://example.com/py-answer")),
    "flow": lambda m: m.reply_text("py-answer", buttons=flow()),
    "image": lambda m: m.reply_image(upload(), caption="py-answer", tracker=TRACKER),
    "document": lambda m: m.reply_document("https://example.com/py-answer.pdf", filename="py-answer.pdf",
                                           caption="py-answer"),
    "voice": lambda m: m.reply_audio(upload(), is_voice=True),
    "video": lambda m: m.reply_video(upload(), caption="py-answer"),
    "sticker": lambda m: m.reply_sticker(upload()),
    "location": lambda m: m.reply_location(59.9139, 10.7522, name="py-answer", address="Street 1"),
    "contacts": lambda m: m.reply_contact(ada()),
    "reaction": lambda m: m.react("👍", tracker=TRACKER),
    "template": lambda m: template(m.from_user.wa_id),
}


def refused(event, attempt):
    """What an attempt is refused with, as pywa's own exceptions tell it."""
    try:
        attempt()
    except errors.WhatsAppError as error:
        say(event, type=type(error).__name__, code=error.code, details=error.details, http=error.status_code)


def with_a_wrong_token(to):
    other = WhatsApp(phone_id=os.environ["PHONE_NUMBER_ID"], token="nobody's")
    other.api._session.base_url = os.environ["BASE_URL"]
    other.send_message(to, "py-answer")


REFUSED = {
    "too late": lambda to: wa.send_message("16505550000", "py-answer"),
    "bad token": with_a_wrong_token,
    "nobody": lambda to: wa.send_message("nobody", "py-answer"),
    "too long": lambda to: wa.send_message(to, "x" * 4097),
    "not theirs": lambda to: wa.get_media_url("424242"),
}


@wa.on_message(filters.text)
def on_text(_, msg):
    say("text", text=msg.text, name=msg.from_user.name, wa_id=msg.from_user.wa_id, id=msg.id)
    name, _, what = msg.text.partition(" ")
    if name != "py":
        return
    if what in SENDS:
        say("sent", what=what, id=SENDS[what](msg).id)
    elif what in REFUSED:
        refused(what, lambda: REFUSED[what](msg.from_user.wa_id))
    elif what == "read":
        say("read", read=msg.mark_as_read().success, typing=msg.indicate_typing().success)
    elif what == "delete":
        media = upload()
        say("deleted", deleted=wa.delete_media(media).success)
        refused("gone", lambda: wa.get_media_url(media))


@wa.on_message(filters.media)
def on_media(_, msg):
    say("media", kind=msg.type.value, caption=msg.caption, sha256=sha256(msg.media.get_bytes()))


@wa.on_message(~filters.text & ~filters.media)
def on_other(_, msg):
    say("message", kind=msg.type.value, context=msg.reply_to_message and msg.reply_to_message.id)


@wa.on_message_status
def on_status(_, status):
    error = status.error and {"type": type(status.error).__name__, "code": status.error.code}
    if error:
        error["details"] = status.error.details
    say("status", id=status.id, status=status.status.value, tracker=status.tracker, error=error,
        wa_id=status.from_user.wa_id)


@wa.on_callback_button
def on_button(_, button):
    say("button", data=button.data, title=button.title, to=button.reply_to_message.id)


@wa.on_callback_selection
def on_selection(_, chosen):
    say("chosen", data=chosen.data, title=chosen.title, description=chosen.description)


@wa.on_flow_completion
def on_flow(_, flow):
    say("flow", token=flow.token, response=flow.response)


@wa.on_phone_number_change
def on_phone_number_change(_, change):
    say("number", old=change.old_wa_id, new=change.new_wa_id)


@wa.on_outgoing_message
def on_outgoing(_, msg):
    say("echo", text=msg.text)


@wa.on_raw_update
def on_raw(_, update):
    """Every update, whether pywa has a type for it or not."""
    value = update["entry"][0]["changes"][0]["value"]
    for message in value.get("messages", []):
        shown = {key: message.get(key) for key in ("id", "interactive", "button", "redacted")}
        say("raw", **shown)


class Failing:
    """Fails the first time that it gets certain updates: before pywa has them, or after."""

    def __init__(self):
        self.failed = set()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await server(scope, receive, send)
        message = await receive()
        body = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            body += message.get("body", b"")
        how = next((how for how in ("before", "after") if f"py fails {how}".encode() in body), None)
        if how:
            say("fails", how=how, sha256=sha256(body))
        fails = how is not None and how not in self.failed
        self.failed.add(how)

        async def again():
            return {"type": "http.request", "body": body, "more_body": False}

        async def nowhere(_):
            pass

        if not fails or how == "after":
            await server(scope, again, nowhere if fails else send)
        if fails:
            await Response("", status_code=503)(scope, again, send)


threading.Timer(0, lambda: say("ready")).start()
uvicorn.run(Failing(), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")
