"""Writes the tables of this folder from the PyPI package exchange_calendars.

    python3 -m venv /tmp/calendars
    /tmp/calendars/bin/pip install exchange_calendars==4.13.2 holidays==0.109 QuantLib==1.44
    /tmp/calendars/bin/python repair-stocks/src/calendar/tables/generate.py
    /tmp/calendars/bin/python repair-stocks/tests/data/closed_days.py
    cargo test -p repair-stocks --test it calendar::

It writes
    markets.csv     each market: its zone, the first and last date whose sessions are known, the first date whose hours are known,
                    whether the last date is the last that was published or follows from the market's own rule, and the source
    hours.csv       the hours of ordinary weekdays, local time, with the date from which they hold
    <market>.csv    the days that differ: closed all day, or the hours it was open instead, and why
    digest.csv      per market and year: sessions, open minutes, and a checksum of all sessions in UTC

Where the package's own UTC schedule holds, the digest is taken from it and never sees the other tables. So the Rust test that
recomputes it proves the tables, their parser and the zone rules all at once. Never edit a table by hand: change this script, and run it.

A time with `<` before it is on the day before the session's date.
"""

import csv
import re
import zlib
from datetime import date, datetime, time, timedelta, timezone
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import exchange_calendars
import holidays
import pandas as pd

VERSION = "4.13.2"
HERE = Path(__file__).parent

# The first date whose sessions are known, the first whose hours are, and the last. The package states today's hours for all time, so the
# hours are covered from a date since which they are known to have held:
#   New York: since 1990 (the package's own table of half days).
#   Toronto, London, Xetra, Euronext, Zurich, Madrid, Stockholm, Shanghai, Seoul, Sydney: the exchanges' own pages, read by the crate
#     exchange-hours from 2010 on. A test compares them.
#   Milan: since 2015-11-23 (Borsa Italiana, notice 17016), Johannesburg: since 2015 (half days).
#   Hong Kong: since 2012-03-05, when the lunch break became one hour. Tokyo: since 2011-11-21, when the morning became longer.
#   Mumbai: since 2010-10-18, when the opening moved to 09:15. Singapore: since 2017-11-13, when the lunch break came back.
#   São Paulo: since 2015-12-21, when the close began to follow New York. Chicago: since 2015-09-21, when it moved to 16:00.
# The last date is the end of what the market has published (`published`), or of the next year where the exchange's rules fix its holidays
# (`rule`). Where they are decreed each year, nothing is guessed.
MARKETS = {
    "XNYS": ("1990-01-01", "1990-01-01", "2028-12-31", "published"),
    "XNAS": ("1990-01-01", "1990-01-01", "2028-12-31", "rule"),
    "ARCX": ("1990-01-01", "1990-01-01", "2028-12-31", "published"),
    "XTSE": ("2002-01-01", "2010-01-01", "2027-12-31", "rule"),
    "XLON": ("2000-01-01", "2010-01-01", "2028-12-31", "published"),
    "XETR": ("2010-01-01", "2010-01-01", "2027-12-31", "published"),
    "XPAR": ("2010-01-01", "2010-01-01", "2027-12-31", "rule"),
    "XAMS": ("2010-01-01", "2010-01-01", "2027-12-31", "rule"),
    "XSWX": ("2010-01-01", "2010-01-01", "2027-12-31", "published"),
    "XMIL": ("2010-01-01", "2015-11-23", "2027-12-31", "rule"),
    "XMAD": ("2010-01-01", "2010-01-01", "2027-12-31", "rule"),
    "XSTO": ("2010-01-01", "2010-01-01", "2027-12-31", "published"),
    "XHKG": ("2005-01-01", "2012-03-05", "2027-12-31", "published"),
    "XTKS": ("1997-01-01", "2011-11-21", "2027-12-31", "published"),
    "XSHG": ("2005-01-01", "2010-01-01", "2026-12-31", "published"),
    "XSHE": ("2005-01-01", "2010-01-01", "2026-12-31", "published"),
    "XKRX": ("2005-01-01", "2010-01-01", "2026-12-31", "published"),
    "XBOM": ("2010-10-18", "2010-10-18", "2026-12-31", "published"),
    "XASX": ("2005-01-01", "2010-01-01", "2027-12-31", "published"),
    "XSES": ("2010-01-01", "2017-11-13", "2026-12-31", "published"),
    "BVMF": ("2015-12-21", "2015-12-21", "2026-12-31", "published"),
    "XJSE": ("2005-01-01", "2015-01-01", "2027-12-31", "rule"),
    "CMES": ("2015-09-21", "2015-09-21", "2027-12-31", "published"),
}

