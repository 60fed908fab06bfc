"""Writes closed_days.csv: the weekdays on which markets are closed, by sources that did not make the tables of repair-stocks.

    /tmp/calendars/bin/python repair-stocks/tests/data/closed_days.py

How to install what it needs is in src/calendar/tables/generate.py. A line holds the days of one market and year, as month-day. The source is
the PyPI package `holidays` (its financial calendars) where it knows the market, and QuantLib for the years before that, and for Stockholm.
"""

import csv
from datetime import date, timedelta
from pathlib import Path

import holidays
import QuantLib as ql

HERE = Path(__file__).parent
TABLES = HERE.parent.parent / "src" / "calendar" / "tables"

OTHER_CODES = {"XTKS": "XJPX", "CMES": "XCME", "ARCX": "XNYS"}
QUANTLIB = {
    "XETR": ql.Germany(ql.Germany.Xetra),
    "XPAR": ql.France(ql.France.Exchange),
    "XMIL": ql.Italy(ql.Italy.Exchange),
    "XSTO": ql.Sweden(),
    "XHKG": ql.HongKong(ql.HongKong.HKEx),
}


def main():
    rows = []
    with open(TABLES / "markets.csv") as file:
        for market in csv.DictReader(file):
            name = market["market"]
            first, last = int(market["days_from"][:4]), int(market["last"][:4])
            for year in range(first, last + 1):
                source, closed = closed_days(name, year)
                if source:
                    days = [f"{day:%m-%d}" for day in weekdays(year) if day in closed]
                    rows.append((name, year, source, " ".join(days)))
    with open(HERE / "closed_days.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("market", "year", "source", "closed"), *rows])


def closed_days(name, year):
    code = OTHER_CODES.get(name, name)
    if code in holidays.list_supported_financial() or code in ("XAMS", "XPAR", "XMIL", "XNAS", "XSHE"):
        known = holidays.financial_holidays(code, years=year)
        if max(type(known).start_year, 1990) <= year:
            return "holidays", set(known)
    if calendar := QUANTLIB.get(name):
        closed = {day for day in weekdays(year) if not calendar.isBusinessDay(ql.Date(day.day, day.month, day.year))}
        return "QuantLib", closed
    return None, set()


def weekdays(year):
    first = date(year, 1, 1)
    days = (first + timedelta(days=number) for number in range(366))
    return [day for day in days if day.year == year and day.weekday() < 5]


if __name__ == "__main__":
    main()
