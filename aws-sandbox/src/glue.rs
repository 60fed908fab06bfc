//! Glue's JSON protocol: the calls with which other engines, such as Trino's Hive connector, read and write the catalog.
//!
//! Nothing is decided here: a call is parsed, the catalog is asked, and its answer is written in Glue's words.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::catalog::{Catalog, CatalogError, Database, Partition, Table};
use crate::server::AwsError;

/// The most partitions, tables or databases in an answer: Glue's own limit for partitions.
const PAGE_LIMIT: usize = 1_000;

/// Glue over a catalog. Clones share everything.
#[derive(Clone, Debug)]
pub struct Glue {
    catalog: Catalog,
}

/// The parameters of all calls; each call uses some of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Input {
    database_name: String,
    table_name: String,
    name: String,
    database_input: Option<Database>,
    table_input: Option<Table>,
    partition_input: Option<Partition>,
    partition_input_list: Vec<Partition>,
    partition_values: Vec<String>,
    partition_value_list: Vec<String>,
    partitions_to_get: Vec<Values>,
    partitions_to_delete: Vec<Values>,
    entries: Vec<Entry>,
    tables_to_delete: Vec<String>,
    segment: Option<Segment>,
    exclude_column_schema: bool,
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Values {
    values: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    partition_value_list: Vec<String>,
    partition_input: Partition,
}

/// A segment of a table's partitions: several readers take one each, and together they get every partition once.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Segment {
    segment_number: usize,
    total_segments: usize,
}

impl From<CatalogError> for AwsError {
    fn from(error: CatalogError) -> Self {
        let kind = match error {
            CatalogError::NoDatabase(_) | CatalogError::NoTable(..) | CatalogError::NoPartition(_) => "EntityNotFoundException",
            CatalogError::Exists(_) => "AlreadyExistsException",
            CatalogError::Invalid(_) => "InvalidInputException",
        };
        Self::new(kind, error.to_string())
    }
}

impl Glue {
    /// Glue over a catalog.
    pub fn new(catalog: &Catalog) -> Self {
        Self { catalog: catalog.clone() }
    }

    /// Answers one request.
    #[expect(clippy::unused_async, reason = "the shape of Athena's")]
    pub async fn handle(&self, operation: &str, input: Value) -> Result<Value, AwsError> {
        let input: Input = read(without_nulls(input))?;
        if operation.contains("Partition") {
            return self.partitions(operation, input);
        }
        let catalog = &self.catalog;
        match operation {
            "GetDatabases" => page("DatabaseList", catalog.databases(), &input),
            "GetDatabase" => Ok(json!({"Database": catalog.database(&input.name)?})),
            "CreateDatabase" => {
                catalog.create_database(needed("DatabaseInput", input.database_input)?)?;
                Ok(json!({}))
            }
            "UpdateDatabase" => {
                catalog.update_database(&input.name, needed("DatabaseInput", input.database_input)?)?;
                Ok(json!({}))
            }
            "DeleteDatabase" => {
                catalog.delete_database(&input.name)?;
                Ok(json!({}))
            }
            // An expression would select by name; no client of the sandbox sends one.
            "GetTables" => page("TableList", catalog.tables(&input.database_name)?, &input),
            "GetTable" => Ok(json!({"Table": catalog.table(&input.database_name, &input.name)?})),
            "CreateTable" => {
                catalog.create_table(&input.database_name, needed("TableInput", input.table_input)?)?;
                Ok(json!({}))
            }
            "UpdateTable" => {
                catalog.update_table(&input.database_name, needed("TableInput", input.table_input)?)?;
                Ok(json!({}))
            }
            "DeleteTable" => {
                catalog.delete_table(&input.database_name, &input.name)?;
                Ok(json!({}))
            }
            "BatchDeleteTable" => {
                let failed = |name: &String| {
                    let error = AwsError::from(catalog.delete_table(&input.database_name, name).err()?);
                    Some(json!({"TableName": name, "ErrorDetail": {"ErrorCode": error.kind, "ErrorMessage": error.message}}))
                };
                Ok(json!({"Errors": input.tables_to_delete.iter().filter_map(failed).collect::<Vec<Value>>()}))
            }
            // No statistics are kept, as for a table in AWS that was never analyzed.
            "GetColumnStatisticsForTable" => {
                catalog.table(&input.database_name, &input.table_name)?;
                Ok(json!({"ColumnStatisticsList": [], "Errors": []}))
            }
            "UpdateColumnStatisticsForTable" => Ok(json!({"Errors": []})),
            "DeleteColumnStatisticsForTable" => Ok(json!({})),
            "GetUserDefinedFunctions" => Ok(json!({"UserDefinedFunctions": []})),
            "GetTags" => Ok(json!({"Tags": {}})),
            _ => Err(AwsError::unknown_operation(operation)),
        }
    }