# Markets that keep the days and hours of another one: New York's exchanges close together, and so do Shanghai and Shenzhen.
SAME = {"XNAS": "XNYS", "ARCX": "XNYS", "XSHE": "XSHG"}

# Ordinary hours where the package is wrong, each with its source.
HOURS = {
    # SGX-ST announcement of 2017-07-18: a break from 12:00 to 13:00. The package knows none.
    "XSES": [("2017-11-13", "09:00-12:00 13:00-17:00")],
    # CME Globex notices 20150817 (the close moves to 16:00) and 20210621 (the halt from 15:15 to 15:30 is removed). The package closes at 17:00.
    "CMES": [("2015-09-21", "<17:00-15:15 15:30-16:00"), ("2021-06-28", "<17:00-16:00")],
}

CLOSED = "closed"
HALT = "<17:00-12:00"  # until noon on holidays
BRIEF = "<17:00-12:15"  # the day before or after one
EARLY = "<17:00-08:15"  # Good Friday with a report on employment
MOURNING = "<17:00-08:30"
# The days on which CME's equity products close early or stay closed, from its holiday schedules. The package closes at noon on all of them.
CME = {
    CLOSED: """2015-12-25 2016-01-01 2016-03-25 2016-12-26 2017-01-02 2017-04-14 2017-12-25 2018-01-01 2018-03-30 2018-12-25
        2019-01-01 2019-04-19 2019-12-25 2020-01-01 2020-04-10 2020-12-25 2021-01-01 2021-12-24 2022-04-15 2022-12-26 2023-01-02
        2023-12-25 2024-01-01 2024-03-29 2024-12-25 2025-01-01 2025-04-18 2025-12-25 2026-01-01 2026-12-25 2027-01-01 2027-03-26
        2027-12-24""",
    HALT: """2015-11-26 2016-01-18 2016-02-15 2016-05-30 2016-07-04 2016-09-05 2016-11-24 2017-01-16 2017-02-20 2017-05-29
        2017-07-04 2017-09-04 2017-11-23 2018-01-15 2018-02-19 2018-05-28 2018-07-04 2018-09-03 2018-11-22 2019-01-21 2019-02-18
        2019-05-27 2019-07-04 2019-09-02 2019-11-28 2020-01-20 2020-02-17 2020-05-25 2020-07-03 2020-09-07 2020-11-26 2021-01-18
        2021-02-15 2021-05-31 2021-07-05 2021-09-06 2021-11-25 2022-01-17 2022-02-21 2022-05-30 2022-06-20 2022-07-04 2022-09-05
        2022-11-24 2023-01-16 2023-02-20 2023-05-29 2023-06-19 2023-07-04 2023-09-04 2023-11-23 2024-01-15 2024-02-19 2024-05-27
        2024-06-19 2024-07-04 2024-09-02 2024-11-28 2025-01-20 2025-02-17 2025-05-26 2025-06-19 2025-07-04 2025-09-01 2025-11-27
        2026-01-19 2026-02-16 2026-05-25 2026-06-19 2026-07-03 2026-09-07 2026-11-26 2027-01-18 2027-02-15 2027-05-31 2027-06-18
        2027-07-05 2027-09-06 2027-11-25""",
    BRIEF: """2015-11-27 2015-12-24 2016-11-25 2017-07-03 2017-11-24 2018-07-03 2018-11-23 2018-12-24 2019-07-03 2019-11-29
        2019-12-24 2020-11-27 2020-12-24 2021-11-26 2022-11-25 2023-07-03 2023-11-24 2024-07-03 2024-11-29 2024-12-24 2025-07-03
        2025-11-28 2025-12-24 2026-11-27 2026-12-24 2027-11-26""",
    EARLY: "2021-04-02 2023-04-07 2026-04-03",
    # Days of mourning for George H. W. Bush and Jimmy Carter: equity products until 08:30 (CME Group, 2024-12-30).
    MOURNING: "2018-12-05 2025-01-09",
}

