//! Plug-ins as a workflow in Rust names them: by the name under which they are registered, or the user's own, as a value.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;

use crate::error::Result;
use crate::plugin::{Aggregator, Detector, Plugin, Registry, Repairer, Sensor, Source, Task};

/// Which plug-in a step or source uses: a registered one, by its name, or one of your own, as a value.
///
/// Few programs name this type: functions that take it accept a `&str`, a value that implements the trait, an `Arc` of one, or what
/// [`PlugIn::configured`] returns.
///
/// ```
/// use repair_core::plugin::{Detector, Registry, StepContext};
/// use repair_core::model::Findings;
/// use repair_core::workflow::builder::PlugIn;
/// use repair_core::workflow::{Step, Workflow};
/// use serde_json::json;
///
/// struct Spikes { column: String }
///
/// #[derive(serde::Deserialize, schemars::JsonSchema)]
/// #[serde(deny_unknown_fields)]
/// struct SpikesConfig { column: String }
///
/// # #[async_trait::async_trait]
/// # impl Detector for Spikes {
/// #     async fn detect(&self, _: &StepContext, _: Option<&Findings>) -> repair_core::Result<Findings> {
/// #         Err(repair_core::Error::blind(format!("column {} is not there", self.column)))
/// #     }
/// # }
/// let spikes = PlugIn::<dyn Detector>::configured(|config: SpikesConfig| Ok(Spikes { column: config.column }));
/// let built = Workflow::state_machine("spikes")
///     .step("look", Step::detect(spikes).with(json!({ "column": "value" })).next("again"))
///     .step("again", Step::detect(Spikes { column: "value".to_owned() }).end())
///     .build(Registry::default())?;
/// assert!(built.workflow.text.contains("look: { detect: own.spikes.look, with: { column: value }, next: again }"));
/// # Ok::<(), repair_core::yaml::Diagnostics>(())
/// ```
pub struct PlugIn<T: ?Sized> {
    pub(super) how: How,
    kind: PhantomData<fn() -> Box<T>>,
}

/// Registers a plug-in under the name that it is given.
pub(super) type Register = Arc<dyn Fn(&mut Registry, &str) + Send + Sync>;

#[derive(Clone)]
pub(super) enum How {
    /// It is registered under this name.
    Named(String),
    /// It is the user's own.
    Own(Register),
}

impl<T: ?Sized> PlugIn<T> {
    fn own(register: impl Fn(&mut Registry, &str) + Send + Sync + 'static) -> Self {
        Self { how: How::Own(Arc::new(register)), kind: PhantomData }
    }
}

impl<T: ?Sized> Clone for PlugIn<T> {
    fn clone(&self) -> Self {
        Self { how: self.how.clone(), kind: PhantomData }
    }
}

impl<T: ?Sized> fmt::Debug for PlugIn<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.how, f)
    }
}

impl fmt::Debug for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.debug_tuple("Named").field(name).finish(),
            Self::Own(_) => f.write_str("Own"),
        }
    }
}

impl<T: ?Sized> From<&str> for PlugIn<T> {
    fn from(name: &str) -> Self {
        Self { how: How::Named(name.to_owned()), kind: PhantomData }
    }
}

impl<T: ?Sized> From<String> for PlugIn<T> {
    fn from(name: String) -> Self {
        Self { how: How::Named(name), kind: PhantomData }
    }
}

macro_rules! own {
    ($($kind:ident, $method:ident);*) => {$(
        impl<P: $kind + 'static> From<P> for PlugIn<dyn $kind> {
            fn from(plugin: P) -> Self {
                Self::from(Arc::new(plugin) as Arc<dyn $kind>)
            }
        }

        impl From<Arc<dyn $kind>> for PlugIn<dyn $kind> {
            fn from(plugin: Arc<dyn $kind>) -> Self {
                Self::own(move |registry, name| registry.instance(name, "given in Rust", Plugin::$kind(plugin.clone())))
            }
        }

        impl PlugIn<dyn $kind> {
            /// One of your own that is made for each visit of the step from what its `with` says, whose values may be computed while the run
            /// goes on. `C` is the configuration, as in [`Registry`].
            pub fn configured<C, P>(make: impl Fn(C) -> Result<P> + Send + Sync + 'static) -> Self
            where
                C: DeserializeOwned + JsonSchema + 'static,
                P: $kind + 'static,
            {
                let make = Arc::new(make);
                Self::own(move |registry, name| {
                    let make = make.clone();
                    registry.$method(name, "given in Rust", move |config: C| make(config));
                })
            }
        }
    )*};
}

own!(Detector, detector; Repairer, repairer; Aggregator, aggregator; Sensor, sensor; Task, task; Source, source);
