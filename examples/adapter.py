#!/usr/bin/env python3
"""A whole service adapter: it picks every customer's message up and answers it, once. Python's standard library alone.

    SHAREDLINE_TOKEN=… ./adapter.py 127.0.0.1:7411 acme crm +15550783881 ann
"""
import collections, json, os, random, socket, sys, time

ADDRESS, PORTAL, SERVICE, NUMBER, AGENT = sys.argv[1:]
FINAL = {"unauthenticated", "unsupported_version", "replaced", "revoked"}  # connecting again would come to nothing
AGAIN = {"overloaded", "unavailable", "internal"}  # the same request may work later
done = collections.OrderedDict()  # (channel, offset) of all that is done: how a repeat is told
pause = retry_after = 0.1  # before connecting again, in seconds: what grows, and what the broker asks for
waiting, last_id = collections.deque(), 0  # deliveries that wait for their turn; the last request's id

def take():
    """Reads one message; a delivery waits for its turn."""
    global retry_after
    if not (line := lines.readline()).endswith(b"\n"):
        raise ConnectionError("the connection ended")
    message = json.loads(line)
    if message.get("code") in FINAL:
        sys.exit(message["code"])
    if message["type"] == "goaway":
        retry_after = message["retry_after_ms"] / 1000
    elif "id" not in message and "channel" in message:
        waiting.append(message)
    return message

def send(**message):
    peer.sendall(json.dumps(message).encode() + b"\n")

def ask(**request):
    global last_id
    last_id += 1
    send(**request, id=last_id)
    while (response := take()).get("id") != last_id:
        pass
    if response["type"] == "warning":  # a person would be shown the texts, and decide
        print("warned", *(warning["text"] for warning in response["warnings"]), flush=True)
        return ask(**request | {"confirm": response["confirm"]})
    if response.get("code") in AGAIN:
        time.sleep(response.get("retry_after_ms", 1000) / 1000)
        return ask(**request)
    return response

def answer(message):
    of = {"channel": message["channel"], "conversation": message["conversation"], "agent": AGENT}
    text = message["content"].get("text", {}).get("body", "")
    response = ask(type="pick_up", **of)
    if response["type"] == "picked_up" and (response := ask(type="open", **of))["type"] == "conversation":
        # The same message always gives the same name and content: however often it is sent, it is one reply.
        response = ask(type="reply", **of, seen=response["head"], reply_id=f"{message['channel']}:{message['offset']}",
                       content={"type": "text", "text": {"body": f"{AGENT.title()} has read: {text}"}})
    # Refused is refused for good: claimed, window_closed, channel_closed …
    print("not answered" if "code" in response else "answered", message["message_id"], response.get("code", ""), flush=True)

while True:
    try:
        host, port = ADDRESS.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as peer, peer.makefile("rb") as lines:
            peer.settimeout(None)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a broker whose machine is gone is noticed
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # a request behind an `ack` leaves at once
            waiting.clear()  # what a lost connection had brought comes again
            if ask(type="hello", version=1, portal=PORTAL, service=SERVICE, adapter=f"{SERVICE}-{AGENT}",
                   token=os.environ["SHAREDLINE_TOKEN"], window=256)["type"] == "welcome":
                pause = 0.1
            ask(type="roster", agents=[{"agent": AGENT, "name": AGENT.title()}], replace=False)
            ask(type="create_channel", number=NUMBER)  # joins, or comes back; changes nothing where it is there
            while True:  # one delivery after the other, and its `ack` last: it covers all that came before
                while not waiting:
                    take()
                delivery = waiting.popleft()
                if (offset := delivery.get("offset")) is None:
                    continue  # `presence` needs no ack
                place = delivery["channel"], offset
                if delivery["type"] == "message" and place not in done:
                    answer(delivery)
                done[place] = True
                if len(done) > 10_000:
                    done.popitem(last=False)
                send(type="ack", channel=place[0], offset=offset)
    except OSError as error:
        print("lost:", error, file=sys.stderr, flush=True)
    time.sleep(max(retry_after, random.uniform(pause / 2, pause)))
    pause, retry_after = min(pause * 2, 10), 0
