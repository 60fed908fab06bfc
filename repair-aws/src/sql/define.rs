//! Statements that define tables and partitions, in Hive's dialect.

use repair_core::model::{Format, PathPattern, PathPiece, Table, TimeForm};

use super::text;

/// A name in a statement of Hive's dialect.
fn hive_name(text: &str) -> String {
    format!("`{}`", text.replace('`', "``"))
}

/// A table of ours: Parquet at a location, with the partitions of the table it belongs to.
pub(crate) fn create_table(
    database: &str,
    table: &str,
    columns: &[(String, String)],
    partitions: &[(String, String)],
    location: &str,
) -> String {
    let list = |columns: &[(String, String)]| {
        columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect::<Vec<_>>().join(", ")
    };
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", list(partitions)) };
    format!(
        "CREATE EXTERNAL TABLE IF NOT EXISTS {}.{} ({}){partitioned} STORED AS PARQUET LOCATION {} TBLPROPERTIES ('parquet.compression'='ZSTD')",
        hive_name(database),
        hive_name(table),
        list(columns),
        text(location)
    )
}

/// Drops a table of ours.
pub(crate) fn drop_table(database: &str, table: &str) -> String {
    format!("DROP TABLE IF EXISTS {}.{}", hive_name(database), hive_name(table))
}

/// Adds columns to a table of ours.
pub(crate) fn add_columns(database: &str, table: &str, columns: &[(String, String)]) -> String {
    let list: Vec<String> = columns.iter().map(|(column, kind)| format!("{} {kind}", hive_name(column))).collect();
    format!("ALTER TABLE {}.{} ADD COLUMNS ({})", hive_name(database), hive_name(table), list.join(", "))
}

/// Adds partitions to a table of ours.
pub(crate) fn add_partitions(database: &str, table: &str, column: &str, partitions: &[(String, String)]) -> String {
    let list: Vec<String> = partitions
        .iter()
        .map(|(value, location)| format!("PARTITION ({} = {}) LOCATION {}", hive_name(column), text(value), text(location)))
        .collect();
    format!("ALTER TABLE {}.{} ADD IF NOT EXISTS {}", hive_name(database), hive_name(table), list.join(" "))
}

/// A template for declaring a missing table, with what is known of it; the user adds the columns.
pub(crate) fn suggested_table(database: &str, table: &Table, location: &str) -> String {
    let keys = table.key.iter().map(|key| format!("{} string", hive_name(key)));
    let kind = match (table.format, &table.reading.form) {
        (Format::Parquet, TimeForm::Iso) => "timestamp",
        (Format::Parquet, TimeForm::Epoch(_)) => "bigint",
        _ => "string",
    };
    let times = table.time_columns().into_iter().map(|column| format!("{} {kind}", hive_name(column)));
    let partitions: Vec<String> = match &table.layout {
        Some(layout) => {
            let named = |(number, part): (usize, &Vec<PathPiece>)| match PathPattern::column_of(part) {
                Some(column) => hive_name(column),
                None => hive_name(&format!("folder{}", number + 1)),
            };
            let folders = layout.path.parts().len() - usize::from(layout.path.names_a_file());
            layout.path.parts().iter().take(folders).enumerate().map(named).map(|column| format!("{column} string")).collect()
        }
        None => table.partition_by.iter().map(|by| format!("{} string", hive_name(&by.column))).collect(),
    };
    let partitioned = if partitions.is_empty() { String::new() } else { format!(" PARTITIONED BY ({})", partitions.join(", ")) };
    let csv = &table.csv;
    let stored = match (table.format, csv.quote) {
        (Format::Parquet, _) => "STORED AS PARQUET".to_owned(),
        (Format::Csv, None) => format!("ROW FORMAT DELIMITED FIELDS TERMINATED BY {}", text(&csv.delimiter.to_string())),
        (Format::Csv, Some(quote)) => {
            let plain = csv.delimiter == ',' && quote == '"';
            let properties = format!(
                " WITH SERDEPROPERTIES ('separatorChar' = {}, 'quoteChar' = {})",
                text(&csv.delimiter.to_string()),
                text(&quote.to_string())
            );
            format!("ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde'{}", if plain { "" } else { &properties })
        }
        (Format::Jsonl, _) => "ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'".to_owned(),
        _ => "STORED AS …".to_owned(),
    };
    let before = csv.skip_lines + u32::from(csv.header);
    let properties = if table.format == Format::Csv && before > 0 {
        format!(" TBLPROPERTIES ('skip.header.line.count'='{before}')")
    } else {
        String::new()
    };
    let columns: Vec<String> = keys.chain(times).chain(["…".to_owned()]).collect();
    format!(
        "CREATE EXTERNAL TABLE {}.{} ({}){partitioned} {stored} LOCATION {}{properties}",
        hive_name(database),
        hive_name(&table.name),
        columns.join(", "),
        text(location)
    )
}
