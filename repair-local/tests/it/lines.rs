//! Where rows are that cannot be read: the line, as `sed -n Np` prints it, in messages and lists alike; and what lines of one file disagree about.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write;

use crate::common::*;
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use proptest::prelude::*;
use repair_core::lake::{Layer, ReadLake, ScanRequest, shape};
use repair_core::model::{BadRowLimit, Cadence, ColumnRule, ColumnType, Csv, Encoding, Format, Interval, OnBadRow, Table, TimeReading};

/// What stands on a line, or on several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Good,
    /// A row with a value in quotes that goes on for so many more lines.
    Quoted(usize),
    /// A comment, with a quote that means nothing.
    Comment,
    Blank,
    /// Spaces alone.
    Spaces,
    /// The header again.
    Header,
    /// A field too few.
    Short,
    /// A value that is no number.
    Word,
    /// A time that is none.
    Time,
    /// A value that is no number, in a row of several lines.
    QuotedWord(usize),
}

impl Piece {
    fn is_bad(self) -> bool {
        matches!(self, Self::Header | Self::Short | Self::Word | Self::Time | Self::QuotedWord(_))
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        6 => Just(Piece::Good),
        2 => (1usize..4).prop_map(Piece::Quoted),
        1 => Just(Piece::Comment),
        1 => Just(Piece::Blank),
        1 => Just(Piece::Spaces),
        1 => Just(Piece::Header),
        1 => Just(Piece::Short),
        2 => Just(Piece::Word),
        1 => Just(Piece::Time),
        1 => (1usize..4).prop_map(Piece::QuotedWord),
    ]
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    runtime().block_on(future)
}

#[derive(Debug, Clone, Copy)]
struct Style {
    /// How lines end.
    end: &'static str,
    mark: bool,
    skipped: u32,
    has_header: bool,
    utf16: bool,
    ends: bool,
}

fn style() -> impl Strategy<Value = Style> {
    (prop::sample::select(vec!["\n", "\r\n"]), any::<bool>(), 0u32..3, any::<bool>(), any::<bool>(), any::<bool>())
        .prop_map(|(end, mark, skipped, has_header, utf16, ends)| Style { end, mark, skipped, has_header, utf16, ends })
}

const HEADER: &str = "symbol,ts,v,note";

/// The text of a file, and the lines on which its bad rows begin.
fn written(style: Style, pieces: &[Piece]) -> (Vec<u8>, BTreeSet<u64>) {
    let (mut text, mut bad) = (String::new(), BTreeSet::new());
    let line = |text: &mut String, line: &str| {
        text.push_str(line);
        text.push_str(style.end);
    };
    for _ in 0..style.skipped {
        line(&mut text, "#, \"what somebody wrote above");
    }
    if style.has_header {
        line(&mut text, HEADER);
    }
    for (number, piece) in pieces.iter().enumerate() {
        let begins = text.matches('\n').count() as u64 + 1;
        let time = format!("2024-03-04T{:02}:{:02}:00Z", number / 60, number % 60);
        let more = |lines: usize| format!("\"one{}# more, of it\"", format!("{}two \"\"words\"\" ", style.end).repeat(lines));
        let is_header = *piece == Piece::Header && style.has_header;
        match piece {
            Piece::Good => line(&mut text, &format!("A,{time},{number},x")),
            Piece::Quoted(lines) => line(&mut text, &format!("A,{time},{number},{}", more(*lines))),
            Piece::Comment => line(&mut text, "# A, \"not a row"),
            Piece::Blank => line(&mut text, ""),
            Piece::Spaces => line(&mut text, "  "),
            Piece::Header if is_header => line(&mut text, HEADER),
            Piece::Short | Piece::Header => line(&mut text, &format!("A,{time}")),
            Piece::Word => line(&mut text, &format!("A,{time},offline,x")),
            Piece::Time => line(&mut text, &format!("A,soon,{number},x")),
            Piece::QuotedWord(lines) => line(&mut text, &format!("A,{time},offline,{}", more(*lines))),
        }
        if piece.is_bad() {
            bad.insert(begins);
        }
    }
    if !style.ends {
        text.truncate(text.trim_end_matches(style.end).len());
    }
    let mark = if style.mark { "\u{feff}" } else { "" };
    let text = format!("{mark}{text}");
    let bytes = if style.utf16 { text.encode_utf16().flat_map(u16::to_le_bytes).collect() } else { text.into_bytes() };
    (bytes, bad)
}

