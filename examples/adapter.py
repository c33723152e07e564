#!/usr/bin/env python3
"""A whole service adapter: it picks every customer's message up and answers it, once. Python's standard library alone.

    SHAREDLINE_TOKEN=… ./adapter.py 127.0.0.1:7411 acme crm +15550783881 ann
"""
import collections, json, os, random, socket, sys, time

ADDRESS, PORTAL, SERVICE, NUMBER, AGENT = sys.argv[1:]
FINAL = {"unauthenticated", "unsupported_version", "replaced", "revoked"}  # connecting again would come to nothing
AGAIN = {"overloaded", "unavailable", "internal"}  # the same request may work later
done = collections.OrderedDict()  # (channel, offset) of all that is done: how a repeat is told


class Refused(Exception):
    pass


class Connection:
    last_id, retry_after, was_welcome = 0, 0, False

    def run(self):
        host, port = ADDRESS.rsplit(":", 1)
        with socket.create_connection((host, int(port)), timeout=20) as self.socket, self.socket.makefile("rb") as self.lines:
            self.socket.settimeout(None)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a broker whose machine is gone is noticed
            self.deliveries = collections.deque()
            self.ask(type="hello", version=1, portal=PORTAL, service=SERVICE, adapter=f"{SERVICE}-{AGENT}",
                     token=os.environ["SHAREDLINE_TOKEN"], window=256)
            self.was_welcome = True
            self.ask(type="roster", agents=[{"agent": AGENT, "name": AGENT.title()}], replace=False)
            self.ask(type="create_channel", number=NUMBER)  # joins, or comes back; changes nothing where it is there
            while True:
                while not self.deliveries:
                    self.take()
                self.work(self.deliveries.popleft())

    def work(self, delivery):
        """One delivery after the other, and its `ack` last: it covers all that came before."""
        if "offset" not in delivery:
            return  # `presence` needs none
        place = delivery["channel"], delivery["offset"]
        if delivery["type"] == "message" and place not in done:
            try:
                self.answer(delivery)
            except Refused as refused:  # for good: claimed, window_closed, channel_closed …
                print("not answered", delivery["message_id"], refused, flush=True)
        done[place] = True
        if len(done) > 10_000:
            done.popitem(last=False)
        self.send(type="ack", channel=place[0], offset=place[1])

    def answer(self, message):
        of = {"channel": message["channel"], "conversation": message["conversation"], "agent": AGENT}
        self.ask_confirmed(type="pick_up", **of)
        seen = self.ask(type="open", **of)["head"]
        text = message["content"].get("text", {}).get("body", "")
        # The same message always gives the same name and content: however often it is sent, it is one reply.
        self.ask_confirmed(type="reply", **of, seen=seen, reply_id=f"{message['channel']}:{message['offset']}",
                           content={"type": "text", "text": {"body": f"{AGENT.title()} has read: {text}"}})
        print("answered", message["message_id"], flush=True)

    def ask_confirmed(self, **request):
        response = self.ask(**request)
        while response["type"] == "warning":  # a person would be shown the texts, and decide
            print("warned", *(warning["text"] for warning in response["warnings"]), flush=True)
            response = self.ask(**request, confirm=response["confirm"])
        return response

    def ask(self, **request):
        self.last_id += 1
        self.send(**request, id=self.last_id)
        while (response := self.take()).get("id") != self.last_id:
            pass
        if response["type"] != "error":
            return response
        if response["code"] not in AGAIN:
            raise Refused(response["code"])
        time.sleep(response.get("retry_after_ms", 1000) / 1000)
        return self.ask(**request)

    def send(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def take(self):
        """Reads one message; deliveries wait for their turn."""
        line = self.lines.readline()
        if not line.endswith(b"\n"):
            raise ConnectionError("the connection ended")
        message = json.loads(line)
        if message["type"] == "error" and message["code"] in FINAL:
            sys.exit(message["code"])
        if message["type"] == "goaway":
            self.retry_after = message["retry_after_ms"] / 1000
        elif "id" not in message and "channel" in message:
            self.deliveries.append(message)
        return message


pause = 0.1
while True:
    connection = Connection()
    try:
        connection.run()
    except (OSError, Refused) as error:
        print("lost:", error, file=sys.stderr, flush=True)
    pause = 0.1 if connection.was_welcome else min(pause * 2, 10)
    time.sleep(max(connection.retry_after, random.uniform(pause / 2, pause)))
