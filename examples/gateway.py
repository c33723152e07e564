#!/usr/bin/env python3
"""A whole gateway over TCP, with a telephone network of its own in place of WhatsApp: what it is told to send it prints, and
each line that it reads, `FROM TEXT`, is a customer's message. With --echo customers say what they were told.

    SHAREDLINE_TOKEN=… ./gateway.py 127.0.0.1:7411 acme whatsapp +15550783881 [--echo]
"""
import itertools, json, os, random, socket, sys, threading, time, uuid

ADDRESS, PORTAL, GATEWAY, NUMBER, *ECHO = sys.argv[1:]
FINAL = {"unauthenticated", "unsupported_version", "replaced", "revoked"}  # connecting again would come to nothing
AGAIN = {"overloaded", "unavailable", "internal"}  # the same request may work later
asked, ids, lock = {}, itertools.count(1), threading.Lock()  # requests without an answer, by id
peer, pause, retry_after = None, 0.1, 0

def send(request):
    try:
        if peer and request["id"] in asked:
            peer.sendall(json.dumps(request).encode() + b"\n")
    except OSError:
        pass  # it is asked again on the next connection

def ask(**request):
    with lock:
        request["id"] = next(ids)
        asked[request["id"]] = request
        send(request)

def write(customer, text):
    """A customer writes. Asked again, it has the same id and time: however often it is brought, it is one message."""
    ask(type="inbound", number=NUMBER, message_id=f"wamid.{uuid.uuid4()}", customer={"id": customer},
        at=int(time.time() * 1000), content={"type": "text", "text": {"body": text}})

def take(message):
    global retry_after
    code = message.get("code")
    if code in FINAL:
        os._exit(1)
    if message["type"] == "goaway":
        retry_after = message["retry_after_ms"] / 1000
    elif message["type"] == "send":  # it comes once, so the network gets it once
        text = message["content"].get("text", {}).get("body", "")
        print("to", message["to"], text, flush=True)
        ask(type="sent", channel=message["channel"], offset=message["offset"], message_id=f"wamid.{uuid.uuid4()}")
        if ECHO:
            write(message["to"], text)
    elif code in AGAIN:
        threading.Timer(message.get("retry_after_ms", 1000) / 1000, send, [asked.get(message["id"])]).start()
    elif "id" in message:
        request = asked.pop(message["id"], {})
        if code:  # for good: not_found, bad_message …
            print("refused", request.get("message_id"), code, flush=True)

def read_customers():
    for line in sys.stdin:
        write(*line.rstrip("\n").split(" ", 1))

threading.Thread(target=read_customers, daemon=True).start()
while True:
    try:
        host, port = ADDRESS.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as connection, connection.makefile("rb") as lines:
            connection.settimeout(None)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            hello = dict(type="hello", id=next(ids), version=1, portal=PORTAL, gateway=GATEWAY, token=os.environ["SHAREDLINE_TOKEN"])
            connection.sendall(json.dumps(hello).encode() + b"\n")
            for line in lines:
                message = json.loads(line)
                if message["type"] == "welcome":
                    with lock:  # what had no answer is asked again before anything new
                        peer, pause = connection, 0.1
                        for request in list(asked.values()):
                            send(request)
                else:
                    take(message)
    except OSError as error:
        print("lost:", error, file=sys.stderr, flush=True)
    peer = None
    time.sleep(max(retry_after, random.uniform(pause / 2, pause)))
    pause, retry_after = min(pause * 2, 10), 0
