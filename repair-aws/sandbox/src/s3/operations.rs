//! What each operation does.

use crate::store::Store;

pub(super) struct Operations {
    pub(super) store: Store,
    pub(super) region: String,
}

#[async_trait::async_trait]
impl s3s::S3 for Operations {}