    fn partitions(&self, operation: &str, input: Input) -> Result<Value, AwsError> {
        let (catalog, database, table) = (&self.catalog, &input.database_name, &input.table_name);
        match operation {
            // Glue would apply an expression. Returning all partitions is also right, since clients that send one filter again.
            "GetPartitions" => {
                let mut partitions = catalog.partitions(database, table)?;
                if let Some(segment) = input.segment.as_ref().filter(|segment| segment.total_segments > 0) {
                    let mut index = 0;
                    partitions.retain(|_| {
                        index += 1;
                        index % segment.total_segments == segment.segment_number
                    });
                }
                if input.exclude_column_schema {
                    for descriptor in partitions.iter_mut().filter_map(|partition| partition.storage_descriptor.as_mut()) {
                        descriptor.columns.clear();
                    }
                }
                page("Partitions", partitions, &input)
            }
            "GetPartition" => Ok(json!({"Partition": catalog.partition(database, table, &input.partition_values)?})),
            "BatchGetPartition" => {
                let known = |wanted: &Values| match catalog.partition(database, table, &wanted.values) {
                    // Missing partitions are left out of the answer, and are no error.
                    Err(CatalogError::NoPartition(_)) => None,
                    found => Some(found),
                };
                let found = input.partitions_to_get.iter().filter_map(known).collect::<Result<Vec<Partition>, CatalogError>>()?;
                Ok(json!({"Partitions": found, "UnprocessedKeys": []}))
            }
            "CreatePartition" => {
                catalog.create_partition(database, table, needed("PartitionInput", input.partition_input)?)?;
                Ok(json!({}))
            }
            "BatchCreatePartition" => {
                catalog.table(database, table)?;
                let create = |partition: &Partition| catalog.create_partition(database, table, partition.clone());
                Ok(errors(input.partition_input_list.iter().map(|partition| (partition.values.as_slice(), create(partition)))))
            }
            "UpdatePartition" => {
                let partition = needed("PartitionInput", input.partition_input)?;
                catalog.update_partition(database, table, &input.partition_value_list, partition)?;
                Ok(json!({}))
            }
            "BatchUpdatePartition" => {
                catalog.table(database, table)?;
                let update =
                    |entry: &Entry| catalog.update_partition(database, table, &entry.partition_value_list, entry.partition_input.clone());
                Ok(errors(input.entries.iter().map(|entry| (entry.partition_value_list.as_slice(), update(entry)))))
            }
            "DeletePartition" => {
                catalog.delete_partition(database, table, &input.partition_values)?;
                Ok(json!({}))
            }
            "BatchDeletePartition" => {
                catalog.table(database, table)?;
                let delete = |wanted: &Values| catalog.delete_partition(database, table, &wanted.values);
                Ok(errors(input.partitions_to_delete.iter().map(|wanted| (wanted.values.as_slice(), delete(wanted)))))
            }
            "GetColumnStatisticsForPartition" => {
                catalog.partition(database, table, &input.partition_values)?;
                Ok(json!({"ColumnStatisticsList": [], "Errors": []}))
            }
            "UpdateColumnStatisticsForPartition" => Ok(json!({"Errors": []})),
            "DeleteColumnStatisticsForPartition" => Ok(json!({})),
            _ => Err(AwsError::unknown_operation(operation)),
        }
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, AwsError> {
    serde_json::from_value(value).map_err(|error| AwsError::new("InvalidInputException", format!("the request can't be read: {error}")))
}

/// Clients may write `null` for what they leave out, at any depth.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

fn needed<T>(member: &str, value: Option<T>) -> Result<T, AwsError> {
    value.ok_or_else(|| AwsError::new("InvalidInputException", format!("{member} is needed")))
}

/// One page of a list, and the token of the next page.
fn page<T: serde::Serialize>(member: &str, items: Vec<T>, input: &Input) -> Result<Value, AwsError> {
    let start = match &input.next_token {
        None => 0,
        Some(token) => token.parse().map_err(|_| AwsError::new("InvalidInputException", format!("{token:?} is no token of a page")))?,
    };
    let limit = input.max_results.unwrap_or(PAGE_LIMIT).clamp(1, PAGE_LIMIT);
    let end = items.len().min(usize::saturating_add(start, limit));
    let more = (end < items.len()).then(|| end.to_string());
    let items: Vec<T> = items.into_iter().take(end).skip(start).collect();
    let mut answer = json!({ member: items });
    if let Some(token) = more {
        answer["NextToken"] = token.into();
    }
    Ok(answer)
}

/// The answer of a batch: which of its parts failed, and why.
fn errors<'a>(parts: impl Iterator<Item = (&'a [String], Result<(), CatalogError>)>) -> Value {
    let failed = |(values, result): (&[String], Result<(), CatalogError>)| {
        let error = AwsError::from(result.err()?);
        Some(json!({"PartitionValues": values, "ErrorDetail": {"ErrorCode": error.kind, "ErrorMessage": error.message}}))
    };
    json!({"Errors": parts.filter_map(failed).collect::<Vec<Value>>()})
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(glue: &Glue, operation: &str, input: Value) -> Value {
        glue.handle(operation, input).await.unwrap()
    }

    /// A table `d.t`, partitioned by `day`, with this many partitions.
    async fn with_partitions(count: usize) -> Glue {
        let glue = Glue::new(&Catalog::new());
        ask(&glue, "CreateDatabase", json!({"DatabaseInput": {"Name": "d"}})).await;
        let descriptor = json!({"Columns": [{"Name": "V", "Type": "bigint"}], "Location": "s3://b/t", "Compressed": null});
        let table = json!({"Name": "T", "StorageDescriptor": descriptor, "PartitionKeys": [{"Name": "day", "Type": "string"}]});
        ask(&glue, "CreateTable", json!({"DatabaseName": "d", "TableInput": table})).await;
        let partitions: Vec<Value> =
            (0..count).map(|day| json!({"Values": [format!("{day:04}")], "StorageDescriptor": {"Columns": [{"Name": "v"}]}})).collect();
        let batch = json!({"DatabaseName": "d", "TableName": "t", "PartitionInputList": partitions});
        assert_eq!(ask(&glue, "BatchCreatePartition", batch).await, json!({"Errors": []}));
        glue
    }

    fn values(answer: &Value) -> Vec<String> {
        let partitions = answer["Partitions"].as_array().unwrap();
        partitions.iter().map(|partition| partition["Values"][0].as_str().unwrap().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_table_says_all_that_trino_reads_unasked() {
        let glue = with_partitions(0).await;
        let answer = ask(&glue, "GetTable", json!({"DatabaseName": "d", "Name": "T", "CatalogId": null})).await;
        let table = &answer["Table"];
        assert_eq!((&table["Name"], &table["DatabaseName"]), (&json!("t"), &json!("d")));
        // Trino requires these: without them it fails before it looks at anything else.
        assert_eq!(table["StorageDescriptor"]["NumberOfBuckets"], json!(0));
        assert_eq!(table["StorageDescriptor"]["Compressed"], json!(false));
        assert_eq!(table["StorageDescriptor"]["Columns"], json!([{"Name": "v", "Type": "bigint"}]));
    }

    #[tokio::test]
    async fn segments_give_each_partition_once() {
        let glue = with_partitions(23).await;
        let mut all = Vec::new();
        for number in 0..5 {
            let segment = json!({"SegmentNumber": number, "TotalSegments": 5});
            let input = json!({"DatabaseName": "d", "TableName": "t", "Segment": segment, "ExcludeColumnSchema": true});
            let answer = ask(&glue, "GetPartitions", input).await;
            assert_eq!(answer["Partitions"][0]["StorageDescriptor"]["Columns"], json!([]));
            all.extend(values(&answer));
        }
        all.sort();
        assert_eq!(all, (0..23).map(|day| format!("{day:04}")).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn pages_of_partitions_follow_each_other() {
        let glue = with_partitions(2_500).await;
        let (mut all, mut token, mut pages) = (Vec::new(), Value::Null, 0);
        loop {
            let answer = ask(&glue, "GetPartitions", json!({"DatabaseName": "d", "TableName": "t", "NextToken": token})).await;
            all.extend(values(&answer));
            pages += 1;
            token = answer["NextToken"].clone();
            if token.is_null() {
                break;
            }
        }
        assert_eq!((pages, all.len()), (3, 2_500));
        assert!(all.is_sorted());
    }

    #[tokio::test]
    async fn what_is_not_there_has_glues_name() {
        let glue = with_partitions(1).await;
        for (operation, input, kind) in [
            ("GetDatabase", json!({"Name": "x"}), "EntityNotFoundException"),
            ("GetTable", json!({"DatabaseName": "d", "Name": "x"}), "EntityNotFoundException"),
            ("GetPartition", json!({"DatabaseName": "d", "TableName": "t", "PartitionValues": ["x"]}), "EntityNotFoundException"),
            ("CreateDatabase", json!({"DatabaseInput": {"Name": "D"}}), "AlreadyExistsException"),
            ("CreateTable", json!({"DatabaseName": "d"}), "InvalidInputException"),
            ("GetCrawler", json!({}), "UnknownOperationException"),
        ] {
            assert_eq!(glue.handle(operation, input).await.unwrap_err().kind, kind, "{operation}");
        }
        let wanted = json!([{"Values": ["0000"]}, {"Values": ["x"]}]);
        let answer = ask(&glue, "BatchGetPartition", json!({"DatabaseName": "d", "TableName": "t", "PartitionsToGet": wanted})).await;
        assert_eq!(values(&answer), ["0000"]);
        let again = json!({"DatabaseName": "d", "TableName": "t", "PartitionInputList": [{"Values": ["0000"]}]});
        let answer = ask(&glue, "BatchCreatePartition", again).await;
        assert_eq!(answer["Errors"][0]["ErrorDetail"]["ErrorCode"], json!("AlreadyExistsException"));
    }

    #[tokio::test]
    async fn a_partition_is_changed_and_removed() {
        let glue = with_partitions(2).await;
        let of = json!({"DatabaseName": "d", "TableName": "t", "PartitionValues": ["0001"]});
        let mut change = of.clone();
        change["PartitionValueList"] = json!(["0001"]);
        change["PartitionInput"] = json!({"Values": ["0001"], "Parameters": {"seen": "yes"}});
        ask(&glue, "UpdatePartition", change).await;
        assert_eq!(ask(&glue, "GetPartition", of.clone()).await["Partition"]["Parameters"], json!({"seen": "yes"}));
        ask(&glue, "DeletePartition", of).await;
        assert_eq!(values(&ask(&glue, "GetPartitions", json!({"DatabaseName": "d", "TableName": "t"})).await), ["0000"]);
    }
}
