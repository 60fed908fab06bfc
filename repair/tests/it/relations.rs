//! A rule about another table: what a row refers to must be there.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use std::path::Path;

use repair::{Repair, RunReport};

fn write(root: &Path, name: &str, text: &str) {
    let path = root.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Orders of customers 1 to 3; one of customer 9, whom nobody knows, and one of nobody. Beside them a series of stations with the code of their maker.
fn world() -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let root = world.path();
    write(
        root,
        "lake/customers/0.csv",
        "id,since,name\n1,2024-01-01T00:00:00Z,Ada\n2,2024-01-01T00:00:00Z,Bo\n3,2024-01-01T00:00:00Z,Cy\n",
    );
    write(root, "lake/empty/0.csv", "id,since,name\n");
    let orders = [("a", "1"), ("b", "9"), ("c", ""), ("d", "3")];
    let rows: String =
        orders.iter().map(|(order, customer)| format!("{order},2024-03-04T10:00:00Z,2024-03-04T10:00:00Z,{customer},1.5\n")).collect();
    write(root, "lake/orders/0.csv", &format!("order,created_at,updated_at,customer,amount\n{rows}"));
    write(root, "lake/makers/0.csv", "code,since\nAX,2024-01-01T00:00:00Z\nBX,2024-01-01T00:00:00Z\n");
    let rows: String =
        (0..6).map(|hour| format!("s,2024-03-04T{hour:02}:00:00Z,{},{hour}\n", if hour == 4 { "ZZ" } else { "AX" })).collect();
    write(root, "lake/readings/0.csv", &format!("sensor,ts,maker,value\n{rows}"));
    world
}

const HEAD: &str = "workflow: w\nkind: dag\ntables:\n  customers: { location: customers, format: csv, rows: unique, key: [id], time: since, columns: { id: { type: integer } } }\n  \
                    empty: { location: empty, format: csv, rows: unique, key: [id], time: since, columns: { id: { type: integer }, name: { type: text } } }\n  orders: { location: orders, \
                    format: csv, rows: unique, key: [order], time: created_at, version: updated_at, columns: { customer: { type: integer }, amount: { type: number } } }\n  makers: { \
                    location: makers, format: csv, key: [code], time: since }\n  readings: { location: readings, format: csv, key: [sensor], time: ts, cadence: 1h, columns: { value: { \
                    type: number } } }\nsteps:\n";

const ORDERS: &str = "table: orders, from: 2024-03-01, to: 2024-03-10";
const READINGS: &str = "table: readings, keys: [s], from: 2024-03-04T00:00:00Z, to: 2024-03-04T06:00:00Z";

async fn run(world: &tempfile::TempDir, steps: &str) -> Result<RunReport, repair::Error> {
    write(world.path(), "w.yaml", &format!("{HEAD}{steps}"));
    Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await?.run().await
}

#[tokio::test]
async fn a_row_that_refers_to_nothing_is_found_and_its_cell_is_repaired() {
    let world = world();
    let steps = format!(
        "  orders: {{ detect: invalid, with: {{ {ORDERS}, rules: [{{ column: customer, in: {{ table: customers, column: id }} }}] }} }}\n  agreed: {{ after: [orders], repair: \
         set, of: orders, with: {{ values: {{ customer: 2 }} }} }}\n  again: {{ after: [agreed], verify: orders }}\n  makers: {{ after: [again], detect: invalid, with: {{ {READINGS}, rules: \
         [{{ column: maker, in: {{ table: makers, column: code }} }}] }} }}\n"
    );
    let report = run(&world, &steps).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let output = |step: &str, what: &str| report.step(step).unwrap_or_else(|| panic!("{:?}", report.reason)).output[what].clone();
    // An order of nobody refers to nothing.
    assert_eq!(
        (output("orders", "defective"), output("orders", "cells"), output("again", "defective")),
        (1.into(), 1.into(), 0.into()),
        "{report:?}"
    );
    assert_eq!((output("makers", "defective"), output("makers", "cells")), (1.into(), 1.into()), "{report:?}");
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await.unwrap();
    let examples = repair.state(&report.run).await.unwrap().findings["makers"].examples.clone();
    assert!(examples.iter().any(|example| example.contains("`column: maker, in: { table: makers, column: code }`")), "{examples:?}");
    // A plan knows that the other table decides, too.
    let plan = repair.plan().await.unwrap();
    let tables: Vec<&str> = plan.looks[0].extents.iter().map(|extent| extent.table.as_str()).collect();
    assert_eq!(tables, ["orders", "customers"]);
}