# Days on which the package is wrong, with the right hours, and why.
CORRECTIONS = {
    "XTSE": {"2008-12-17": (CLOSED, "Trading system failure")},
    "XHKG": {
        # HKEX cancelled all trading.
        "2023-09-01": (CLOSED, "Typhoon Saola"),
        "2023-09-08": (CLOSED, "Black rainstorm"),
    },
    # Constitution Memorial Day fell on a Sunday; its substitute was the Monday.
    "XTKS": {"1998-05-06": (None, "Open")},
    "XKRX": {
        "2026-06-03": (CLOSED, "Local elections"),
        # It became a day off again in 2026.
        "2026-07-17": (CLOSED, "Constitution Day"),
    },
    # On the day of Laxmi Pujan, BSE is open for an hour in the evening. The package leaves these sessions out, and takes three of the days
    # for ordinary ones.
    "XBOM": {
        "2010-11-05": (CLOSED, "Diwali Laxmi Pujan"),
        "2011-10-26": (CLOSED, "Diwali Laxmi Pujan"),
        "2012-11-13": (CLOSED, "Diwali Laxmi Pujan"),
    },
    # Its pages list no half days for 2023.
    "XASX": {"2023-12-22": ("10:00-16:00", "Ordinary"), "2023-12-29": ("10:00-16:00", "Ordinary")},
    "XJSE": {
        "2021-11-01": (CLOSED, "Municipal elections"),
        "2022-12-27": (CLOSED, "Public holiday"),
        "2023-12-15": (CLOSED, "Public holiday for the Rugby World Cup"),
        "2024-05-29": (CLOSED, "Elections"),
        "2026-11-04": (CLOSED, "Municipal elections"),
    },
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
    "CMES": {"2018-12-05": "Day of mourning for George H. W. Bush", "2025-01-09": "Day of mourning for Jimmy Carter"},
}
RENAMED = {
    "Mondays, Tuesdays, and Thursdays Before Independence Day": "Day before Independence Day",
    "Wednesdays Before Independence Day including and after 2013": "Day before Independence Day",
    "Fridays after Independence Day prior to 2013": "Day after Independence Day",
    "Black Friday": "Day after Thanksgiving",
    "Heakth and Sports Day": "Health and Sports Day",
}

# The names of the calendars of the package `holidays`. Here it only names days; it decides none of them, except the half days of SAME_HALF.
NAMES = {"XTKS": "XJPX", "CMES": "XCME", "XSTO": None}
# Half days that the package lacks. SGX closes at 12:00 (12:30 until 2019), JSE at 12:00.
HALF_DAYS = {
    "XSES": lambda day: "09:00-12:30" if day.year < 2020 else "09:00-12:00",
    "XJSE": lambda day: "09:00-12:00",
}


def main():
    assert exchange_calendars.__version__.startswith(VERSION), f"install exchange_calendars=={VERSION}"
    markets, hours, digest = [], [], []
    for market, (first, hours_first, last, basis) in MARKETS.items():
        first, hours_first, last = map(date.fromisoformat, (first, hours_first, last))
        table = Market(SAME.get(market, market), first, hours_first, last)
        markets.append((market, table.zone.key, first, hours_first, last, basis, table.source))
        hours += [(market, since, open_) for since, open_ in table.ordinary]
        digest += [(market, *row) for row in table.digests()]
        if market not in SAME:
            write(f"{market.lower()}.csv", ["date", "open", "reason"], table.exceptions())
    write("markets.csv", ["market", "zone", "days_from", "hours_from", "last", "basis", "source"], markets)
    write("hours.csv", ["market", "from", "open"], hours)
    write("digest.csv", ["market", "year", "sessions", "minutes", "crc32"], digest)


