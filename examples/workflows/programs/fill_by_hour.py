"""Fills a slot with the mean of the same hour on the days around it. A repairer for `repair`: it reads one request, and writes the rows that it can
compute. Where no day around has that hour, it writes none, and the slot stays as it is."""

import json
import sys
from datetime import datetime, timedelta, timezone

request = json.load(sys.stdin)
table = request["table"]
key, time = table["key"][0], table["time"]
days = request["params"]["days"]


def instant(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


known = {(row[key], instant(row[time])): row["value"] for row in request["rows"] if row["value"] is not None}
# Of a row with wrong cells the rest is right; its wrong value must not count.
for wanted in request["wanted"]:
    known.pop((wanted[key], instant(wanted[time])), None)

written = 0
for wanted in request["wanted"]:
    at = instant(wanted[time])
    others = [known.get((wanted[key], at + timedelta(days=day))) for day in range(-days, days + 1)]
    others = [value for value in others if value is not None]
    if others:
        value = round(sum(others) / len(others), 3)
        text = at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        print(json.dumps({key: wanted[key], time: text, "value": value}))
        written += 1
print(json.dumps({"$rows": written}))
