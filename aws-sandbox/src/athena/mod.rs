//! Athena's JSON protocol: queries from start to result, workgroups, and calls about the catalog.
//!
//! The meaning of statements is in [`crate::sql`]; this module must not parse them.

mod metadata;
mod queries;
mod results;
mod workgroups;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use crate::catalog::Catalog;
use crate::faults::Faults;
use crate::server::AwsError;
use crate::sql::{Engine, QueryError, Scanned, Statement};
use crate::store::Store;

use queries::Queries;
use workgroups::Workgroups;

/// Athena over a store and a catalog. Clones share everything.
#[derive(Clone, Debug)]
pub struct Athena {
    catalog: Catalog,
    store: Store,
    faults: Faults,
    engine: Engine,
    workgroups: Arc<Mutex<Workgroups>>,
    queries: Arc<Queries>,
}

impl Athena {
    /// Athena without any query yet. Queries run in process, or on the Trino at this URL.
    pub fn new(store: &Store, catalog: &Catalog, faults: &Faults, trino_url: Option<&str>) -> Self {
        Self {
            catalog: catalog.clone(),
            store: store.clone(),
            faults: faults.clone(),
            engine: Engine::new(catalog, store, trino_url),
            workgroups: Arc::default(),
            queries: Arc::default(),
        }
    }

    /// If queries run on a Trino, makes it read from the sandbox at this endpoint.
    pub(crate) async fn attach(&self, endpoint: &str) -> Result<(), QueryError> {
        self.engine.attach(endpoint).await
    }

    // Every change of the workgroups is one insertion or removal, so a panic elsewhere leaves nothing half done.
    fn workgroups(&self) -> MutexGuard<'_, Workgroups> {
        self.workgroups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a statement at once, outside any workgroup.
    ///
    /// # Errors
    /// The error that Athena would return.
    pub async fn run(&self, database: Option<&str>, sql: &str) -> Result<(), QueryError> {
        self.engine.run(&Statement::parse(sql)?, database, &Scanned::default()).await.map(|_| ())
    }

    /// Creates a workgroup whose results go to a place in S3.
    ///
    /// # Errors
    /// If there is already one of that name.
    pub fn create_workgroup(&self, name: &str, results: &str) -> Result<(), AwsError> {
        let configuration = serde_json::json!({ "ResultConfiguration": { "OutputLocation": results } });
        self.workgroups().create(&serde_json::json!({ "Name": name, "Configuration": configuration })).map(|_| ())
    }

    /// Answers one request.
    #[expect(clippy::unused_async, reason = "the shape of all services; queries run on tasks of their own")]
    pub async fn handle(&self, operation: &str, input: Value) -> Result<Value, AwsError> {
        match operation {
            "StartQueryExecution" => self.start(&input),
            "GetQueryExecution" => self.queries.get(&input),
            "BatchGetQueryExecution" => self.queries.batch_get(&input),
            "GetQueryResults" => self.queries.results(&input),
            "StopQueryExecution" => self.queries.stop(&input),
            "ListQueryExecutions" => self.queries.list(&input),
            "GetWorkGroup" => self.workgroups().describe(&input),
            "CreateWorkGroup" => self.workgroups().create(&input),
            "UpdateWorkGroup" => self.workgroups().update(&input),
            "DeleteWorkGroup" => self.workgroups().delete(&input),
            "ListWorkGroups" => Ok(self.workgroups().list()),
            "TagResource" => self.workgroups().tag(&input),
            "UntagResource" => self.workgroups().untag(&input),
            "ListTagsForResource" => self.workgroups().tags(&input),
            "GetTableMetadata" => metadata::get_table(&self.catalog, &input),
            "ListTableMetadata" => metadata::list_tables(&self.catalog, &input),
            "GetDatabase" => metadata::get_database(&self.catalog, &input),
            "ListDatabases" => metadata::list_databases(&self.catalog, &input),
            "ListDataCatalogs" => Ok(metadata::list_catalogs()),
            _ => Err(AwsError::unknown_operation(operation)),
        }
    }
}