#[tokio::test]
async fn what_cannot_be_compared_is_refused_and_an_empty_table_makes_the_step_blind() {
    let world = world();
    for (with, rule, said) in [
        (ORDERS, "{ column: customer, in: { table: empty, column: id } }", "has no value, so it cannot be said which rows refer to one"),
        (ORDERS, "{ column: customer, in: { table: nowhere, column: id } }", "nowhere"),
        (ORDERS, "{ column: customer, in: { table: customers, column: ident } }", "refers to column `ident`"),
        (ORDERS, "{ column: customer, in: { table: customers, column: since } }", "the time of table `customers`"),
        (ORDERS, "{ column: amount, in: { table: customers, column: id } }", "only texts, whole numbers, dates and booleans are compared"),
        (ORDERS, "{ column: order, in: { table: customers, column: id } }", "compare keys by `keys`"),
        (ORDERS, "{ column: customer, in: { table: customers } }", "column"),
        (READINGS, "{ holds: value > 1, in: { table: makers, column: code } }", "a rule needs either `column`"),
    ] {
        let refusal = match run(&world, &format!("  look: {{ detect: invalid, with: {{ {with}, rules: [{rule}] }} }}\n")).await {
            Err(error) => error.full(),
            Ok(report) => report.reason.unwrap_or_else(|| panic!("{rule} was accepted")),
        };
        assert!(refusal.contains(said), "{rule}: {refusal}");
    }
}

/// Orders with items, and days with hours. `d` has no total, `e` sold nothing, and the items of `c` are not there. Of station `s`, the fifth lacks an hour, the
/// sixth has a wrong total, and the seventh lacks an hour that a straight line fills. Of `t`, nothing was counted in one hour of the fourth.
fn totals() -> tempfile::TempDir {
    let world = tempfile::tempdir().unwrap();
    let root = world.path();
    let orders = [("a", "30.3"), ("b", "31"), ("c", "5"), ("d", ""), ("e", "0")];
    let rows: String = orders.iter().map(|(id, total)| format!("{id},2024-03-04T10:00:00Z,2024-03-04T10:00:00Z,{total},2\n")).collect();
    write(root, "lake/orders/0.csv", &format!("id,created_at,updated_at,total,pieces\n{rows}"));
    let items = [("1", "a", "10.1"), ("2", "a", "20.2"), ("3", "b", "10.5"), ("4", "b", "20"), ("5", "", "7")];
    let rows: String = items.iter().map(|(item, order, amount)| format!("{item},{order},2024-02-01T00:00:00Z,{amount}\n")).collect();
    write(root, "lake/items/0.csv", &format!("item,order,packed_at,amount\n{rows}"));
    let lacking = ["s 2024-03-05T07", "s 2024-03-07T03", "t 2024-03-04T02"];
    let hours = |station: &str, day: u32| -> String {
        let hour =
            |hour: u32| (format!("{station} 2024-03-{day:02}T{hour:02}"), format!("{station},2024-03-{day:02}T{hour:02}:00:00Z,1\n"));
        (0..24).map(hour).filter(|(name, _)| !lacking.contains(&name.as_str())).map(|(_, line)| line).collect()
    };
    let rows: String = (4..8).map(|day| hours("s", day)).chain([hours("t", 4)]).collect();
    write(root, "lake/hours/0.csv", &format!("station,ts,volume\n{rows}"));
    let days = [("s", 4, "24"), ("s", 5, "24"), ("s", 6, "25"), ("s", 7, "24"), ("t", 4, "23")];
    let rows: String = days.iter().map(|(station, day, volume)| format!("{station},2024-03-{day:02},{volume}\n")).collect();
    write(root, "lake/days/0.csv", &format!("station,day,volume\n{rows}"));
    write(root, "lake/nothing/0.csv", "station,ts,volume\n");
    world
}