fn table(style: Style) -> Table {
    let mut csv = Csv::default();
    (csv.comment, csv.skip_lines, csv.header) = (Some('#'), style.skipped, style.has_header);
    csv.encoding = if style.utf16 { Encoding::Utf16le } else { Encoding::Utf8 };
    if !style.has_header {
        csv.names = HEADER.split(',').map(str::to_owned).collect();
    }
    Table::new("t", Format::Csv, "ts")
        .with_key(["symbol"])
        .with_cadence(Cadence::MINUTE)
        .with_csv(csv)
        .with_column("v", ColumnRule::of_type(ColumnType::Number))
        .with_bad_rows(OnBadRow::Quarantine(BadRowLimit::PerMillion(1_000_000)))
}

/// The lines of the bad rows of a table's only file.
fn bad_lines(world: &World, table: &Table) -> Vec<u64> {
    let request = whole(table, "2024-03-04T00:00:00Z", "2024-03-05T00:00:00Z", &["A"]);
    let presence = block_on(world.lake.presence(table, &request)).unwrap_or_else(|error| panic!("{}", error.full()));
    presence.raw.quarantine.iter().map(|row| row.line.unwrap_or_else(|| panic!("{row} has no line"))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn bad_rows_are_on_the_lines_that_sed_prints(style in style(), pieces in prop::collection::vec(piece(), 1..60)) {
        let (bytes, bad) = written(style, &pieces);
        // A table of no rows at all has nothing to say.
        prop_assume!(pieces.iter().any(|piece| matches!(piece, Piece::Good | Piece::Quoted(_))));
        let world = World::new();
        world.write("t/a.csv", &bytes);
        let table = table(style);
        prop_assert_eq!(bad_lines(&world, &table), bad.iter().copied().collect::<Vec<_>>());
        // Where rows are refused, the message names the line of one of them.
        let strict = table.with_bad_rows(OnBadRow::Refuse);
        let refused = block_on(async {
            use futures::TryStreamExt;
            world.lake.scan(&strict, &ScanRequest::new(Layer::Raw)).await?.try_collect::<Vec<_>>().await
        });
        match refused {
            Ok(_) => prop_assert!(bad.is_empty()),
            Err(error) => {
                let message = error.message().to_owned();
                let line: Option<u64> = message.strip_prefix("line ").and_then(|rest| rest.split(':').next()?.parse().ok());
                prop_assert!(line.is_some_and(|line| bad.contains(&line)), "{} {:?}", message, bad);
            }
        }
    }
}

/// Rows of a Parquet file are numbered from its first one, whichever of its row groups are read.
#[test]
fn rows_of_parquet_are_numbered_in_their_file() {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray};

    let world = World::new();
    let day_us = 1_709_510_400_000_000i64;
    let rows = 400i64;
    let times: Vec<i64> = (0..rows).map(|minute| day_us + minute * 60_000_000).collect();
    // Word by word, the last hundred rows are bad ones.
    let values: Vec<String> = (0..rows).map(|row| if row < 300 { row.to_string() } else { "offline".to_owned() }).collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("symbol", Arc::new(StringArray::from(vec!["A"; 400]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))),
        ("v", Arc::new(StringArray::from(values))),
    ];
    write_parquet(&world.root().join("t/a.parquet"), &RecordBatch::try_from_iter(columns).unwrap(), 100);
    let table = Table::new("t", Format::Parquet, "ts")
        .with_key(["symbol"])
        .with_cadence(Cadence::MINUTE)
        .with_column("v", ColumnRule::of_type(ColumnType::Number));
    let interval = Interval::parse("2024-03-04T05:00:00Z", "2024-03-04T06:00:00Z").unwrap();
    let refused = block_on(async {
        use futures::TryStreamExt;
        world.lake.scan(&table, &ScanRequest::new(Layer::Raw).in_interval(interval)).await?.try_collect::<Vec<_>>().await
    });
    let message = refused.unwrap_err().message().to_owned();
    assert!(message.starts_with("row 301: `offline`"), "{message}");
}

