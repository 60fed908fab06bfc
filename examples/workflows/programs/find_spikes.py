"""Finds readings that are far from those around them (a Hampel filter). A detector for `repair`: it reads one request, and writes a line for each row
that is wrong."""

import json
import statistics
import sys

request = json.load(sys.stdin)
table, params = request["table"], request["params"]
key, time = table["key"][0], table["time"]
reach, factor = params["reach"], params["factor"]

series = {}
for row in request["rows"]:
    if row["value"] is not None:
        series.setdefault(row[key], []).append((row[time], row["value"]))

wrong = 0
for name, points in sorted(series.items()):
    points.sort()
    for at, (when, value) in enumerate(points):
        around = [v for _, v in points[max(0, at - reach) : at + reach + 1]]
        usual = statistics.median(around)
        distance = statistics.median(abs(v - usual) for v in around)
        if abs(value - usual) > factor * max(distance, 0.1):
            print(json.dumps({key: name, time: when}))
            wrong += 1
print(json.dumps({"$rows": wrong}))
