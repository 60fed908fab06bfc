//! What the demo promises, checked against the bars themselves: the binary is run, and its lake is read as anybody could read it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "clippy's exception for tests does not reach their helper functions")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use assert_cmd::cargo::cargo_bin_cmd;
use futures::TryStreamExt;
use repair::Workflow;
use repair::arrow::array::{Array, AsArray, RecordBatch};
use repair::arrow::compute::cast;
use repair::arrow::datatypes::{DataType, Float64Type, TimestampMicrosecondType, UInt64Type};
use repair::core::lake::{Layer, ReadLake, ScanRequest, overlay};
use repair::core::model::{Interval, Table};
use repair::jiff::Timestamp;
use repair::local::LocalLake;
use repair::stocks::source::simulated::Market;
use tempfile::TempDir;

const WORKFLOW: &str = include_str!("../workflows/ticker-hourly.yaml");

/// What a day of the pipeline costs, by prices/aws-us-east-1.yaml.
const PIPELINE_USD: &str = "0.006426";

/// Open, high, low, close, volume.
type Numbers = [f64; 5];
/// By symbol and minute since the epoch.
type Bars = BTreeMap<(String, i64), Numbers>;

/// A finished demo: what it printed, and the lake it left.
struct Demo {
    printed: String,
    lake: TempDir,
    tables: BTreeMap<String, Table>,
}

impl Demo {
    fn run(args: &[&str]) -> Self {
        let lake = TempDir::new().unwrap();
        let output = cargo_bin_cmd!("stock-pipeline").args(args).arg("--lake").arg(lake.path()).assert().success().get_output().clone();
        let registry = repair::registry();
        let workflow = Workflow::parse("ticker-hourly.yaml", WORKFLOW, &registry).unwrap();
        Self { printed: String::from_utf8(output.stdout).unwrap(), lake, tables: workflow.tables }
    }

    fn table(&self, name: &str) -> Table {
        self.tables[name].clone()
    }

    fn scan(&self, table: &Table, layer: Layer) -> Vec<RecordBatch> {
        let request = ScanRequest::new(layer);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let rows = LocalLake::open(self.lake.path()).unwrap().scan(table, &request).await.unwrap();
            rows.try_collect().await.unwrap()
        })
    }

    fn bars(&self, layer: Layer) -> Bars {
        let mut bars = Bars::new();
        for batch in self.scan(&self.table("bars"), layer) {
            for row in 0..batch.num_rows() {
                let numbers = ["open", "high", "low", "close", "volume"].map(|column| float(&batch, column, row).unwrap());
                let slot = (text(&batch, "symbol", row), instant(&batch, "ts", row).as_second() / 60);
                assert!(bars.insert(slot.clone(), numbers).is_none(), "{slot:?} is there twice");
            }
        }
        bars
    }

    /// The slots confirmed absent, each with its evidence checked.
    fn absent(&self) -> Vec<(String, i64)> {
        let name = overlay::exceptions("bars");
        let table = Table { name: name.clone(), location: name, ..self.table("bars") };
        let mut absent = Vec::new();
        for batch in self.scan(&table, Layer::Raw) {
            for row in 0..batch.num_rows() {
                let asked_at = instant(&batch, overlay::columns::AT, row);
                assert!(instant(&batch, overlay::columns::RECHECK_AFTER, row) > asked_at);
                for evidence in [overlay::columns::SOURCE, overlay::columns::ANSWER, overlay::columns::RUN] {
                    assert!(!text(&batch, evidence, row).is_empty(), "an absence without `{evidence}`");
                }
                absent.push((text(&batch, "symbol", row), instant(&batch, "ts", row).as_second() / 60));
            }
        }
        absent.sort();
        absent
    }

    fn hours(&self) -> BTreeMap<(String, i64), Hour> {
        let mut hours = BTreeMap::new();
        for batch in self.scan(&self.table("hourly"), Layer::Raw) {
            for row in 0..batch.num_rows() {
                let hour = Hour {
                    prices: ["open", "high", "low", "close"].map(|column| float(&batch, column, row)),
                    volume: float(&batch, "volume", row),
                    counts: ["expected", "observed", "repaired", "absent"].map(|column| count(&batch, column, row)),
                    complete: batch.column_by_name("complete").unwrap().as_boolean().value(row),
                };
                let slot = (text(&batch, "symbol", row), instant(&batch, "hour", row).as_second() / 3_600);
                assert!(hours.insert(slot, hour).is_none(), "an hour is there twice");
            }
        }
        hours
    }

    fn printed(&self, what: &str) {
        assert!(self.printed.contains(what), "`{what}` is not in\n{}", self.printed);
    }
}

