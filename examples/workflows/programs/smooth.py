"""Estimates missing slots of hourly series with a structural time series model of statsmodels: a level that wanders, what repeats by day and by week,
and what is left (Harvey 1989; Durbin and Koopman 2012). The Kalman smoother reads the series from both sides of a hole, and says how sure it is.

A repairer for `repair`: it reads one request, and writes the rows that it can compute, each with the interval in which the true value lies in 95 % of
cases, if the model is right. A hole that is too long, or has too little around it, stays as it is: for the next strategy."""

import json
import sys
import warnings
from datetime import datetime, timedelta, timezone

import numpy
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.statespace.structural import UnobservedComponents

request = json.load(sys.stdin)
table, params = request["table"], request["params"]
time, column = table["time"], params["column"]
window = timedelta(days=params["days"])
HOUR = timedelta(hours=1)
whole = table["columns"][column].startswith(("Int", "UInt"))


def instant(text):
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def key_of(row):
    return tuple(row[name] for name in table["key"])


def holes(times):
    """The first and the last of each stretch of hours in a row."""
    first = last = None
    for at in sorted(times):
        if last is not None and at - last > HOUR:
            yield first, last
            first = None
        first, last = first or at, at
    if first is not None:
        yield first, last


def smooth(values):
    """Estimates of all values, of which some are not numbers, and the ends of their intervals; none if too little is known."""
    low, high = numpy.nanpercentile(values, [1, 99])
    # What is absurd must not be carried into the hole.
    values = numpy.where((values < low - (high - low)) | (values > high + (high - low)), numpy.nan, values)
    middle, scale = numpy.nanmean(values), numpy.nanstd(values)
    if not scale > 0:
        return None
    periods = [{"period": 24, "harmonics": 8}, {"period": 168, "harmonics": 6}]
    model = UnobservedComponents(
        (values - middle) / scale, level="local level", freq_seasonal=periods, stochastic_freq_seasonal=[False, False]
    )
    with warnings.catch_warnings():
        # Where it stops short of the best parameters, they are still good ones.
        warnings.simplefilter("ignore", ConvergenceWarning)
        smoothed = model.fit(disp=0, maxiter=50).get_prediction(information_set="smoothed")
    return smoothed.predicted_mean * scale + middle, smoothed.conf_int(alpha=0.05) * scale + middle


known = {}
for row in request["rows"]:
    if row[column] is not None:
        known.setdefault(key_of(row), {})[instant(row[time])] = float(row[column])
wanted = {}
for row in request["wanted"]:
    wanted.setdefault(key_of(row), []).append(instant(row[time]))
    # Of a row with wrong cells the rest is right; its wrong value must not count.
    known.get(key_of(row), {}).pop(instant(row[time]), None)

written = 0
for key, times in sorted(wanted.items()):
    series = known.get(key, {})
    for first, last in holes(times):
        if (last - first) / HOUR + 1 > params["most_hours"]:
            continue
        # As much on both sides as the hole is long, and the window.
        reach = window + (last - first)
        begin, hours = first - reach, int((last - first + 2 * reach) / HOUR) + 1
        values = numpy.array([series.get(begin + hour * HOUR, numpy.nan) for hour in range(hours)])
        # Two weeks, so that a week can be seen to repeat.
        if numpy.isfinite(values).sum() < 2 * 168:
            continue
        estimates = smooth(values)
        if estimates is None:
            continue
        means, ends = estimates
        never_below_zero = numpy.nanmin(values) >= 0
        for hour in range(int((first - begin) / HOUR), int((last - begin) / HOUR) + 1):
            value, (low, high) = float(means[hour]), map(float, ends[hour])
            if not numpy.isfinite(value):
                continue
            if never_below_zero:
                value, low, high = max(value, 0.0), max(low, 0.0), max(high, 0.0)
            at = (begin + hour * HOUR).astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
            row = dict(zip(table["key"], key)) | {time: at, column: round(value) if whole else round(value, 4)}
            # Before the first known value, the smoother may not know how sure it is.
            if numpy.isfinite([low, high]).all():
                row["$estimated"] = {column: [round(low, 4), round(high, 4)]}
            print(json.dumps(row))
            written += 1
print(json.dumps({"$rows": written}))
