//! Athena's calls about the catalog.

use serde_json::{Value, json};

use crate::catalog::{Catalog, CatalogError, Column, Database, Table};
use crate::server::AwsError;

fn text<'a>(input: &'a Value, member: &str) -> &'a str {
    input.get(member).and_then(Value::as_str).unwrap_or_default()
}

/// Athena wraps Glue's errors.
fn refused(error: &CatalogError) -> AwsError {
    let message = match error {
        CatalogError::NoDatabase(_) | CatalogError::NoTable(..) => format!(
            "{} (Service: AmazonDataCatalog; Status Code: 400; Error Code: EntityNotFoundException; Request ID: sandbox; Proxy: null)",
            match error {
                CatalogError::NoTable(..) => "Entity Not Found".to_owned(),
                other => other.to_string(),
            }
        ),
        other => other.to_string(),
    };
    AwsError::new("MetadataException", message)
}

fn columns(columns: &[Column]) -> Vec<Value> {
    let describe = |column: &Column| {
        let mut described = json!({ "Name": column.name, "Type": column.hive_type() });
        if let (Some(members), Some(comment)) = (described.as_object_mut(), &column.comment) {
            members.insert("Comment".to_owned(), json!(comment));
        }
        described
    };
    columns.iter().map(describe).collect()
}

/// A table, with location, formats and SerDe among its parameters, as Athena has it.
fn table(table: &Table) -> Value {
    let mut parameters = table.parameters.clone();
    if let Some(descriptor) = &table.storage_descriptor {
        let serde = descriptor.serde_info.clone().unwrap_or_default();
        for (key, value) in [
            ("location", &descriptor.location),
            ("inputformat", &descriptor.input_format),
            ("outputformat", &descriptor.output_format),
            ("serde.serialization.lib", &serde.serialization_library),
        ] {
            if let Some(value) = value {
                parameters.insert(key.to_owned(), value.clone());
            }
        }
        for (key, value) in serde.parameters {
            parameters.insert(format!("serde.param.{key}"), value);
        }
    }
    json!({
        "Name": table.name,
        "CreateTime": table.create_time,
        "TableType": table.table_type,
        "Columns": columns(table.columns()),
        "PartitionKeys": columns(&table.partition_keys),
        "Parameters": parameters,
    })
}

fn database(database: &Database) -> Value {
    let mut described = json!({ "Name": database.name, "Parameters": database.parameters });
    if let (Some(members), Some(description)) = (described.as_object_mut(), &database.description) {
        members.insert("Description".to_owned(), json!(description));
    }
    described
}

/// A page of a list; the token is the place of the next item.
fn paged(input: &Value, member: &str, items: &[Value]) -> Result<Value, AwsError> {
    let token = text(input, "NextToken");
    let from: usize =
        if token.is_empty() { 0 } else { token.parse().map_err(|_| AwsError::new("InvalidRequestException", "Invalid NextToken"))? };
    let limit = input.get("MaxResults").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok()).unwrap_or(50).clamp(1, 50);
    let end = from.saturating_add(limit).min(items.len());
    let mut page = json!({ member: items[from.min(end)..end] });
    if let (Some(members), true) = (page.as_object_mut(), end < items.len()) {
        members.insert("NextToken".to_owned(), json!(end.to_string()));
    }
    Ok(page)
}

pub(super) fn get_table(catalog: &Catalog, input: &Value) -> Result<Value, AwsError> {
    let found = catalog.table(text(input, "DatabaseName"), text(input, "TableName")).map_err(|error| refused(&error))?;
    Ok(json!({ "TableMetadata": table(&found) }))
}

pub(super) fn list_tables(catalog: &Catalog, input: &Value) -> Result<Value, AwsError> {
    let tables = catalog.tables(text(input, "DatabaseName")).map_err(|error| refused(&error))?;
    // The expression is a Java pattern; only names and `.*` are supported.
    let pattern = text(input, "Expression").replace(".*", "*");
    let fits = |name: &str| pattern.is_empty() || pattern.split('|').any(|one| wildcard(one, name));
    let tables: Vec<Value> = tables.iter().filter(|table| fits(&table.name)).map(table).collect();
    paged(input, "TableMetadataList", &tables)
}

fn wildcard(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.eq_ignore_ascii_case(name),
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            after.is_empty() || (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| wildcard(after, &rest[at..]))
        }
    }
}

pub(super) fn get_database(catalog: &Catalog, input: &Value) -> Result<Value, AwsError> {
    let found = catalog.database(text(input, "DatabaseName")).map_err(|error| refused(&error))?;
    Ok(json!({ "Database": database(&found) }))
}

pub(super) fn list_databases(catalog: &Catalog, input: &Value) -> Result<Value, AwsError> {
    paged(input, "DatabaseList", &catalog.databases().iter().map(database).collect::<Vec<_>>())
}

pub(super) fn list_catalogs() -> Value {
    json!({ "DataCatalogsSummary": [{ "CatalogName": "AwsDataCatalog", "Type": "GLUE", "Status": "CREATE_COMPLETE" }] })
}