/// A row of the hourly table.
#[derive(Debug, Clone, PartialEq)]
struct Hour {
    /// Open, high, low, close; none in an hour without a bar.
    prices: [Option<f64>; 4],
    volume: Option<f64>,
    /// Expected, observed, repaired, absent.
    counts: [u64; 4],
    complete: bool,
}

fn text(batch: &RecordBatch, column: &str, row: usize) -> String {
    batch.column_by_name(column).unwrap_or_else(|| panic!("no column `{column}`")).as_string::<i32>().value(row).to_owned()
}

fn instant(batch: &RecordBatch, column: &str, row: usize) -> Timestamp {
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column `{column}`"));
    Timestamp::from_microsecond(column.as_primitive::<TimestampMicrosecondType>().value(row)).unwrap()
}

fn float(batch: &RecordBatch, column: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(column).unwrap_or_else(|| panic!("no column `{column}`")).as_primitive::<Float64Type>().clone();
    column.is_valid(row).then(|| column.value(row))
}

fn count(batch: &RecordBatch, column: &str, row: usize) -> u64 {
    cast(batch.column_by_name(column).unwrap(), &DataType::UInt64).unwrap().as_primitive::<UInt64Type>().value(row)
}

/// Hours as a person would compute them with pencil and paper: row by row, in order of time. `raw` says which bars were captured.
fn hours_by_hand(bars: &Bars, raw: &Bars, expected: &[(String, i64)]) -> BTreeMap<(String, i64), Hour> {
    let mut hours = BTreeMap::new();
    for slot in expected {
        let hour = hours.entry((slot.0.clone(), slot.1.div_euclid(60))).or_insert(Hour {
            prices: [None; 4],
            volume: None,
            counts: [0; 4],
            complete: true,
        });
        hour.counts[0] += 1;
        let Some([open, high, low, close, volume]) = bars.get(slot).copied() else {
            hour.counts[3] += 1;
            continue;
        };
        hour.counts[if raw.contains_key(slot) { 1 } else { 2 }] += 1;
        hour.prices = match hour.prices {
            [Some(first), Some(highest), Some(lowest), _] => [Some(first), Some(highest.max(high)), Some(lowest.min(low)), Some(close)],
            _ => [Some(open), Some(high), Some(low), Some(close)],
        };
        hour.volume = Some(hour.volume.map_or(volume, |sum| sum + volume));
    }
    hours
}

fn assert_same_hours(demo: &Demo, by_hand: &BTreeMap<(String, i64), Hour>) {
    let hours = demo.hours();
    assert_eq!(hours.keys().collect::<Vec<_>>(), by_hand.keys().collect::<Vec<_>>());
    for (slot, expected) in by_hand {
        let hour = &hours[slot];
        let bits = |hour: &Hour| hour.prices.map(|price| price.map(f64::to_bits));
        assert_eq!(bits(hour), bits(expected), "{slot:?}: {hour:?} is not {expected:?}");
        // An hour in which nothing traded has no prices; whether its volume is nothing or zero says the same.
        assert_eq!(hour.volume.unwrap_or(0.0).to_bits(), expected.volume.unwrap_or(0.0).to_bits(), "{slot:?}");
        assert_eq!((hour.counts, hour.complete), (expected.counts, expected.complete), "{slot:?}");
    }
}

