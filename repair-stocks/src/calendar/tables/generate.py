"""Writes the tables of this folder from the PyPI package exchange_calendars.

    python3 -m venv /tmp/calendars
    /tmp/calendars/bin/pip install exchange_calendars==4.13
    /tmp/calendars/bin/python repair-stocks/src/calendar/tables/generate.py
    cargo test -p repair-stocks --test calendar

It writes
    hours.csv       regular hours of every market, local time, from Monday to Friday, with the dates between which they hold
    <market>.csv    the weekdays that differ: closed all day, or the hours it was open instead, and why
    digest.csv      per market and year: sessions, open minutes, and a checksum of all sessions in UTC

The digest is taken from the package's own UTC schedule and never sees the other tables. So the Rust test that recomputes it
proves the tables, their parser and the zone rules all at once. Never edit a table by hand: change this script, and run it.
"""

import csv
import re
import zlib
from datetime import date, timedelta
from pathlib import Path

import exchange_calendars
import pandas as pd

VERSION = "4.13"
HERE = Path(__file__).parent

# First and last date of each market.
# XTKS begins the day its morning session was extended to 11:30: the package knows no earlier lunch break.
MARKETS = {
    "XNYS": (date(1990, 1, 1), date(2026, 12, 31)),
    "XTKS": (date(2011, 11, 21), date(2026, 12, 31)),
}

# Why, where the package has no name for the day, or one that does not fit a column.
REASONS = {
    "XNYS": {
        "1994-04-27": "Day of mourning for Richard Nixon",
        "1997-12-26": "Day after Christmas",
        "1999-12-31": "New Year's Eve",
        "2001-09-11": "September 11 attacks",
        "2001-09-12": "September 11 attacks",
        "2001-09-13": "September 11 attacks",
        "2001-09-14": "September 11 attacks",
        "2003-12-26": "Day after Christmas",
        "2004-06-11": "Day of mourning for Ronald Reagan",
        "2007-01-02": "Day of mourning for Gerald Ford",
        "2012-10-29": "Hurricane Sandy",
        "2012-10-30": "Hurricane Sandy",
        "2018-12-05": "Day of mourning for George H. W. Bush",
        "2025-01-09": "Day of mourning for Jimmy Carter",
    },
    "XTKS": {
        "2015-09-22": "Citizen's Holiday",
        "2019-04-30": "Abdication Day",
        "2019-05-01": "Accession Day",
        "2019-05-02": "Citizen's Holiday",
        "2019-10-22": "Enthronement Ceremony",
        "2020-10-01": "Trading system failure",
        "2026-09-22": "Citizen's Holiday",
    },
}
RENAMED = {
    "Mondays, Tuesdays, and Thursdays Before Independence Day": "Day before Independence Day",
    "Wednesdays Before Independence Day including and after 2013": "Day before Independence Day",
    "Fridays after Independence Day prior to 2013": "Day after Independence Day",
    "Black Friday": "Day after Thanksgiving",
}


def main():
    assert exchange_calendars.__version__ == VERSION, f"install exchange_calendars=={VERSION}"
    hours, digest = [], []
    for market, (first, last) in MARKETS.items():
        calendar = exchange_calendars.get_calendar(market, start=pd.Timestamp(first), end=pd.Timestamp(last))
        regular = regular_hours(calendar, first, last)
        hours += [(market, calendar.tz.key, *row) for row in regular]
        write(f"{market.lower()}.csv", ["date", "open", "reason"], exceptions(calendar, regular, first, last))
        digest += [(market, *row) for row in digests(calendar)]
    write("hours.csv", ["market", "zone", "from", "to", "open"], hours)
    write("digest.csv", ["market", "year", "sessions", "minutes", "crc32"], digest)


def regular_hours(calendar, first, last):
    """Rows of (from, to, open): a new one wherever an opening, a close or a break changed."""
    tables = [calendar.open_times, calendar.break_start_times, calendar.break_end_times, calendar.close_times]
    changes = {since.date() for table in tables for since, _ in table or () if since is not None}
    starts = sorted({first} | {day for day in changes if first < day <= last})
    ends = [start - timedelta(days=1) for start in starts[1:]] + [last]
    return [(start, end, stretches(*(time_on(table, start) for table in tables))) for start, end in zip(starts, ends)]


def time_on(table, day):
    """The entry of one of the package's tables, ((since, time), …), that holds on a day; None without a table (no break)."""
    held = [time for since, time in table or () if since is None or since.date() <= day]
    return held[-1] if held else None


def exceptions(calendar, regular, first, last):
    """Rows of (date, open, reason) for every weekday that the regular hours get wrong."""
    names = package_names(calendar, first, last)
    sessions = {row.Index.date(): local_stretches(calendar, row) for row in calendar.schedule.itertuples()}
    assert all(day.weekday() < 5 for day in sessions), "a session on a weekend: say so in hours.csv first"
    for day in pd.date_range(first, last, freq="B").date:
        open_ = sessions.get(day, "closed")
        if open_ != next(row[2] for row in regular if row[0] <= day <= row[1]):
            # A missing reason is an error: somebody should look at a day that nobody has a name for.
            yield day, open_, REASONS[calendar.name].get(str(day)) or names[day]


def local_stretches(calendar, row):
    times = [row.open, row.break_start, row.break_end, row.close]
    local = [None if pd.isna(time) else time.tz_convert(calendar.tz) for time in times]
    assert all(time is None or time.date() == row.Index.date() for time in local), "a session that spans dates"
    return stretches(*(None if time is None else time.time() for time in local))


def stretches(opens, pauses, resumes, closes):
    """As text: 09:30-16:00, or with a break 09:00-11:30 12:30-15:00."""
    bounds = [(opens, closes)] if pauses is None else [(opens, pauses), (resumes, closes)]
    assert all(time.second == 0 for bound in bounds for time in bound)
    return " ".join(f"{since:%H:%M}-{until:%H:%M}" for since, until in bounds)


def package_names(calendar, first, last):
    """What the package calls its holidays and half days."""
    rules = [calendar.regular_holidays] + [holidays for _, holidays in calendar.special_closes]
    names = {}
    for holidays in rules:
        for day, name in holidays.holidays(pd.Timestamp(first), pd.Timestamp(last), return_name=True).items():
            names[day.date()] = RENAMED.get(name) or re.sub(r" \(.*\)", "", name)
    # Astronomers announce the equinoxes, so the package lists their dates without a name.
    for day in calendar.adhoc_holidays:
        if calendar.name == "XTKS" and day.month in (3, 9):
            names.setdefault(day.date(), "Vernal Equinox Day" if day.month == 3 else "Autumnal Equinox Day")
    return names


def digests(calendar):
    """Rows of (year, sessions, minutes, crc32) over one line a session: date,open,close[,break start,break end], UTC."""
    for year, rows in calendar.schedule.groupby(calendar.schedule.index.year):
        lines, minutes = "", 0
        for row in rows.itertuples():
            pause = [] if pd.isna(row.break_start) else [row.break_start, row.break_end]
            instants = [row.open, row.close, *pause]
            lines += ",".join([str(row.Index.date()), *(f"{instant:%Y-%m-%dT%H:%M:%SZ}" for instant in instants)]) + "\n"
            open_ = row.close - row.open - (pause[1] - pause[0] if pause else timedelta())
            minutes += int(open_.total_seconds()) // 60
        yield year, len(rows), minutes, f"{zlib.crc32(lines.encode()):08x}"


def write(name, header, rows):
    rows = list(rows)
    # The parser is a split at commas.
    assert not any(mark in str(field) for row in rows for field in row for mark in ',"\n')
    with open(HERE / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
