"""Draws the tables of `lake` for several numbers of days and keys, from standard input, as a picture on standard output."""

import re
import sys

points = {"days": {}, "keys": {}}
at = None
for line in sys.stdin:
    head = re.match(r"`gaps`: (\d+) keys, (\d+) days", line)
    row = re.match(r"\| (repair|limit) \| ([\d.]+) s \| [\d.]+ s \| (\d+) MiB", line)
    if head:
        at = tuple(map(int, head.groups()))
    elif row and at:
        keys, days = at
        found = (float(row[2]), int(row[3]))
        if keys == 500:
            points["days"].setdefault(row[1], {})[days] = found
        if days == 252:
            points["keys"].setdefault(row[1], {})[keys] = found

WIDE, HIGH, LEFT, TOP, GAP = 300, 170, 60, 40, 90
colors = {"repair": "#1763c6", "limit": "#8a5a00"}
out = []


def panel(column, row, title, axis, unit, which):
    x0, y0 = LEFT + column * (WIDE + GAP), TOP + row * (HIGH + GAP)
    most_x = max(max(of) for of in points[axis].values())
    most_y = max(found[which] for of in points[axis].values() for found in of.values()) * 1.15
    place = lambda x, y: (x0 + WIDE * x / most_x, y0 + HIGH * (1 - y / most_y))
    out.append(f'<text x="{x0}" y="{y0 - 12}" class="title">{title}</text>')
    out.append(f'<path class="axis" d="M{x0} {y0}v{HIGH}h{WIDE}"/>')
    for tick in sorted(next(iter(points[axis].values()))):
        x, _ = place(tick, 0)
        out.append(f'<path class="axis" d="M{x:.1f} {y0 + HIGH}v4"/>')
        if tick > most_x * 0.04:
            out.append(f'<text x="{x:.1f}" y="{y0 + HIGH + 18}" class="tick" text-anchor="middle">{tick:,}</text>')
    out.append(f'<text x="{x0 + WIDE / 2}" y="{y0 + HIGH + 36}" class="tick" text-anchor="middle">{axis}</text>')
    for part in (0.5, 1):
        value = most_y / 1.15 * part
        _, y = place(0, value)
        out.append(f'<path class="grid" d="M{x0} {y:.1f}h{WIDE}"/>')
        text = f"{value:.1f}" if unit == "s" else f"{value:.0f}"
        out.append(f'<text x="{x0 - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{text} {unit}</text>')
    for name, of in points[axis].items():
        where = [place(x, of[x][which]) for x in sorted(of)]
        dash = "" if name == "repair" else ' stroke-dasharray="5 4"'
        out.append(f'<path fill="none" stroke="{colors[name]}" stroke-width="2"{dash} d="M' + "L".join(f"{x:.1f} {y:.1f}" for x, y in where) + '"/>')
        out.extend(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colors[name]}"/>' for x, y in where)


panel(0, 0, "Time, 500 keys", "days", "s", 0)
panel(1, 0, "Memory, 500 keys", "days", "MiB", 1)
panel(0, 1, "Time, 252 days", "keys", "s", 0)
panel(1, 1, "Memory, 252 days", "keys", "MiB", 1)
width, height = LEFT + 2 * WIDE + GAP + 30, TOP + 2 * (HIGH + GAP)
for number, (name, text) in enumerate((("repair", "repair"), ("limit", "the limit"))):
    dash = "" if name == "repair" else ' stroke-dasharray="5 4"'
    x = LEFT + 200 * number
    out.append(f'<path stroke="{colors[name]}" stroke-width="2"{dash} d="M{x} {height - 18}h30"/><text x="{x + 38}" y="{height - 14}">{text}</text>')
print(f'''<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-label="Time and memory of finding all gaps, over days and over keys">
<style>text{{font:13px system-ui,sans-serif;fill:#24292f}}.title{{font-weight:600}}.tick{{fill:#57606a;font-size:12px}}.axis{{stroke:#57606a;fill:none}}.grid{{stroke:#d0d7de;fill:none}}</style>
<rect width="{width}" height="{height}" fill="#fff"/>
{chr(10).join(out)}
</svg>''')