#[test]
fn a_simulated_session_is_complete_afterwards_and_equals_the_market() {
    let demo = Demo::run(&[]);
    demo.printed("None of 77 stock-hours is complete.");
    demo.printed("All of 77 stock-hours are complete.");
    demo.printed("nothing to do: 0 missing, 0 requests");
    // The figure that docs/costs.md uses.
    assert!(include_str!("../../../docs/costs.md").contains(PIPELINE_USD));
    let costs = demo.printed.split("COSTS of this day").nth(1).unwrap();
    let line = costs.lines().find(|line| line.contains("infrastructure")).unwrap();
    assert_eq!(line.split_whitespace().collect::<Vec<_>>(), ["infrastructure", "stock-pipeline", "3,900", "3,820", PIPELINE_USD]);

    let calendar = repair::stocks::calendar::calendar("XNYS").unwrap();
    let market = Market::new(42, calendar.clone(), 0.02);
    let day = Interval::parse("2026-03-05", "2026-03-05").unwrap();
    let open = calendar.open(&day).unwrap();
    let minutes = || open.iter().flat_map(|open| open.from().as_second() / 60..open.to().as_second() / 60);
    let symbols = ["AIG", "AMZN", "BAC", "C", "GE", "GS", "IBM", "JPM", "MSFT", "SPY", "WFC"];
    let expected: Vec<_> = symbols.iter().flat_map(|symbol| minutes().map(|minute| ((*symbol).to_owned(), minute))).collect();
    assert_eq!(expected.len(), 11 * 390);
    let traded: Bars = expected
        .iter()
        .filter_map(|slot| market.bar(&slot.0, slot.1).map(|bar| (slot.clone(), [bar.open, bar.high, bar.low, bar.close, bar.volume])))
        .collect();

    let raw = demo.bars(Layer::Raw);
    assert!(raw.len() < traded.len(), "the glitch dropped nothing");
    assert_eq!(demo.bars(Layer::Repaired), traded);
    let quiet: Vec<_> = expected.iter().filter(|slot| !traded.contains_key(slot)).cloned().collect();
    assert!(!quiet.is_empty(), "every stock traded in every minute");
    assert_eq!(demo.absent(), quiet);
    assert_same_hours(&demo, &hours_by_hand(&traded, &raw, &expected));
}

