//! Random tables, as the lake of files reads them too: what Athena can read of them is what was written, and what it cannot is refused before
//! a query is paid for.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]

use std::collections::BTreeSet;

use crate::common::*;
use arrow::datatypes::DataType;
use aws_sandbox::Service;
use repair_core::ErrorKind;
use repair_core::lake::ReadLake;
use repair_core::model::{Encoding, Format, PathPattern, Repeated, Table};
use repair_core::testing::random_tables::{Content, RandomTable, Reading, what_was_written_is_what_is_read};
use testdata::PrintedOnPanic;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_what_athena_reads() {
    let world = World::new().await;
    let (mut read, mut refused) = (0, 0);
    for seed in testdata::seeds(2, 6) {
        let _printed = PrintedOnPanic::seed(seed);
        let Some(mut written) = RandomTable::of_seed(seed, Reading::ByPosition) else { continue };
        // A catalog refuses a table that has a column by the name of a folder.
        if partitions(&written.table).iter().any(|by| written.columns().contains(&by.as_str())) {
            continue;
        }
        let name = format!("t{seed}");
        written.table = Table { name: name.clone(), location: name, ..written.table };
        write(&world, &written).await;
        if can_be_read(&written.table) {
            world.lake.describe(&written.table).await.unwrap_or_else(|error| panic!("{}\n{:#?}", error.full(), written.table));
            what_was_written_is_what_is_read(&world.lake, &written).await;
            read += 1;
        } else {
            world.sandbox.faults().clear_log();
            let error = world.lake.describe(&written.table).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert_eq!(world.served(Service::Athena, "StartQueryExecution"), 0);
            refused += 1;
        }
    }
    assert!(testdata::seeds_are_given() || (read > 0 && refused > 0), "{read} tables were read, {refused} refused");
}

/// What Athena can honour of a table: its CSV is UTF-8 without comments, and rows have no order.
fn can_be_read(table: &Table) -> bool {
    let is_plain = table.format != Format::Csv || (table.csv.encoding == Encoding::Utf8 && table.csv.comment.is_none());
    is_plain && table.reading.repeated != Repeated::FileOrder
}

/// The partition columns of a table, in order.
fn partitions(table: &Table) -> Vec<String> {
    match &table.layout {
        Some(layout) => {
            let named = layout.path.parts().iter().enumerate();
            named.map(|(at, part)| PathPattern::column_of(part).map_or_else(|| format!("folder{at}"), str::to_owned)).collect()
        }
        None => table.partition_by.iter().map(|by| by.column.clone()).collect(),
    }
}

fn hive(kind: &DataType) -> &'static str {
    match kind {
        DataType::Int64 => "bigint",
        DataType::Float64 => "double",
        DataType::Timestamp(..) => "timestamp",
        _ => "string",
    }
}

/// Declares a table as its owner would, and writes its files.
async fn write(world: &World, written: &RandomTable) {
    let table = &written.table;
    let name = &table.name;
    let of_rows = written.files.iter().find_map(|file| match &file.content {
        Content::Rows(rows) => Some(rows.schema()),
        Content::Text(_) => None,
    });
    let kind = |column: &str| of_rows.as_ref().map_or("string", |schema| hive(schema.field_with_name(column).unwrap().data_type()));
    let columns: Vec<String> = written.columns().iter().map(|column| format!("`{column}` {}", kind(column))).collect();
    let by = partitions(table);
    let partitioned = match by.iter().map(|column| format!("`{column}` string")).collect::<Vec<_>>() {
        none if none.is_empty() => String::new(),
        some => format!(" PARTITIONED BY ({})", some.join(", ")),
    };
    let skipped = table.csv.skip_lines + u32::from(table.csv.header);
    let (stored, properties) = match table.format {
        Format::Parquet => ("STORED AS PARQUET".to_owned(), String::new()),
        Format::Csv => (
            format!(
                "ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde' WITH SERDEPROPERTIES ('separatorChar' = '{}')",
                table.csv.delimiter
            ),
            if skipped > 0 { format!(" TBLPROPERTIES ('skip.header.line.count'='{skipped}')") } else { String::new() },
        ),
        _ => {
            let tolerant = if written.has_broken_lines() { " WITH SERDEPROPERTIES ('ignore.malformed.json' = 'true')" } else { "" };
            (format!("ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'{tolerant}"), String::new())
        }
    };
    world
        .define(&format!(
            "CREATE EXTERNAL TABLE `{DATABASE}`.`{name}` ({}){partitioned} {stored} LOCATION 's3://{BUCKET}/lake/{name}/'{properties}",
            columns.join(", ")
        ))
        .await;
    for file in &written.files {
        let folder = if file.folder.is_empty() { String::new() } else { format!("{}/", file.folder) };
        let key = format!("lake/{name}/{folder}{}", file.name);
        match &file.content {
            Content::Rows(rows) => world.put(&key, parquet(rows)),
            // What is compressed, Athena alone unpacks, and the sandbox does not.
            Content::Text(text) => world.put(&key, text.clone()),
        }
    }
    let folders: BTreeSet<&str> = written.files.iter().map(|file| file.folder.as_str()).filter(|folder| !folder.is_empty()).collect();
    let folders: Vec<String> = folders
        .into_iter()
        .map(|folder| {
            let values = folder.split('/').map(|part| part.split_once('=').map_or(part, |(_, value)| value));
            let values: Vec<String> = by.iter().zip(values).map(|(column, value)| format!("`{column}` = '{value}'")).collect();
            format!("PARTITION ({}) LOCATION 's3://{BUCKET}/lake/{name}/{folder}/'", values.join(", "))
        })
        .collect();
    for some in folders.chunks(100) {
        world.define(&format!("ALTER TABLE `{DATABASE}`.`{name}` ADD IF NOT EXISTS {}", some.join(" "))).await;
    }
}