const TOTALS: &str = "workflow: w\nkind: dag\ntables:\n  orders: { location: orders, format: csv, rows: unique, key: [id], time: created_at, version: updated_at, columns: { \
                      total: { type: number }, pieces: { type: integer } } }\n  items: { location: items, format: csv, rows: unique, key: [item], time: packed_at, columns: { order: { \
                      type: text }, amount: { type: number } } }\n  days: { location: days, format: csv, key: [station], time: day, cadence: 1d, columns: { volume: { type: number } } \
                      }\n  hours: { location: hours, format: csv, key: [station], time: ts, cadence: 1h, columns: { volume: { type: number } } }\n  nothing: { location: nothing, format: \
                      csv, key: [station], time: ts, cadence: 1h, columns: { volume: { type: number } } }\nsources:\n  counted: { source: sql, with: { complete: true, query: \"SELECT \
                      station, ts, volume FROM hours WHERE ts >= :from AND ts < :to\" } }\nsteps:\n";

const SOLD: &str = "table: orders, from: 2024-03-01, to: 2024-03-10";
const STATION: &str = "table: days, keys: [s], from: 2024-03-04, to: 2024-03-07";

async fn run_totals(world: &tempfile::TempDir, steps: &str) -> Result<RunReport, repair::Error> {
    write(world.path(), "w.yaml", &format!("{TOTALS}{steps}"));
    Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await?.run().await
}

fn output(report: &RunReport, step: &str, what: &str) -> serde_json::Value {
    report.step(step).unwrap_or_else(|| panic!("{:?}", report.reason)).output[what].clone()
}

#[tokio::test]
async fn a_value_equals_the_total_of_the_rows_that_belong_to_it_by_key() {
    let world = totals();
    let look = |name: &str, rule: &str| format!("  {name}: {{ detect: invalid, with: {{ {SOLD}, rules: [{rule}] }} }}\n");
    let sum = "{ column: total, equals: { table: items, sum: amount, by: { order: id } } }";
    let steps = [
        look("sum", sum),
        look("near", "{ column: total, equals: { table: items, sum: amount, by: { order: id }, tolerance: 0.5 } }"),
        look("part", "{ column: total, equals: { table: items, sum: amount, by: { order: id }, relative: 0.02 } }"),
        look("known", "{ column: total, equals: { table: items, sum: amount, by: { order: id }, incomplete: skip } }"),
        look("count", "{ column: pieces, equals: { table: items, count: true, by: { order: id } } }"),
        look("values", "{ column: pieces, equals: { table: items, count: amount, by: { order: id } } }"),
        look("mean", "{ column: total, equals: { table: items, mean: amount, by: { order: id }, tolerance: 16, incomplete: skip } }"),
        look("max", "{ column: total, equals: { table: items, max: amount, by: { order: id }, tolerance: 10.5 } }"),
    ];
    let steps = format!(
        "{}  agreed: {{ after: [sum], repair: set, of: sum, with: {{ values: {{ total: 30.5 }} }} }}\n  again: {{ after: [agreed], verify: sum }}\n",
        steps.concat()
    );
    let report = run_totals(&world, &steps).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let found = |step: &str| (output(&report, step, "defective"), output(&report, step, "unjudged"));
    let (number, none) = (|count: u32| serde_json::Value::from(count), serde_json::Value::Null);
    // `b` is wrong, and `c`, to which no item belongs; the sum of no items is the 0 of `e`. `d` says nothing.
    assert_eq!(found("sum"), (number(2), none.clone()), "{report:?}");
    assert_eq!((found("near"), found("part")), ((number(1), none.clone()), (number(1), none.clone())), "{report:?}");
    // Without items, `c` and `e` are not judged.
    assert_eq!(found("known"), (number(1), number(2)), "{report:?}");
    // All orders have two pieces, and `c`, `d` and `e` have no item.
    assert_eq!((found("count"), found("values")), ((number(3), none.clone()), (number(3), none.clone())), "{report:?}");
    assert_eq!(found("mean"), (number(0), number(2)), "{report:?}");
    // Nothing is the greatest of no items, so neither `c` nor `e` equals it; `b` is 11 from it.
    assert_eq!(found("max"), (number(3), none), "{report:?}");
    // 30.5 is right for `b` alone.
    assert_eq!((output(&report, "sum", "cells"), output(&report, "again", "defective")), (number(2), number(1)), "{report:?}");
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await.unwrap();
    let findings = repair.state(&report.run).await.unwrap().findings.clone();
    let examples = &findings["sum"].examples;
    assert!(
        examples.iter().any(|example| example.contains("c at") && example.contains("equals: { table: items, sum: amount }")),
        "{examples:?}"
    );
    let notices = &findings["known"].notices;
    assert!(notices.iter().any(|notice| notice.contains("2 rows of table `orders` were not compared with table `items`")), "{notices:?}");
    let plan = repair.plan().await.unwrap();
    let tables: Vec<&str> = plan.looks[0].extents.iter().map(|extent| extent.table.as_str()).collect();
    assert_eq!(tables, ["orders", "items"]);
}

