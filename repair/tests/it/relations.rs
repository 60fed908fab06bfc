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