fn jsonl() -> Table {
    Table::new("t", Format::Jsonl, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE)
}

fn described(world: &World, table: &Table) -> arrow::datatypes::SchemaRef {
    block_on(world.lake.describe(table)).unwrap_or_else(|error| panic!("{}", error.full()))
}

#[test]
fn a_column_whose_shapes_are_mixed_stops_only_those_who_name_it() {
    let world = World::new();
    let line =
        |minute: usize, more: &str| format!("{{\"symbol\": \"A\", \"ts\": \"2024-03-04T00:{minute:02}:00Z\", \"v\": {minute}, {more}}}\n");
    let lines = [
        line(0, "\"meta\": {\"a\": 1, \"b\": [1]}, \"tags\": [\"x\"]"),
        line(1, "\"meta\": {\"a\": 2, \"b\": {\"c\": 1}}, \"tags\": {\"x\": 1}"),
        line(2, "\"meta\": {\"a\": 3}, \"tags\": \"x\""),
    ];
    world.write("t/a.jsonl", lines.concat().as_bytes());
    let table = jsonl();
    let schema = described(&world, &table);
    assert_eq!(shape::names(&schema), "it has meta, symbol, ts, v");
    let left_out: Vec<String> = shape::left_out(&schema).iter().map(shape::LeftOut::why).collect();
    let file = world.root().join("t/a.jsonl");
    let of = |column: &str, one: &str, other: &str| {
        format!(
            "column `{column}` is {one} in line 1 of {file} and {other} in line 2 of {file}, and no type holds the values of both",
            file = file.display()
        )
    };
    assert_eq!(left_out, [of("meta.b", "a list", "a record"), of("tags", "a list", "a record")]);
    let scan = |columns: &[&str], table: &Table| {
        let columns: Vec<String> = columns.iter().map(|name| (*name).to_owned()).collect();
        let request = ScanRequest::new(Layer::Raw).with_columns(columns);
        block_on(async {
            use futures::TryStreamExt;
            world.lake.scan(table, &request).await?.try_collect::<Vec<_>>().await
        })
    };
    assert_eq!(scan(&["v"], &table).unwrap()[0].num_rows(), 3);
    assert_eq!(scan(&["meta"], &table).unwrap()[0].num_rows(), 3);
    let refused = scan(&["tags"], &table).unwrap_err();
    assert!(
        refused.message().contains("column `tags` is a list in line 1") && refused.message().contains("or do not name it"),
        "{refused}"
    );
    // A field of the same record that is of one shape is read by its path, and the other is refused.
    let rule = |path: &str| ColumnRule::default().at_path(path);
    let by_path = table.with_column("a", rule("meta.a")).with_column("b", rule("meta.b"));
    assert_eq!(scan(&["a"], &by_path).unwrap()[0].num_rows(), 3);
    assert!(scan(&["b"], &by_path).unwrap_err().message().contains("column `b` is a list in line 1"));
}

