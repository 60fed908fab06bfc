//! SQL of a user's own, run by Athena.

use crate::common::{World, sql::sql_of_a_users_own};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_finds_repairs_answers_and_decides_on_athena() {
    sql_of_a_users_own(&World::new().await).await;
}
