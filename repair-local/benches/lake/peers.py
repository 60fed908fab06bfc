"""One task by one engine, in a process of its own: peers.py TASK ENGINE ROOT. Prints one line of JSON, as the Rust programs do.

ROOT is a lake as `generate.rs` writes it, with `sessions.csv` beside it. What is found is written as Parquet, and counted from there, so that no
engine can leave work out. Tasks: gaps, hourly, backfill, csv.
"""

import glob
import json
import os
import resource
import shutil
import sys
import tempfile

task, engine, root = sys.argv[1:]
threads = os.cpu_count()
os.environ["POLARS_MAX_THREADS"] = str(threads)
bars = f"{root}/bars/*/*.{'csv' if task == 'csv' else 'parquet'}"
out = tempfile.mkdtemp(dir=root)
MINUTE = 60_000_000


def duckdb_():
    import duckdb

    con = duckdb.connect()
    con.execute(f"SET threads={threads}; SET TimeZone='UTC'; SET preserve_insertion_order=false")
    con.execute(f"CREATE TEMP TABLE sessions AS SELECT date::DATE AS date, open_us, minutes FROM read_csv('{root}/sessions.csv')")
    one = lambda sql: con.execute(sql).fetchone()
    copy = lambda sql, name: con.execute(f"COPY ({sql}) TO '{out}/{name}.parquet' (FORMAT parquet, COMPRESSION zstd)")
    hive = "hive_partitioning=true, hive_types={'date': 'DATE'}"
    source = f"read_csv('{bars}', {hive})" if task == "csv" else f"read_parquet('{bars}', {hive})"
    hours = lambda of: f"""SELECT symbol, time_bucket(INTERVAL '1 hour', ts) AS hour, arg_min(open, ts) AS open, max(high) AS high, min(low) AS low,
        arg_max(close, ts) AS close, sum(volume)::BIGINT AS volume, count(*) AS n FROM {of} GROUP BY ALL"""
    if task == "hourly":
        copy(hours(source), "hours")
        return one(f"SELECT sum(n)::BIGINT, count(*) FROM '{out}/hours.parquet'")
    con.execute(f"CREATE TEMP TABLE symbols AS SELECT DISTINCT symbol FROM {source}")
    if task == "backfill":
        # What the archive has and the lake has not; then the hours of both together.
        copy(f"""SELECT a.* FROM read_parquet('{root}/archive/*/*.parquet', {hive}) a
            ANTI JOIN (SELECT symbol, ts FROM {source}) b ON a.symbol = b.symbol AND a.ts = b.ts""", "repairs")
        both = f"(SELECT * FROM {source} UNION ALL BY NAME SELECT * FROM '{out}/repairs.parquet')"
        copy(hours(both), "hours")
        return one(f"SELECT (SELECT count(*) FROM '{out}/repairs.parquet'), (SELECT count(*) FROM '{out}/hours.parquet')")
    # The time before each bar of a session, with a bar before the first and after the last minute.
    copy(f"""WITH edges AS (SELECT symbol, date, open_us, minutes FROM symbols, sessions),
        b AS (SELECT symbol, date, epoch_us(ts) AS t FROM {source}
            UNION ALL SELECT symbol, date, open_us - {MINUTE} FROM edges UNION ALL SELECT symbol, date, open_us + minutes * {MINUTE} FROM edges),
        w AS (SELECT symbol, t, lag(t) OVER (PARTITION BY symbol, date ORDER BY t) AS p FROM b)
        SELECT symbol, make_timestamptz(p + {MINUTE}) AS "from", make_timestamptz(t) AS "to" FROM w WHERE t - p > {MINUTE}""", "gaps")
    return one(f"""SELECT (sum(epoch_us("to") - epoch_us("from")) / {MINUTE})::BIGINT, count(*) FROM '{out}/gaps.parquet'""")


