#!/usr/bin/env python3
"""A service adapter in the binary encoding, written from docs/protocol.md alone: sections 10 and 11, no library.

    SHAREDLINE_TOKEN=… ./binary.py 127.0.0.1:7411 acme crm +15550783881 ann
"""
import os, random, socket, struct, sys, time

ADDRESS, PORTAL, SERVICE, NUMBER, AGENT = sys.argv[1:]
ERRORS = """bad_message unknown_type too_large unsupported_version unauthenticated forbidden not_found number_taken
service_not_eligible not_subscribed not_parent claimed not_claimed unknown_agent stale_confirm conflict window_closed
channel_closed overloaded unavailable internal replaced stalled timeout revoked""".split()
FINAL, AGAIN = {"unauthenticated", "unsupported_version", "replaced", "revoked"}, {"overloaded", "unavailable", "internal"}
done, pause, retry_after = {}, 0.1, 0


def varint(value):
    for limit, mark, size in ((251, None, 1), (1 << 16, 251, 2), (1 << 32, 252, 4), (1 << 64, 253, 8), (1 << 128, 254, 16)):
        if value < limit:
            return (b"" if mark is None else bytes([mark])) + value.to_bytes(size, "little")


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return varint(len(value)) + value


def option(value, write):
    return b"\0" if value is None else b"\1" + write(value)


class Reader:
    def __init__(self, frame):
        self.frame, self.at = frame, 0

    def bytes(self, count):
        self.at += count
        return self.frame[self.at - count:self.at]

    def int(self):
        first = self.bytes(1)[0]
        return first if first < 251 else int.from_bytes(self.bytes({251: 2, 252: 4, 253: 8, 254: 16}[first]), "little")

    def text(self):
        return self.bytes(self.int())

    def option(self, read):
        return read() if self.bytes(1)[0] else None

    def warning(self):
        self.int()
        said = self.text().decode()
        [self.option(self.text) for _ in range(3)]
        return said

    def customer(self):
        return self.text(), self.option(self.text), self.option(self.text)


class Connection:
    def __init__(self):
        host, port = ADDRESS.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.socket.settimeout(None)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.read, self.waiting, self.last_id = self.socket.makefile("rb").read, [], 0
        self.socket.sendall(b"SLN1")

    def send(self, id, variant, fields):
        body = varint(id) + varint(variant) + fields
        self.socket.sendall(struct.pack(">I", len(body)) + body)

    def take(self):
        """(id, variant, reader) of the next frame; deliveries wait for their turn."""
        global retry_after
        head = self.read(4)
        frame = Reader(self.read(struct.unpack(">I", head)[0])) if len(head) == 4 else None
        if frame is None:
            raise ConnectionError("the connection ended")
        id, variant = frame.int(), frame.int()
        if variant == 12:
            retry_after = frame.int() / 1000
        elif variant == 11 and id == 0 and ERRORS[frame.int()] in FINAL:
            sys.exit("told to stay away")
        elif variant >= 13 and variant != 18 and variant <= 22:
            self.waiting.append((variant, frame))
        return id, variant, frame

    def ask(self, variant, fields, confirm=lambda confirm: b""):
        """The answer's variant and fields, or the error's code."""
        given = None
        while True:
            self.last_id += 1
            self.send(self.last_id, variant, fields + confirm(given))
            while (answer := self.take())[0] != self.last_id:
                pass
            _, answered, frame = answer
            if answered == 7:
                print("warned", *[frame.warning() for _ in range(frame.int())], flush=True)
                given = frame.text()
            elif answered == 11:
                code = ERRORS[frame.int()]
                frame.text(), frame.option(lambda: [frame.int() for _ in range(frame.int())])
                frame.option(lambda: (frame.text(), frame.option(frame.text)))
                wait = frame.option(frame.int)
                if code in FINAL:
                    sys.exit(code)
                if code not in AGAIN:
                    return None, code
                time.sleep((1000 if wait is None else wait) / 1000)
            else:
                return answered, frame

    def work(self, variant, frame):
        channel, offset = frame.int(), frame.int()
        if variant == 13 and (channel, offset) not in done:
            conversation = frame.int()
            frame.int()  # at
            message_id = frame.text().decode()
            place, agent = varint(channel) + varint(conversation), text(AGENT)
            confirm = lambda given: option(given, text)
            answered, frame = self.ask(11, place + agent, confirm)
            if answered == 6:
                answered, frame = self.ask(10, place + agent + varint(1) + option(None, varint))
            if answered == 5:
                frame.int()  # the conversation
                seen = frame.int()
                reply = varint(channel) + varint(0) + varint(conversation) + option(AGENT, text)
                reply += text(f"ch-{channel:032x}:{offset}") + text('{"type":"text","text":{"body":"read: %s"}}' % message_id)
                answered, frame = self.ask(14, reply + option(seen, varint), confirm)
            print("answered" if answered else "not answered", message_id, "" if answered else frame, flush=True)
        done[channel, offset] = True
        self.send(0, 16, varint(channel) + varint(offset))

    def run(self):
        global pause
        hello = varint(1) + varint(0) + text(SERVICE) + text(PORTAL) + text(os.environ["SHAREDLINE_TOKEN"])
        hello += option(f"{SERVICE}-{AGENT}", text) + varint(256) + varint(0) + varint(0) + option(None, varint)
        if self.ask(0, hello)[0] == 0:
            pause = 0.1
        self.ask(1, varint(1) + text(AGENT) + text(AGENT.title()) + b"\0" + b"\0" + varint(0))
        self.ask(2, text(NUMBER) + b"\0")
        while True:
            while not self.waiting:
                self.take()
            self.work(*self.waiting.pop(0))


while True:
    try:
        Connection().run()
    except OSError as error:
        print("lost:", error, file=sys.stderr, flush=True)
    time.sleep(max(retry_after, random.uniform(pause / 2, pause)))
    pause, retry_after = min(2 * pause, 10), 0
