//! Requests that are made by awaiting them. It must not know what they ask for.

/// Lets a request be awaited: `request.await` calls its `perform`.
macro_rules! awaitable {
    ($request:ident => $result:ty) => {
        impl<'a> IntoFuture for $request<'a> {
            type Output = repair_core::Result<$result>;
            type IntoFuture = futures::future::BoxFuture<'a, repair_core::Result<$result>>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.perform())
            }
        }
    };
}

pub(crate) use awaitable;