#[tokio::test]
async fn a_total_counts_only_if_every_slot_of_the_other_table_is_there_repaired_or_absent() {
    let world = totals();
    let rule = "rules: [{ column: volume, equals: { table: hours, sum: volume } }]";
    let after = |step: &str| if step.is_empty() { String::new() } else { format!("after: [{step}], ") };
    let look = |name: &str, step: &str| format!("  {name}: {{ {}detect: invalid, with: {{ {STATION}, {rule} }} }}\n", after(step));
    let gaps = "detect: gaps, with: { table: hours, keys: [s], from: 2024-03-07, to: 2024-03-07 }";
    let steps = [
        look("look", ""),
        "  open: { after: [look], detect: invalid, with: { table: days, keys: [s], from: 2024-03-04, to: 2024-03-07, rules: [{ column: volume, equals: { table: \
         hours, sum: volume, incomplete: judge } }] } }\n"
            .to_owned(),
        format!("  gaps: {{ after: [open], {gaps} }}\n"),
        "  fill: { after: [gaps], repair: interpolate, of: gaps }\n".to_owned(),
        look("filled", "fill"),
        "  agreed: { after: [filled], repair: set, of: filled, with: { values: { volume: 24 } } }\n  again: { after: [agreed], verify: filled }\n".to_owned(),
        look("last", "again"),
    ]
    .concat();
    let report = run_totals(&world, &steps).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let found = |step: &str| (output(&report, step, "defective"), output(&report, step, "unjudged"));
    let (number, none) = (|count: u32| serde_json::Value::from(count), serde_json::Value::Null);
    assert_eq!(found("look"), (number(1), number(2)), "{report:?}");
    assert_eq!(found("open"), (number(3), none.clone()), "{report:?}");
    // The total of the seventh is that of the repaired hours.
    assert_eq!((found("filled"), found("again"), found("last")), ((number(1), number(1)), (number(0), none), (number(0), number(1))));
    let patched = output(&report, "last", "patched");
    assert_eq!(patched, number(1), "{report:?}");
    // Once the hour is no longer repaired, the seventh cannot be judged, as before; and the sixth is wrong again.
    let repair = Repair::open(world.path().join("w.yaml")).lake(world.path().join("lake")).connect().await.unwrap();
    repair.undo(&report.run).await.unwrap();
    let report = run_totals(&world, &look("look", "")).await.unwrap_or_else(|error| panic!("{}", error.full()));
    assert_eq!((output(&report, "look", "defective"), output(&report, "look", "unjudged")), (number(1), number(2)), "{report:?}");
    // An hour that is confirmed absent lacks nothing.
    let of_t = |name: &str, step: &str| {
        let with = format!("table: days, keys: [s, t], from: 2024-03-04, to: 2024-03-04, {rule}");
        format!("  {name}: {{ {}detect: invalid, with: {{ {with} }} }}\n", after(step))
    };
    let steps = [
        of_t("before", ""),
        "  gaps: { after: [before], detect: gaps, with: { table: hours, keys: [t], from: 2024-03-04, to: 2024-03-04 } }\n".to_owned(),
        "  ask: { after: [gaps], repair: backfill, of: gaps, with: { source: counted, quiet_spell: 2h } }\n".to_owned(),
        of_t("absent", "ask"),
    ]
    .concat();
    let report = run_totals(&world, &steps).await.unwrap_or_else(|error| panic!("{}", error.full()));
    let found = |step: &str| (output(&report, step, "defective"), output(&report, step, "unjudged"));
    let none = serde_json::Value::Null;
    assert_eq!((found("before"), found("absent")), ((number(0), number(1)), (number(0), none)), "{report:?}");
}

