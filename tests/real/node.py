"""A daemon, its load, and waiting: what the tests beside it share."""

import json
import os
import re
import signal
import socket
import subprocess
import time

DEADLINE = 60


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(what, holds):
    """What `holds` returns, as soon as it is something."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        value = holds()
        if value:
            return value
        time.sleep(0.05)
    raise SystemExit(f"not within {DEADLINE} s: {what}")


def is_open(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


class Node:
    """A running daemon."""

    def __init__(self, program, directory, settings):
        settings = {"udp_address": "127.0.0.1:0", "http_address": "", "stats_address": "127.0.0.1:9", **settings}
        path = os.path.join(directory, "veneur.yaml")
        with open(path, "w") as file:
            json.dump(settings, file)
        self.process = subprocess.Popen(
            [program, "-f", path], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        self.log = []
        for line in self.process.stderr:
            self.log.append(line)
            ready = re.search(r' ready .*udp://([\d.]+):(\d+)', re.sub(r"\x1b\[\d+m", "", line))
            if ready:
                self.address = (ready[1], int(ready[2]))
                return
        raise SystemExit("the daemon did not start:\n" + "".join(self.log))

    def send(self, *lines):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for line in lines:
                sender.sendto(line.encode(), self.address)

    def stop(self):
        """Flushes what there is; returns the log."""
        self.process.send_signal(signal.SIGTERM)
        self.log += self.process.stderr.readlines()
        if self.process.wait(DEADLINE) != 0:
            raise SystemExit("the daemon failed:\n" + "".join(self.log))
        return "".join(self.log)


def check(what, found, wanted):
    if found != wanted:
        missing = [item for item in wanted.items() if found.get(item[0]) != item[1]]
        more = [item for item in found.items() if wanted.get(item[0]) != item[1]]
        raise SystemExit(
            f"{what}: {len(missing)} wanted in vain, {len(more)} not wanted"
            f"\n  wanted {missing[:20]}\n  found  {more[:20]}"
        )
    print(f"{what}: {len(wanted)} series as sent")
