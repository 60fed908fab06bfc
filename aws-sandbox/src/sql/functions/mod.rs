//! Trino's functions that DataFusion lacks or defines differently.
//!
//! Each group has its own file; [`register`] adds all of them to a session. Functions whose name begins with `$` stand for syntax:
//! [`super::dialect`] inserts them where Trino's meaning differs from DataFusion's.

mod aggregates;
mod casts;
mod collections;
mod numbers;
mod patterns;
mod time;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};
use datafusion::prelude::SessionContext;

use super::error::QueryError;

/// Adds all Trino functions implemented here to a session.
pub(crate) fn register(context: &SessionContext) {
    for function in
        numbers::functions().chain(time::functions()).chain(casts::functions()).chain(collections::functions()).chain(patterns::functions())
    {
        context.register_udf(ScalarUDF::new_from_impl(function));
    }
    for function in aggregates::functions() {
        context.register_udaf(function);
    }
}

/// The type of a result from the types of its arguments, and from those arguments that are constant.
type ResultType = fn(&[DataType], &[Option<&ScalarValue>]) -> Result<DataType>;
/// Computes a result from arguments as columns of one length, and the result's type.
type Evaluate = fn(&[ArrayRef], &DataType) -> Result<ArrayRef>;

/// A scalar function.
pub(super) struct Function {
    name: &'static str,
    /// The least and the largest number of arguments.
    arguments: (usize, usize),
    result: ResultType,
    evaluate: Evaluate,
    signature: Signature,
    /// Whether arguments that are the same for all rows are given as one row.
    shares_constants: bool,
}

impl Function {
    pub(super) fn new(name: &'static str, arguments: (usize, usize), result: ResultType, evaluate: Evaluate) -> Self {
        Self { name, arguments, result, evaluate, signature: Signature::user_defined(Volatility::Immutable), shares_constants: false }
    }

    /// Arguments that are the same for all rows are not copied for each.
    pub(super) fn sharing_constants(self) -> Self {
        Self { shares_constants: true, ..self }
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

// A function is identified by its name.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let (least, most) = self.arguments;
        if arguments.len() < least || arguments.len() > most {
            let kinds: Vec<_> = arguments.iter().map(super::types::trino_name).collect();
            let message = format!("line 1:1: Unexpected parameters ({}) for function {}", kinds.join(", "), self.name);
            return Err(QueryError::user("FUNCTION_NOT_FOUND", message).into());
        }
        // Other layouts of text are converted, so that each function handles only one.
        Ok(arguments
            .iter()
            .map(|kind| match kind {
                DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
                other => other.clone(),
            })
            .collect())
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        // Without the arguments themselves, none is known to be constant.
        (self.result)(arguments, &[])
    }

    fn return_field_from_args(&self, arguments: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let kinds: Vec<DataType> = arguments.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name, (self.result)(&kinds, arguments.scalar_arguments)?, true)))
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = arguments.return_field.data_type().clone();
        let constant = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let rows = if constant { 1 } else { arguments.number_rows };
        let is_one = |value: &ColumnarValue| self.shares_constants && matches!(value, ColumnarValue::Scalar(_));
        let arrays = arguments.args.into_iter().map(|value| if is_one(&value) { value.into_array(1) } else { value.into_array(rows) });
        let arrays = arrays.collect::<Result<Vec<_>>>()?;
        let result = (self.evaluate)(&arrays, &kind)?;
        if constant && result.len() == 1 {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// The error for an invalid argument, in Trino's words.
pub(super) fn bad_argument(message: impl Into<String>) -> datafusion::error::DataFusionError {
    QueryError::user("INVALID_FUNCTION_ARGUMENT", message).into()
}

/// The error for an argument of an unsupported type.
pub(super) fn bad_type(function: &str, kinds: &[DataType]) -> datafusion::error::DataFusionError {
    let kinds: Vec<_> = kinds.iter().map(super::types::trino_name).collect();
    let message = format!("line 1:1: Unexpected parameters ({}) for function {function}", kinds.join(", "));
    QueryError::user("FUNCTION_NOT_FOUND", message).into()
}