class Market:
    def __init__(self, name, first, hours_first, last):
        self.name, self.first, self.hours_first, self.last = name, first, hours_first, last
        self.calendar = exchange_calendars.get_calendar(name, start=pd.Timestamp(first), end=pd.Timestamp(last))
        self.zone = ZoneInfo(self.calendar.tz.key)
        own = "; hours of " + {"XSES": "SGX", "CMES": "CME", "BVMF": "B3"}[name] if name in ("XSES", "CMES", "BVMF") else ""
        self.source = f"exchange_calendars {VERSION}{own}"
        self.ordinary = self.ordinary_hours()
        self.utc = {row.Index.date(): row for row in self.calendar.schedule.itertuples()}
        self.corrected = {date.fromisoformat(day): what for day, what in CORRECTIONS.get(name, {}).items()}
        self.days = {day: self.hours_on(day) for day in all_days(first, last)}

    def ordinary_hours(self):
        """Rows of (from, open): a new one wherever an opening, a close or a break changed."""
        if self.name in HOURS:
            return [(date.fromisoformat(since), open_) for since, open_ in HOURS[self.name]]
        if self.name == "BVMF":
            # Past the last date, too, since the hours keep following New York's clocks.
            rows, before = [], None
            for day in all_days(self.hours_first, date(2040, 12, 31)):
                if day.weekday() < 5 and (open_ := f"10:00-{sao_paulo_close(day)}") != before:
                    rows.append((day, open_))
                    before = open_
            return rows
        tables = [self.calendar.open_times, self.calendar.break_start_times, self.calendar.break_end_times, self.calendar.close_times]
        changes = {since.date() for table in tables for since, _ in table or () if since is not None}
        starts = sorted({self.hours_first} | {day for day in changes if self.hours_first < day <= self.last})
        return [(start, stretches(*(time_on(table, start) for table in tables))) for start in starts]

    def ordinary_on(self, day):
        return [open_ for since, open_ in self.ordinary if since <= day][-1]

    def hours_on(self, day):
        """The hours of a day as text; `None` if only that there is a session is known."""
        if day in self.corrected:
            return self.corrected[day][0]
        if self.name == "CMES" and day >= self.hours_first:
            for open_, listed in CME.items():
                if str(day) in listed.split():
                    return open_
            return CLOSED if day.weekday() > 4 else self.ordinary_on(day)
        row = self.utc.get(day)
        if row is None:
            return CLOSED
        if day < self.hours_first:
            return None
        if self.name in HALF_DAYS and day in half_days(self.name):
            return HALF_DAYS[self.name](day)
        if self.name == "XSES":
            return self.ordinary_on(day)
        local = [None if pd.isna(at) else at.tz_convert(self.zone) for at in (row.open, row.break_start, row.break_end, row.close)]
        assert all(at is None or at.date() == day for at in local), "a session that spans dates"
        if self.name == "BVMF":
            return f"{local[0]:%H:%M}-{sao_paulo_close(day)}"
        return stretches(*(None if at is None else at.time() for at in local))

    def exceptions(self):
        """Rows of (date, open, reason) for every day that the ordinary hours get wrong."""
        names = self.names()
        for day, open_ in self.days.items():
            ordinary = CLOSED if day.weekday() > 4 else None if day < self.hours_first else self.ordinary_on(day)
            if open_ != ordinary:
                known = REASONS.get(self.name, {}).get(str(day)) or self.corrected.get(day, (None, None))[1] or names.get(day)
                # New York's and Tokyo's days all have a name: somebody should look at one that has none.
                assert known or self.name not in ("XNYS", "XTKS"), f"{self.name} {day} has no name"
                fallback = "Holiday" if open_ == CLOSED else "Session on a weekend" if day.weekday() > 4 else "Other hours"
                yield day, "open" if open_ is None else open_, clean(known or fallback)

    def names(self):
        """What the packages call holidays and half days."""
        names = {}
        code = NAMES.get(self.name, self.name)
        if code and self.name not in ("XNYS", "XTKS"):
            for category in holidays.financial_holidays(code).supported_categories:
                if category in ("public", "half_day"):
                    for day, name in holidays.financial_holidays(code, years=range(2000, 2029), categories=(category,)).items():
                        names.setdefault(day, re.sub(r" *\(.*?\)", "", name.split(";")[0]))
        rules = [self.calendar.regular_holidays] + [rule for _, rule in self.calendar.special_closes if hasattr(rule, "holidays")]
        for rule in filter(None, rules):
            for day, name in rule.holidays(pd.Timestamp(self.first), pd.Timestamp(self.last), return_name=True).items():
                if isinstance(name, str) and name:
                    names[day.date()] = RENAMED.get(name) or re.sub(r" *\(.*?\)", "", name)
        # Astronomers announce the equinoxes, so the package lists their dates without a name.
        for day in self.calendar.adhoc_holidays if self.name == "XTKS" else ():
            if day.month in (3, 9):
                names.setdefault(day.date(), "Vernal Equinox Day" if day.month == 3 else "Autumnal Equinox Day")
        return names

    def digests(self):
        """Rows of (year, sessions, minutes, crc32) over one line a session: date[,open,close[,break start,break end]…], UTC."""
        years = {}
        for day, open_ in self.days.items():
            if open_ == CLOSED:
                continue
            instants, minutes = self.instants(day, open_) if open_ else ([], 0)
            year = years.setdefault(day.year, [0, 0, ""])
            year[0] += 1
            year[1] += minutes
            year[2] += ",".join([str(day), *(f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in instants)]) + "\n"
        for year, (sessions, minutes, lines) in years.items():
            yield year, sessions, minutes, f"{zlib.crc32(lines.encode()):08x}"

    def instants(self, day, open_):
        row = self.utc.get(day)
        if row is not None and day not in self.corrected and self.name not in (*HOURS, "BVMF") and self.name not in HALF_DAYS:
            pause = [] if pd.isna(row.break_start) else [row.break_start, row.break_end]
            bounds = [row.open, *pause, row.close]
        else:
            bounds = [self.instant(day, at) for stretch in open_.split(" ") for at in stretch.split("-")]
        minutes = sum(int((until - since).total_seconds()) // 60 for since, until in zip(bounds[::2], bounds[1::2]))
        return [bounds[0], bounds[-1], *bounds[1:-1]], minutes

    def instant(self, day, at):
        local = datetime.combine(day - timedelta(days=at.startswith("<")), time.fromisoformat(at.lstrip("<")), self.zone)
        return local.astimezone(timezone.utc)


def all_days(first, last):
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]


