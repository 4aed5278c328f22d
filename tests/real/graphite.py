"""A known load through all ways to carbon, read back from its whisper files."""

import hashlib
import os
import subprocess
import sys
import tempfile
import time

import whisper

from node import Node, check, free_port, is_open, wait_until

SERIES = 1000

CARBON = """
[cache]
STORAGE_DIR = {0}
CONF_DIR = {0}
LOCAL_DATA_DIR = {0}/whisper
LOG_DIR = {0}
PID_DIR = {0}
USER =
MAX_CREATES_PER_MINUTE = inf
MAX_UPDATES_PER_SECOND = 100000
LINE_RECEIVER_INTERFACE = 127.0.0.1
LINE_RECEIVER_PORT = {1}
ENABLE_UDP_LISTENER = True
UDP_RECEIVER_INTERFACE = 127.0.0.1
UDP_RECEIVER_PORT = {1}
PICKLE_RECEIVER_INTERFACE = 127.0.0.1
PICKLE_RECEIVER_PORT = {2}
CACHE_QUERY_INTERFACE = 127.0.0.1
CACHE_QUERY_PORT = {3}
ENABLE_TAGS = False
LOG_UPDATES = False
LOG_CREATES = False
CARBON_METRIC_INTERVAL = 0
"""


def start_carbon(directory):
    lines, pickles, queries = free_port(), free_port(), free_port()
    write = lambda name, text: open(os.path.join(directory, name), "w").write(text)
    write("carbon.conf", CARBON.format(directory, lines, pickles, queries))
    write("storage-schemas.conf", "[all]\npattern = .*\nretentions = 1s:1h\n")
    command = ["carbon-cache", "--nodaemon", f"--config={directory}/carbon.conf", "start"]
    log = open(os.path.join(directory, "log"), "w")
    carbon = subprocess.Popen(command, stdout=log, stderr=log)
    wait_until("carbon listens", lambda: is_open(lines) and is_open(pickles))
    return carbon, lines, pickles


def stored(directory, names):
    """Series below whisper's directory, each with the sum of its values. Files of series with tags
    are named by a hash: of one of these names."""
    by_hash = {hashlib.sha256(name.encode()).hexdigest(): name for name in names}
    found = {}
    root = os.path.join(directory, "whisper")
    for path, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(os.path.join(path, file), root)[: -len(".wsp")]
            if name.startswith("_tagged/"):
                name = by_hash.get(name.split("/")[-1], name)
            else:
                name = name.replace("/", ".")
            fetched = whisper.fetch(os.path.join(path, file), 0, int(time.time()) + 60)
            values = fetched[1] if fetched else []
            found[name] = round(sum(value for value in values if value is not None), 6)
    return found


def main(program):
    with tempfile.TemporaryDirectory() as directory:
        carbon, lines, pickles = start_carbon(directory)
        try:
            ways = {
                "lines": {"address": f"tcp://127.0.0.1:{lines}"},
                "pickle": {"address": f"tcp://127.0.0.1:{pickles}", "protocol": "pickle"},
                "udp": {"address": f"udp://127.0.0.1:{lines}", "include": ["few.*"]},
            }
            sinks = [{"kind": "graphite", "name": way, "prefix": way, **settings} for way, settings in ways.items()]
            node = Node(program, directory, {
                "interval": "2s", "omit_empty_hostname": True, "sinks": sinks,
                "aggregates": ["min", "max", "count"], "percentiles": [0.5],
            })
            wanted = {}
            for n in range(SERIES):
                node.send(f"many.c{n}:{n}|c\nmany.c{n}:1|c")
                wanted[f"many.c{n}"] = n + 1
            node.send(
                "few.load:1:2:3|ms|#env:prod", "few.fuel:0.25|g", "few.users:a|s", "few.users:b|s", "few.users:b|s",
                "few.../../../etc/passwd x\t;y=z 1 2:7|c", "few.größe:1|c|#name:x,~t:..\u2028",
                "few.big:100000000000000000000000|c",
            )
            few = {
                "few.load.min;env=prod": 1, "few.load.max;env=prod": 3, "few.load.count;env=prod": 3,
                "few.load.50percentile;env=prod": 2, "few.fuel": 0.25, "few.users": 2,
                "few.-.-.-etc-passwd_x__y_z_1_2": 7, "few.größe;_name=x;_t=.__": 1, "few.big": 1e23,
            }
            log = node.stop()
            ways_of = {"lines": {**wanted, **few}, "pickle": {**wanted, **few}, "udp": few}
            everything = {f"{way}.{name}": float(value) for way, names in ways_of.items() for name, value in names.items()}
            try:
                wait_until("carbon has written all", lambda: len(stored(directory, everything)) >= len(everything))
                check("carbon", stored(directory, everything), everything)
                outside = [name for name in os.listdir(os.path.join(directory, "whisper")) if name not in (*ways, "_tagged")]
                if outside:
                    raise SystemExit(f"outside the prefixes: {outside}")
            except SystemExit:
                print(log, open(os.path.join(directory, "log")).read(), file=sys.stderr)
                raise
        finally:
            carbon.terminate()
            carbon.wait()


main(sys.argv[1])