/// Within a record or a list, by its path or as a whole, a number is what is written, or its row is refused.
#[test]
fn numbers_within_records_and_lists_are_read_exactly_or_refused() {
    let line = |minute: usize, value: &str| {
        let ts = format!("2024-03-{:02}T{:02}:{:02}:00Z", 4 + minute / 1_440, minute / 60 % 24, minute % 60);
        format!("{{\"symbol\": \"A\", \"ts\": \"{ts}\", \"m\": {{\"v\": {value}, \"l\": [{value}, null]}}}}\n")
    };
    let scan = |lines: &str, table: &Table, column: &str| {
        let world = World::new();
        world.write("t/a.jsonl", lines.as_bytes());
        let request = ScanRequest::new(Layer::Raw).with_columns(vec![column.to_owned()]);
        block_on(async {
            use futures::TryStreamExt;
            world.lake.scan(table, &request).await?.try_collect::<Vec<_>>().await
        })
    };
    let by_path = |path: &str| jsonl().with_column("x", ColumnRule::default().at_path(path));
    let fractions = |value: &str| format!("{}{}{}", line(0, "0.5"), line(1, "9007199254740992"), line(2, value));
    let read = scan(&fractions("-1e3"), &by_path("m.v"), "x").unwrap();
    let values = read[0].column_by_name("x").unwrap().as_primitive::<Float64Type>();
    assert_eq!(values.values().as_ref(), [0.5, 9_007_199_254_740_992.0, -1_000.0]);
    // Types are sought in the first 50,000 rows.
    let whole =
        |value: &str| format!("{}{}", (0..60_000).map(|row| line(row % 1_440, "9007199254740993")).collect::<String>(), line(1_440, value));
    let read = scan(&whole("7"), &by_path("m.v"), "x").unwrap();
    let values: Vec<i64> =
        read.iter().flat_map(|batch| batch.column_by_name("x").unwrap().as_primitive::<Int64Type>().values().to_vec()).collect();
    assert_eq!((values.len(), values[0], values[60_000]), (60_001, 9_007_199_254_740_993, 7));
    for (lines, of_line) in [(fractions("9007199254740993"), 3), (whole("1.5"), 60_001)] {
        for (table, column) in [(by_path("m.v"), "x"), (by_path("m.l"), "x"), (jsonl(), "m")] {
            let refused = scan(&lines, &table, column).unwrap_err();
            assert!(refused.message().contains(&format!("line {of_line}")), "{column}: {refused}");
        }
    }
    let world = World::new();
    world.write("t/a.jsonl", whole("7").as_bytes());
    let schema = described(&world, &jsonl());
    assert!(schema.field_with_name("m").unwrap().data_type().to_string().contains("Int64"), "{schema}");
}