def polars():
    import polars as pl

    if task == "csv":
        lf = pl.scan_csv(bars, try_parse_dates=True, include_file_paths="file")
        lf = lf.with_columns(date=pl.col("file").str.extract(r"date=([0-9-]{10})").str.to_date())
    else:
        lf = pl.scan_parquet(bars, hive_partitioning=True, try_parse_hive_dates=True)
    if task == "hourly":
        hours = lf.with_columns(hour=pl.col("ts").dt.truncate("1h")).group_by("symbol", "hour").agg(
            pl.col("open").sort_by("ts").first(), pl.col("high").max(), pl.col("low").min(), pl.col("close").sort_by("ts").last(),
            pl.col("volume").sum(), n=pl.len())
        hours.sink_parquet(f"{out}/hours.parquet", compression="zstd")
        return pl.scan_parquet(f"{out}/hours.parquet").select(pl.col("n").cast(pl.Int64).sum(), pl.len()).collect().row(0)
    sessions = pl.read_csv(f"{root}/sessions.csv", try_parse_dates=True).lazy()
    rows = lf.select(pl.col("symbol").cast(pl.String), "date", t=pl.col("ts").dt.epoch("us"))
    edges = rows.select(pl.col("symbol").unique()).collect(engine="streaming").lazy().join(sessions, how="cross")
    rows = pl.concat([rows, edges.select("symbol", "date", t=pl.col("open_us") - MINUTE),
                      edges.select("symbol", "date", t=pl.col("open_us") + pl.col("minutes") * MINUTE)])
    gaps = rows.with_columns(p=pl.col("t").shift(1).over("symbol", "date", order_by="t")).filter(pl.col("t") - pl.col("p") > MINUTE)
    stamp = lambda e: e.cast(pl.Datetime("us", "UTC"))
    gaps = gaps.select("symbol", start=stamp(pl.col("p") + MINUTE), end=stamp(pl.col("t")))
    gaps.sink_parquet(f"{out}/gaps.parquet", compression="zstd")
    return pl.scan_parquet(f"{out}/gaps.parquet").select(
        (pl.col("end") - pl.col("start")).dt.total_minutes().sum(), pl.len()).collect().row(0)


def pyarrow():
    """A table of bits for each file, by hand, which needs a file a session."""
    import csv
    from concurrent.futures import ThreadPoolExecutor

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    sessions = {row["date"]: (int(row["open_us"]), int(row["minutes"])) for row in csv.DictReader(open(f"{root}/sessions.csv"))}
    files = sorted(glob.glob(bars))
    read = lambda path, columns: pq.read_table(path, columns=columns, partitioning=None, read_dictionary=["symbol"], use_threads=False)
    names = sorted({name for path in files for chunk in read(path, ["symbol"])["symbol"].chunks for name in chunk.dictionary.to_pylist()})
    at = {name: n for n, name in enumerate(names)}
    names = pa.array(names)
    stamp = pa.timestamp("us", "UTC")
    schema = pa.schema([("symbol", pa.string()), ("from", stamp), ("to", stamp)])

    def find(path):
        open_us, minutes = sessions[path.split("date=")[1][:10]]
        table = read(path, ["symbol", "ts"])
        bits = np.ones((len(names), minutes + 2), bool)
        bits[:, 1:-1] = False
        for keys, times in zip(table["symbol"].chunks, table["ts"].chunks):
            of = np.array([at[name] for name in keys.dictionary.to_pylist()], np.int64)
            slots = 1 + (times.cast(pa.int64()).to_numpy() - open_us) // MINUTE
            bits.reshape(-1)[of[keys.indices.to_numpy(zero_copy_only=False)] * (minutes + 2) + slots] = True
        edges = np.diff(bits.view(np.int8), axis=1)
        key, first = np.nonzero(edges == -1)
        _, last = np.nonzero(edges == 1)
        return pa.table([names.take(pa.array(key)), pa.array(open_us + first * MINUTE, stamp), pa.array(open_us + last * MINUTE, stamp)], schema=schema)

    missing = count = 0
    with pq.ParquetWriter(f"{out}/gaps.parquet", schema, compression="zstd") as writer, ThreadPoolExecutor(threads) as pool:
        for table in pool.map(find, files):
            writer.write_table(table)
            count += len(table)
            missing += int((table["to"].cast(pa.int64()).to_numpy() - table["from"].cast(pa.int64()).to_numpy()).sum()) // MINUTE
    return missing, count


try:
    found = {"duckdb": duckdb_, "polars": polars, "pyarrow": pyarrow}[engine]()
finally:
    shutil.rmtree(out)
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({"found": [int(n) for n in found], "cpu_s": usage.ru_utime + usage.ru_stime, "peak_mib": usage.ru_maxrss / 1024}))
sys.stdout.flush()
os._exit(0)