/// The picture in the README is the one that the demo makes.
#[test]
fn the_picture_in_the_readme_is_the_demos_own() {
    let demo = Demo::run(&[]);
    demo.printed("REPORT, for a browser: ");
    let (made, kept) = (demo.lake.path().join("report/completeness.svg"), Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/images"));
    let kept = kept.join("completeness.svg");
    let is_same = std::fs::read_to_string(&made).unwrap() == std::fs::read_to_string(&kept).unwrap_or_default();
    assert!(is_same, "run the demo, look at report/completeness.svg in its lake, and copy it to {}", kept.display());
    let page = std::fs::read_to_string(demo.lake.path().join("report/report.html")).unwrap();
    assert!(page.contains("Of 4,290 expected slots of table bars, 470 were missing or wrong; 382 were repaired, 88 were confirmed absent"));
    assert!(page.contains("0 of 77 key-hours were complete before repairs, and 77 are now."));
}

#[test]
fn the_same_seed_makes_the_same_lake_file_for_file() {
    let files = |demo: &Demo| {
        let mut files: Vec<PathBuf> = Vec::new();
        let mut folders = vec![demo.lake.path().join("bars")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        let relative = |path: &Path| path.strip_prefix(demo.lake.path()).unwrap().to_owned();
        files.into_iter().map(|path| (relative(&path), std::fs::read(&path).unwrap())).collect::<BTreeMap<_, _>>()
    };
    let one = files(&Demo::run(&["--seed", "11"]));
    assert!(one.len() > 1, "a micro-batching writer leaves several files a day");
    assert!(one.keys().all(|path| path.starts_with("bars/date=2026-03-05")), "{:?}", one.keys());
    assert!(one == files(&Demo::run(&["--seed", "11"])), "the same seed made another lake");
    assert!(one != files(&Demo::run(&["--seed", "12"])), "another seed made the same lake");
}

#[test]
fn a_second_demo_makes_its_own_lake_anew_and_nobody_elses() {
    let lake = TempDir::new().unwrap();
    let demo = |args: &[&str]| cargo_bin_cmd!("stock-pipeline").args(args).arg("--lake").arg(lake.path()).assert();
    demo(&[]).success();
    demo(&["--glitch", "3"]).success();
    let kept = demo(&["--keep"]).success();
    assert!(String::from_utf8_lossy(&kept.get_output().stdout).contains("nothing is missing"));

    std::fs::remove_file(lake.path().join(".stock-pipeline")).unwrap();
    let refused = demo(&[]).failure();
    assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("--lake DIR"));
    assert!(lake.path().join("bars").exists());
}

#[test]
fn without_a_glitch_only_quiet_minutes_are_asked_about() {
    let demo = Demo::run(&["--glitch", "0"]);
    assert_eq!(demo.bars(Layer::Raw), demo.bars(Layer::Repaired));
    assert!(!demo.absent().is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_with_a_way_out_and_leaves_nothing_behind() {
    for (args, code, way_out) in [
        (&["--glitch", "11"][..], 2, "smaller --glitch"),
        (&["--glitch", "-1"], 2, "--glitch"),
        (&["--quiet", "1.5"], 2, "from 0"),
        (&["--quiet", "-0.5"], 2, "from 0"),
        (&["--quiet", "1"], 2, "less than 1"),
        (&["--quiet", "NaN"], 2, "from 0"),
        (&["--date", "2026-03-07"], 2, "another --date"),
        (&["--calendar", "XNYC"], 2, "XNYS"),
        (&["--data", "/no/such/folder"], 2, "/no/such/folder"),
        (&["--keep"], 2, "once without --keep"),
        (&["--date", "2031-03-05"], 3, "covers"),
    ] {
        let folder = TempDir::new().unwrap();
        let lake = folder.path().join("lake");
        let refused = cargo_bin_cmd!("stock-pipeline").args(args).arg("--lake").arg(&lake).assert().code(code);
        let said = String::from_utf8(refused.get_output().stderr.clone()).unwrap();
        assert!(said.contains(way_out), "{args:?}: {said}");
        assert!(!lake.exists(), "{args:?} left a lake behind");
    }
}

#[test]
fn a_lake_that_is_kept_keeps_its_flags() {
    let folder = TempDir::new().unwrap();
    let lake = folder.path().join("lake");
    let demo = |args: &[&str]| cargo_bin_cmd!("stock-pipeline").args(args).arg("--lake").arg(&lake).assert();
    demo(&["--date", "2026-03-09", "--seed", "11", "--quiet", "0.05", "--glitch", "2"]).success();
    let kept = demo(&["--keep"]).success();
    let printed = String::from_utf8_lossy(&kept.get_output().stdout);
    for what in ["nothing is missing", "--param from=2026-03-09", "--param seed=11", "--param quiet=0.05"] {
        assert!(printed.contains(what), "`{what}` is not in\n{printed}");
    }
    for flag in [["--seed", "3"], ["--glitch", "1"], ["--date", "2026-03-05"], ["--calendar", "XNYS"], ["--quiet", "0.1"], ["--data", "."]]
    {
        let refused = demo(&[&["--keep"][..], &flag].concat()).code(2);
        assert!(String::from_utf8_lossy(&refused.get_output().stderr).contains("cannot be used with"), "{flag:?}");
    }
    // A demo that did not come so far that its bars are whole is nothing to keep.
    let marker = lake.join(".stock-pipeline");
    let text = std::fs::read_to_string(&marker).unwrap();
    std::fs::write(&marker, text.lines().next().map(|line| format!("{line}\n")).unwrap()).unwrap();
    demo(&["--keep"]).code(2);
}

#[cfg(target_os = "linux")]
#[test]
fn what_nobody_could_read_is_an_error_and_a_reader_that_leaves_is_none() {
    use std::process::{Command, Stdio};
    let folder = TempDir::new().unwrap();
    let demo = |out: Stdio| {
        let mut command = Command::new(assert_cmd::cargo::cargo_bin!("stock-pipeline"));
        command.arg("--lake").arg(folder.path().join("lake")).stdout(out).stderr(Stdio::piped()).spawn().unwrap()
    };
    let full = demo(std::fs::File::options().write(true).open("/dev/full").unwrap().into()).wait_with_output().unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("standard output cannot be written"));
    let mut left = demo(Stdio::piped());
    drop(left.stdout.take());
    let left = left.wait_with_output().unwrap();
    assert_eq!((left.status.code(), left.stderr.as_slice()), (Some(0), &b""[..]));
}

/// The real bars, as text and as numbers.
struct Real {
    folder: testdata::Unpacked,
    bars: Bars,
    /// As the files write them.
    texts: BTreeMap<(String, i64), [String; 5]>,
}

impl Real {
    fn read() -> Self {
        let folder = testdata::unpack("crypto-minute");
        let (mut bars, mut texts) = (Bars::new(), BTreeMap::new());
        for file in ["2018-04-04.csv", "2018-04-05.csv"] {
            for line in std::fs::read_to_string(folder.join(file)).unwrap().lines().skip(1) {
                let fields: Vec<&str> = line.split(',').collect();
                let [symbol, ts, numbers @ ..] = fields.as_slice() else { panic!("{line}") };
                let slot = (symbol.to_string(), ts.parse::<Timestamp>().unwrap().as_second() / 60);
                let numbers: [&str; 5] = numbers.try_into().unwrap();
                bars.insert(slot.clone(), numbers.map(|number| number.parse().unwrap()));
                texts.insert(slot, numbers.map(str::to_owned));
            }
        }
        Self { folder, bars, texts }
    }

    /// Every minute of the two days, of each series.
    fn expected() -> Vec<(String, i64)> {
        let first = "2018-04-04T00:00:00Z".parse::<Timestamp>().unwrap().as_second() / 60;
        let minutes = || first..first + 2 * 24 * 60;
        ["BTCEUR", "BTCUSD", "ETHUSD", "LTCUSD"].iter().flat_map(|symbol| minutes().map(|minute| ((*symbol).to_owned(), minute))).collect()
    }
}

fn check_real_bars(glitch: usize) {
    let real = Real::read();
    let demo = Demo::run(&["--data", real.folder.to_str().unwrap(), "--calendar", "24x7", "--glitch", glitch.to_string().as_str()]);
    demo.printed("None of 192 stock-hours is complete.");
    demo.printed("All of 192 stock-hours are complete.");
    demo.printed("1,833, for which the source confirmed that there is no bar");
    demo.printed("nothing to do: 0 missing, 0 requests");
    demo.printed("quiet_spell=365d");

    // As many as the glitch drops are not captured: each minute it asks for 4 − N of the four.
    let raw = demo.bars(Layer::Raw);
    let share = raw.len() as f64 / real.bars.len() as f64;
    assert!((share - (4 - glitch) as f64 / 4.0).abs() < 0.03, "the pipeline captured {share} of the bars");

    let repaired = demo.bars(Layer::Repaired);
    assert_eq!(repaired.len(), 9_687);
    assert_eq!(repaired, real.bars);
    for (slot, numbers) in &repaired {
        assert_eq!(numbers.map(|number| number.to_string()), real.texts[slot], "{slot:?} is not what the file says");
    }

    let expected = Real::expected();
    let silent: Vec<_> = expected.iter().filter(|slot| !real.bars.contains_key(slot)).cloned().collect();
    assert_eq!(silent.len(), 1_833);
    assert_eq!(demo.absent(), silent);
    assert_same_hours(&demo, &hours_by_hand(&real.bars, &raw, &expected));
}

#[test]
fn real_bars_that_the_glitch_dropped_come_back_to_the_last_digit() {
    check_real_bars(1);
}

#[test]
fn half_of_all_real_bars_come_back_too() {
    check_real_bars(2);
}