/// With `trim`, a quote may follow the spaces before a field, and it is no part of the value.
#[test]
fn quotes_after_spaces_are_quotes_where_spaces_are_trimmed() {
    let mut table = Table::new("t", Format::Csv, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    table.csv.trim = true;
    let lines =
        "ts, \"symbol\", v\n2024-03-04T00:00:00Z, \"IBM\", \"2.5\" \n2024-03-04T00:01:00Z,\"IBM\" , 1\n2024-03-04T00:02:00Z, I\"BM, 1\n";
    for copies in [1, 40] {
        let world = World::new();
        for copy in 0..copies {
            world.write(&format!("t/{copy}.csv"), lines.as_bytes());
        }
        let batches = block_on(async {
            use futures::TryStreamExt;
            world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await?.try_collect::<Vec<_>>().await
        })
        .unwrap();
        let rows: Vec<(String, f64)> = batches
            .iter()
            .flat_map(|batch| {
                let (symbols, values) = (batch.column_by_name("symbol").unwrap(), batch.column_by_name("v").unwrap());
                let values = values.as_primitive::<Float64Type>();
                symbols
                    .as_string::<i32>()
                    .iter()
                    .zip(values)
                    .map(|(symbol, value)| (symbol.unwrap().to_owned(), value.unwrap()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let expected = [("IBM", 2.5), ("IBM", 1.0), ("I\"BM", 1.0)].map(|(symbol, value)| (symbol.to_owned(), value));
        assert_eq!(rows, expected.iter().cycle().take(3 * copies).cloned().collect::<Vec<_>>());
    }
}

/// A row that is left out, because its time is none, does not decide what the columns of the others are.
#[test]
fn rows_that_are_left_out_decide_no_types() {
    let limit = OnBadRow::Quarantine(BadRowLimit::Rows(5));
    let lines = |mark: &dyn Fn(usize) -> String| (0..24).map(mark).collect::<String>();
    let csv = Table::new("t", Format::Csv, "ts").with_cadence(Cadence::HOUR).with_bad_rows(limit);
    let text = lines(&|hour| format!("2024-03-04T{hour:02}:00:00Z,{},{}\n", 9_007_199_254_740_993u64 + hour as u64, hour % 2 == 0));
    for junk in ["junk,junk,junk\n", "total,24.5,\n", ",1.5,maybe\n"] {
        for text in [format!("ts,id,b\n{junk}{text}"), format!("ts,id,b\n{text}{junk}")] {
            let world = World::new();
            world.write("t/a.csv", text.as_bytes());
            let schema = described(&world, &csv);
            let kind = |name: &str| schema.field_with_name(name).unwrap().data_type().to_string();
            assert_eq!((kind("id").as_str(), kind("b").as_str()), ("Int64", "Boolean"), "{junk}");
        }
    }
    // Its time is good, but not its key, or a value of a column whose type is declared.
    let declared = csv.clone().with_key(["k"]).with_column("v", ColumnRule::of_type(ColumnType::Number));
    let text = lines(&|hour| format!("A,2024-03-04T{hour:02}:00:00Z,{},{},0.5\n", 9_007_199_254_740_993u64 + hour as u64, hour % 2 == 0));
    for junk in ["A,2024-03-04T09:00:00Z,junk,junk,bad\n", "A,2024-03-04T09:00:00Z,1.5,,1.5.5\n", ",2024-03-04T09:00:00Z,1.5,junk,1\n"] {
        for text in [format!("k,ts,id,b,v\n{junk}{text}"), format!("k,ts,id,b,v\n{text}{junk}")] {
            let world = World::new();
            world.write("t/a.csv", text.as_bytes());
            let schema = described(&world, &declared);
            let kind = |name: &str| schema.field_with_name(name).unwrap().data_type().to_string();
            assert_eq!((kind("id").as_str(), kind("b").as_str()), ("Int64", "Boolean"), "{junk}");
            assert_eq!(block_on(repair_core::plugin::left_out(&world.lake, &declared)).unwrap().0.rows(), 1, "{junk}");
        }
    }
    // Nothing is declared, and a word stands in a column of numbers.
    let keyed = csv.clone().with_key(["k"]);
    let junk = "A,2024-03-04T09:00:00Z,offline,offline,offline\n";
    for text in [format!("k,ts,id,b,v\n{junk}{text}"), format!("k,ts,id,b,v\n{text}{junk}")] {
        let world = World::new();
        world.write("t/a.csv", text.as_bytes());
        let schema = described(&world, &keyed);
        let kind = |name: &str| schema.field_with_name(name).unwrap().data_type().to_string();
        assert_eq!((kind("id").as_str(), kind("b").as_str(), kind("v").as_str()), ("Int64", "Boolean", "Float64"));
        assert_eq!(block_on(repair_core::plugin::left_out(&world.lake, &keyed)).unwrap().0.rows(), 1);
    }
    let json = Table::new("t", Format::Jsonl, "ts").with_cadence(Cadence::HOUR).with_bad_rows(limit);
    let json = json.with_column("x", ColumnRule::default().at_path("v.v")).with_column("n", ColumnRule::of_type(ColumnType::Integer));
    let text = lines(&|hour| format!("{{\"ts\": \"2024-03-04T{hour:02}:00:00Z\", \"v\": {{\"v\": {hour}}}}}\n"));
    for junk in [
        "{\"v\": 1}\n",
        "{\"ts\": \"none\", \"v\": [1]}\n",
        "{\"ts\": \"2024-03-04T09:00:00Z\", \"v\": [1], \"n\": 1.5}\n",
        "{\"ts\": \"2024-03-04T09:00:00Z\", \"v\": {\"v\": \"word\"}, \"n\": \"none\"}\n",
    ] {
        let world = World::new();
        world.write("t/a.jsonl", format!("{text}{junk}").as_bytes());
        assert_eq!(described(&world, &json).field_with_name("x").unwrap().data_type().to_string(), "Int64", "{junk}");
    }
}

/// A whole file of another form is named for what it is.
#[test]
fn a_file_of_another_form_says_how_to_write_or_declare_it() {
    let refusal = |table: &Table, file: &str, bytes: &[u8]| {
        let world = World::new();
        world.write(&format!("t/{file}"), bytes);
        block_on(world.lake.describe(table)).unwrap_err().message().to_owned()
    };
    let csv = Table::new("t", Format::Csv, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    let utf16: Vec<u8> = "symbol,ts,v\nA,2024-03-04T00:00:00Z,1\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let said = refusal(&csv, "a.csv", &utf16);
    assert!(said.contains("looks like UTF-16; add `csv: { encoding: utf16le }`"), "{said}");
    let mut cut = csv.clone();
    cut.csv.encoding = Encoding::Utf16le;
    let half = &utf16[..utf16.len() - 1];
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(half).unwrap();
    for (file, bytes) in [("a.csv", half.to_vec()), ("a.csv.gz", gzip.finish().unwrap())] {
        let said = refusal(&cut, file, &bytes);
        assert!(said.starts_with("the text is not in the encoding that the table says; correct `encoding`"), "{file}: {said}");
    }
    let list = "[{\"symbol\": \"A\", \"ts\": \"2024-03-04T00:00:00Z\", \"v\": 1},\n {\"symbol\": \"A\"}]\n";
    for list in [list.to_owned(), list.replace(['\n', ' '], ""), format!("\n [\n{}", &list[1..])] {
        let said = refusal(&jsonl(), "a.jsonl", list.as_bytes());
        assert!(said.contains("the file is one list of JSON") && said.contains("jq -c '.[]'"), "{list}: {said}");
    }
}

#[test]
fn a_word_among_numbers_of_one_file_is_named_by_its_line() {
    let mixed = |table: &Table, file: &str, bytes: &[u8]| {
        let world = World::new();
        world.write(&format!("t/{file}"), bytes);
        let found = shape::mixed(&described(&world, table));
        let place = format!(" of {}", world.root().join("t").join(file).display());
        found.into_iter().map(|of| (of.column, of.files.map(|file| file.replace(&place, "")))).collect::<Vec<_>>()
    };
    let at = |row: usize| format!("2024-03-04T{:02}:{:02}:00Z", row / 60, row % 60);
    let json: String = (0..900)
        .map(|row| (row, if row == 500 { "\"offline\"".to_owned() } else { row.to_string() }))
        .map(|(row, value)| format!("{{\"symbol\": \"A\", \"ts\": \"{}\", \"v\": {value}}}\n", at(row)))
        .collect();
    let line = |line: &str| format!("line {line}");
    assert_eq!(mixed(&jsonl(), "a.jsonl", json.as_bytes()), [("v".to_owned(), [line("1"), line("501")])]);
    let declared = jsonl().with_column("v", ColumnRule::of_type(ColumnType::Text));
    assert_eq!(mixed(&declared, "a.jsonl", json.as_bytes()), []);
    let csv = |word: &dyn Fn(usize) -> Option<String>| {
        let rows = (0..900).map(|row| format!("A,{},{}\n", at(row), word(row).unwrap_or_else(|| row.to_string())));
        format!("symbol,ts,v\n{}", rows.collect::<String>())
    };
    let table = Table::new("t", Format::Csv, "ts").with_key(["symbol"]).with_cadence(Cadence::MINUTE);
    let words = ["offline", "broken", "cleaning", "moved", "lost"];
    let several = csv(&|row| (row % 100 == 99).then(|| words[row / 100 % 5].to_owned()));
    assert_eq!(mixed(&table, "a.csv", several.as_bytes()), [("v".to_owned(), [line("2"), line("101")])]);
    // Codes are text, whatever others look like.
    let codes = csv(&|row| (row % 10 == 9).then(|| format!("0{row}")));
    assert_eq!(mixed(&table, "a.csv", codes.as_bytes()), []);
    // Rare codes among very many numbers are not what the column is made of.
    let rare = csv(&|row| (row % 200 == 199).then(|| format!("E{}", row / 200 + 1)));
    assert_eq!(mixed(&table, "a.csv", rare.as_bytes()), [("v".to_owned(), [line("2"), line("201")])]);
    // Nor are true and false.
    let truths = csv(&|row| (row == 300).then(|| "true".to_owned()));
    assert_eq!(mixed(&table, "a.csv", truths.as_bytes()), [("v".to_owned(), [line("2"), line("302")])]);
    let truths = json.replace("\"offline\"", "false");
    assert_eq!(mixed(&jsonl(), "a.jsonl", truths.as_bytes()), [("v".to_owned(), [line("1"), line("501")])]);
    // A few different words leave the column one of numbers, and whoever reads it hears of the first.
    let few = csv(&|row| (row == 500).then(|| "offline".to_owned()));
    assert_eq!(mixed(&table, "a.csv", few.as_bytes()), []);
}

#[test]
fn a_file_of_another_compression_says_which_are_read() {
    let world = World::new();
    world.write("t/a.csv.br", b"\x0b\x02\x80");
    let error =
        block_on(world.lake.describe(&table(Style { end: "\n", mark: false, skipped: 0, has_header: true, utf16: false, ends: true })))
            .unwrap_err();
    assert!(error.message().contains("is compressed with Brotli") && error.message().contains("gzip, zstd or bzip2"), "{error}");
}

/// Months, quarters and years as statistics have them.
#[test]
fn parts_of_dates_are_times_of_tables_of_them() {
    let times = |cadence: &str, format: Option<&str>, values: &[&str]| {
        let world = World::new();
        let mut file = Vec::new();
        writeln!(file, "ts,v").unwrap();
        values.iter().for_each(|value| writeln!(file, "{value},1").unwrap());
        world.write("t/a.csv", &file);
        let mut table = Table::new("t", Format::Csv, "ts").with_cadence(cadence.parse().unwrap());
        if let Some(format) = format {
            table = table.with_time(TimeReading::by_pattern(format).with_zone("Europe/Berlin".parse().unwrap()));
        }
        table.check()?;
        block_on(async {
            use arrow::array::AsArray;
            use futures::TryStreamExt;
            let batches: Vec<_> = world.lake.scan(&table, &ScanRequest::new(Layer::Raw)).await?.try_collect().await?;
            let times = batches.iter().flat_map(|batch| {
                batch.column_by_name("ts").unwrap().as_primitive::<arrow::datatypes::TimestampMicrosecondType>().values().to_vec()
            });
            let shown = times.map(|us| jiff::Timestamp::from_microsecond(us).unwrap().to_string()).collect::<Vec<_>>();
            Ok::<_, repair_core::Error>(shown.join(" "))
        })
    };
    let ok = |cadence: &str, format: Option<&str>, values: &[&str]| {
        times(cadence, format, values).unwrap_or_else(|error| panic!("{}", error.full()))
    };
    let refused = |cadence: &str, format: Option<&str>, values: &[&str]| times(cadence, format, values).unwrap_err().message().to_owned();
    assert_eq!(ok("1mo", None, &["2024-01", "2024-12"]), "2024-01-01T00:00:00Z 2024-12-01T00:00:00Z");
    assert_eq!(ok("1y", None, &["1999", "2024-01"]), "1999-01-01T00:00:00Z 2024-01-01T00:00:00Z");
    assert_eq!(ok("3mo", None, &["2024-Q1", "2024Q4"]), "2024-01-01T00:00:00Z 2024-10-01T00:00:00Z");
    assert_eq!(ok("1mo", Some("%m/%Y"), &["03/2024", "07/2024"]), "2024-02-29T23:00:00Z 2024-06-30T22:00:00Z");
    assert_eq!(ok("1y", Some("%Y"), &["2024"]), "2023-12-31T23:00:00Z");
    assert!(refused("1mo", None, &["2024-13"]).contains("line 2"));
    assert!(refused("1mo", None, &["2024-Q1"]).contains("cadence: 3mo"));
    let day = refused("1d", None, &["2024-01"]);
    assert!(day.contains("looks like a month, in a table with a row every 1d") && day.contains("cadence: 1mo"), "{day}");
    assert!(refused("1w", None, &["2024-W05"]).contains("the date on which it begins"));
    let pattern = refused("1d", Some("%Y-%m"), &["2024-01"]);
    assert!(pattern.contains("has no day") && pattern.contains("cadence: 1mo"), "{pattern}");
    assert!(refused("1mo", Some("%H:%M"), &["10:00"]).contains("has no date"));
    // A day ends at 24:00.
    assert_eq!(ok("1h", None, &["2024-02-28T24:00Z", "2024-02-29T23:00:00Z"]), "2024-02-29T00:00:00Z 2024-02-29T23:00:00Z");
    assert_eq!(ok("1h", Some("%d.%m.%Y %H:%M"), &["31.12.2024 24:00"]), "2024-12-31T23:00:00Z");
    assert_eq!(ok("1h", Some("%H:%M %a, %d %b %Y"), &["\"24:00 Sun, 24 Mar 2024\""]), "2024-03-24T23:00:00Z");
    assert!(refused("1h", Some("%d.%m.%Y %H:%M"), &["31.12.2024 24:01"]).contains("is not a time of the form"));
}