/// Days of a zone whose clock is set, hours that mark their end, a region with several stations, and the total of everything.
#[tokio::test]
async fn rows_belong_to_the_slot_in_which_theirs_begins_whatever_marks_it_and_however_long_it_is() {
    let world = tempfile::tempdir().unwrap();
    let root = world.path();
    // Berlin goes from one hour ahead of UTC to two on the 31st, which has 23 hours: from 23:00 on the 30th to 22:00.
    let start: jiff::Timestamp = "2024-03-29T23:00:00Z".parse().unwrap();
    let hours = |station: &str| -> String {
        let hour = |hour: i64| format!("north,{station},{},1\n", start + jiff::SignedDuration::from_hours(hour + 1));
        (0..71).map(hour).collect()
    };
    write(root, "lake/hours/0.csv", &format!("region,station,ended,volume\n{}{}", hours("a"), hours("b")));
    let days = |name: &str, values: [u32; 3]| -> String {
        (30..33)
            .zip(values)
            .map(|(day, value)| format!("{name}{},{value}\n", if day < 32 { format!("2024-03-{day}") } else { "2024-04-01".to_owned() }))
            .collect()
    };
    write(root, "lake/days/0.csv", &format!("station,day,volume\n{}{}", days("a,", [24, 23, 24]), days("b,", [24, 24, 24])));
    write(root, "lake/regions/0.csv", &format!("region,day,volume\n{}", days("north,", [48, 46, 47])));
    write(root, "lake/all/0.csv", &format!("day,volume\n{}", days("", [48, 47, 48])));
    let daily = "time: day, zone: Europe/Berlin, cadence: 1d, columns: { volume: { type: integer } }";
    let step = |table: &str, keys: &str, rule: &str| {
        let scope = format!("table: {table}, {keys}from: 2024-03-30, to: 2024-04-01");
        format!(
            "  {table}: {{ detect: invalid, with: {{ {scope}, rules: [{{ column: volume, equals: {{ table: hours, sum: volume{rule} }} }}] }} }}\n"
        )
    };
    let text = format!(
        "workflow: w\nkind: dag\ntables:\n  hours: {{ location: hours, format: csv, key: [region, station], time: ended, time_marks: end, cadence: 1h, columns: {{ volume: {{ type: integer }} }} \
         }}\n  days: {{ location: days, format: csv, key: [station], {daily} }}\n  regions: {{ location: regions, format: csv, key: [region], {daily} }}\n  all: {{ location: all, format: csv, \
         {daily} }}\nsteps:\n{}{}{}",
        step("days", "keys: [a, b], ", ""),
        step("regions", "keys: [north], ", ""),
        step("all", "", ", tolerance: 0.5")
    );
    write(root, "w.yaml", &text);
    let repair = Repair::open(root.join("w.yaml")).lake(root.join("lake")).connect().await.unwrap();
    let report = repair.run().await.unwrap_or_else(|error| panic!("{}", error.full()));
    let state = repair.state(&report.run).await.unwrap();
    let found = |step: &str| {
        state.findings.get(step).map(|found| found.examples.clone()).unwrap_or_else(|| panic!("{step}: {:?}", report.problems))
    };
    let wrong = |step: &str| found(step).into_iter().map(|example| example.split(": its").next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(wrong("days"), ["b at 2024-03-30T23:00:00Z"]);
    assert_eq!(wrong("regions"), ["north at 2024-03-31T22:00:00Z"]);
    assert_eq!(wrong("all"), ["(all) at 2024-03-30T23:00:00Z"]);
}

#[tokio::test]
async fn a_total_of_an_hour_that_is_there_twice_is_not_known() {
    let world = totals();
    let path = world.path().join("lake/hours/0.csv");
    let hours = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{hours}s,2024-03-04T05:00:00Z,1\n")).unwrap();
    let rule = "rules: [{ column: volume, equals: { table: hours, sum: volume } }]";
    let report = run_totals(&world, &format!("  look: {{ detect: invalid, with: {{ {STATION}, {rule} }} }}\n")).await.unwrap();
    assert_eq!((output(&report, "look", "defective"), output(&report, "look", "unjudged")), (1.into(), 3.into()), "{report:?}");
}

#[tokio::test]
async fn a_total_that_cannot_be_is_refused_and_a_table_that_lacks_everything_makes_the_step_blind() {
    let world = totals();
    for (with, rule, said) in [
        (SOLD, "{ column: total, equals: { table: items, sum: amount } }", "which table `items` does not have"),
        (SOLD, "{ column: total, equals: { table: items, sum: amount } }", "write e.g. `by: { THEIRS: id }`"),
        (SOLD, "{ column: total, equals: { table: items, sum: price, by: { order: id } } }", "`equals` names column `price`"),
        (SOLD, "{ column: total, equals: { table: items, sum: order, by: { order: id } } }", "needs numbers"),
        (
            SOLD,
            "{ column: total, equals: { table: items, sum: amount, by: { order: ident } } }",
            "`equals` names column `ident`, which table `orders`",
        ),
        (SOLD, "{ column: total, equals: { table: items, sum: amount, by: {} } }", "all rows would belong to each row"),
        (SOLD, "{ column: total, equals: { table: items, sum: amount, mean: amount, by: { order: id } } }", "has `sum` and `mean`"),
        (SOLD, "{ column: total, equals: { table: items, by: { order: id } } }", "has none of them"),
        (SOLD, "{ column: total, equals: { table: items, count: false, by: { order: id } } }", "counts nothing"),
        (SOLD, "{ column: total, equals: { table: items, sum: amount, by: { order: id }, tolerance: -1 } }", "use a number of 0 or more"),
        (SOLD, "{ column: total, equals: { table: items, sum: amount, by: { packed_at: created_at } } }", "times are compared by slots"),
        (SOLD, "{ column: total, equals: { table: orders, sum: total } }", "with itself"),
        (SOLD, "{ column: total, equals: { table: nowhere, sum: total } }", "nowhere"),
        (SOLD, "{ column: id, equals: { table: items, count: true, by: { order: id } } }", "is key or time of table `orders`"),
        (
            STATION,
            "{ column: volume, equals: { table: nothing, sum: volume } }",
            "no row of table `days` could be compared with table `nothing`",
        ),
        (
            "table: hours, keys: [s], from: 2024-03-04, to: 2024-03-04",
            "{ column: volume, equals: { table: days, sum: volume } }",
            "so none lies within one",
        ),
    ] {
        let refusal = match run_totals(&world, &format!("  look: {{ detect: invalid, with: {{ {with}, rules: [{rule}] }} }}\n")).await {
            Err(error) => error.full(),
            Ok(report) => report.reason.unwrap_or_else(|| panic!("{rule} was accepted")),
        };
        assert!(refusal.contains(said), "{rule}: {refusal}");
    }
}
