"""A known load into InfluxDB, in both layouts, queried back."""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

from node import Node, check, free_port, is_open, wait_until

SERIES = 1000

INFLUXDB = """
reporting-disabled = true
bind-address = "127.0.0.1:{1}"
[meta]
  dir = "{0}/meta"
[data]
  dir = "{0}/data"
  wal-dir = "{0}/wal"
[http]
  bind-address = "127.0.0.1:{2}"
  auth-enabled = true
  log-enabled = false
[monitor]
  store-enabled = false
"""

USER, PASSWORD = "writer", "correct horse"


class Influxdb:
    def __init__(self, directory):
        self.port = free_port()
        path = os.path.join(directory, "influxdb.conf")
        with open(path, "w") as file:
            file.write(INFLUXDB.format(directory, free_port(), self.port))
        self.log = open(os.path.join(directory, "log"), "w+")
        self.process = subprocess.Popen(["influxd", "-config", path], stdout=self.log, stderr=self.log)
        wait_until("influxd listens", lambda: is_open(self.port))
        self.query("", f"CREATE USER {USER} WITH PASSWORD '{PASSWORD}' WITH ALL PRIVILEGES", post=True)

    def query(self, database, text, post=False):
        parameters = urllib.parse.urlencode({"db": database, "q": text, "u": USER, "p": PASSWORD, "epoch": "s"})
        url = f"http://127.0.0.1:{self.port}/query?{parameters}"
        with urllib.request.urlopen(url, b"" if post else None) as answer:
            result = json.load(answer)["results"][0]
        if "error" in result:
            raise SystemExit(f"{text}: {result['error']}")
        return result.get("series", [])

    def stored(self, database):
        """The sum of each field of each measurement, by tags."""
        found = {}
        for series in self.query(database, 'SELECT * FROM /.*/ GROUP BY *'):
            tags = "".join(f",{key}={value}" for key, value in sorted(series.get("tags", {}).items()) if value)
            for column, name in enumerate(series["columns"]):
                values = [row[column] for row in series["values"] if isinstance(row[column], (int, float))]
                if name != "time" and values:
                    found[f"{series['name']}{tags} {name}"] = round(sum(values), 6)
        return found


def main(program):
    with tempfile.TemporaryDirectory() as directory:
        influxdb = Influxdb(directory)
        try:
            run(program, directory, influxdb)
        except SystemExit:
            influxdb.log.seek(0)
            print(influxdb.log.read()[-4000:], file=sys.stderr)
            raise
        finally:
            influxdb.process.terminate()
            influxdb.process.wait()


def run(program, directory, influxdb):
    for database in ("fields", "values"):
        influxdb.query("", f'CREATE DATABASE "{database}"', post=True)
    # What is of another type in the database already, is refused, and its neighbours are not.
    write = urllib.request.Request(
        f"http://127.0.0.1:{influxdb.port}/write?db=fields&u={USER}&p={urllib.parse.quote(PASSWORD)}&precision=s",
        data=f'taken value="text" {int(time.time()) - 1}'.encode(),
    )
    urllib.request.urlopen(write)
    address = f"http://127.0.0.1:{influxdb.port}"
    way = {"kind": "influxdb", "address": address, "user": USER, "password": PASSWORD, "exclude": ["veneur.*"]}
    node = Node(program, directory, {
        "interval": "2s", "omit_empty_hostname": True, "tags": ["dc:a b"],
        "aggregates": ["min", "max", "count"], "percentiles": [0.5],
        "sinks": [
            {**way, "name": "fields", "database": "fields"},
            {**way, "name": "values", "database": "values", "layout": "values"},
        ],
    })
    fields, values = {}, {}
    for n in range(SERIES):
        node.send(f"many.c{n}:{n}|c\nmany.c{n}:1|c")
        fields[f"many.c{n},dc=a b count"] = n + 1
        fields[f"many.c{n},dc=a b rate"] = (n + 1) / 2
        values[f"many.c{n},dc=a b value"] = (n + 1) / 2
    node.send(
        "load:1:2:3|ms|#env:prod", "fuel:0.25|g", "users:a|s", "users:b|s", "users:b|s",
        "#odd, name=x\\:7|g|#k\\=1 2:v=1\\", "taken:1|g",
    )
    for name, value in {"min": 1, "max": 3, "count": 3, "50percentile": 2}.items():
        fields[f"load,dc=a b,env=prod {name}"] = value
        values[f"load.{name},dc=a b,env=prod value"] = value / 2 if name == "count" else value
    odd = "_odd, name=x_,dc=a b,k\\=1 2=v=1_ value"
    fields.update({"fuel,dc=a b value": 0.25, "users,dc=a b count": 2, odd: 7})
    values.update({"fuel,dc=a b value": 0.25, "users,dc=a b value": 2, odd: 7, "taken,dc=a b value": 1})
    log = node.stop()
    try:
        check("fields", influxdb.stored("fields"), {key: float(value) for key, value in fields.items()})
        check("values", influxdb.stored("values"), {key: float(value) for key, value in values.items()})
        if "field type conflict" not in log:
            raise SystemExit("the daemon does not say what was refused")
    except SystemExit:
        print(log, file=sys.stderr)
        raise


main(sys.argv[1])