def sao_paulo_close(day):
    """B3's circular 127/2015-DP: the market closes an hour later while New York is two hours or more behind São Paulo."""
    noon = datetime.combine(day, time(12), ZoneInfo("America/Sao_Paulo"))
    behind = noon.utcoffset() - noon.astimezone(ZoneInfo("America/New_York")).utcoffset()
    return "18:00" if behind >= timedelta(hours=2) else "17:00"


@cache
def half_days(market):
    return set(holidays.financial_holidays(market, years=range(2010, 2029), categories=("half_day",)))


def time_on(table, day):
    """The entry of one of the package's tables, ((since, time), …), that holds on a day; None without a table (no break)."""
    held = [time for since, time in table or () if since is None or since.date() <= day]
    return held[-1] if held else None


def stretches(opens, pauses, resumes, closes):
    """As text: 09:30-16:00, or with a break 09:00-11:30 12:30-15:00."""
    bounds = [(opens, closes)] if pauses is None else [(opens, pauses), (resumes, closes)]
    assert all(time.second == 0 for bound in bounds for time in bound)
    return " ".join(f"{since:%H:%M}-{until:%H:%M}" for since, until in bounds)


def clean(name):
    return re.sub(r"\s+", " ", name.replace(",", "").replace('"', "")).strip()


def write(name, header, rows):
    rows = list(rows)
    # The parser is a split at commas.
    assert not any(mark in str(field) for row in rows for field in row for mark in ',"\n')
    with open(HERE / name, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
