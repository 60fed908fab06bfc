//! Rejects what DataFusion would convert and Trino refuses: comparing text with numbers, dates or instants, and calculating with text.
//!
//! Without this check, SQL that runs here could fail at Athena.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Expr, ExprSchemable as _, LogicalPlan, Operator};

use super::error::{QueryError, place_of};
use super::types::trino_name;

/// Types that Trino compares with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Text,
    Number,
    Boolean,
    Time,
    Binary,
    /// Null, or a type that the engine checks.
    Any,
}

fn family(kind: &DataType) -> Family {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Family::Text,
        DataType::Boolean => Family::Boolean,
        DataType::Date32 | DataType::Timestamp(..) => Family::Time,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Family::Binary,
        kind if kind.is_numeric() => Family::Number,
        _ => Family::Any,
    }
}

/// Rejects a plan, before analysis, that mixes types as Trino would not.
pub(crate) fn check(plan: &LogicalPlan, sql: &str) -> Result<(), QueryError> {
    let mut found = None;
    let visited = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        if let LogicalPlan::Join(join) = node {
            for (left, right) in &join.on {
                found = found.take().or_else(|| mismatch(left, "=", right, &schema, sql));
            }
        }
        for expr in node.expressions() {
            expr.apply(|expr| {
                found = found.take().or_else(|| check_expr(expr, &schema, sql));
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
        }
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match (found, visited) {
        (Some(error), _) => Err(error),
        (None, Ok(_)) => Ok(()),
        (None, Err(error)) => Err(QueryError::of_datafusion(&error, sql)),
    }
}

fn compares(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn check_expr(expr: &Expr, schema: &DFSchema, sql: &str) -> Option<QueryError> {
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if compares(*op) || op.is_numerical_operators() => {
            let symbol = match op {
                Operator::NotEq => "<>".to_owned(),
                Operator::IsDistinctFrom => "IS DISTINCT FROM".to_owned(),
                op => op.to_string(),
            };
            mismatch(left, &symbol, right, schema, sql)
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => mismatch(left, "||", right, schema, sql),
        Expr::InList(list) => list.list.iter().find_map(|item| mismatch(&list.expr, "=", item, schema, sql)),
        Expr::Between(between) => {
            let low = mismatch(&between.expr, ">=", &between.low, schema, sql);
            low.or_else(|| mismatch(&between.expr, "<=", &between.high, schema, sql))
        }
        Expr::InSubquery(tested) => {
            let found = tested.subquery.subquery.schema().fields().first()?.data_type().clone();
            let kind = tested.expr.get_type(schema).ok()?;
            refused(&kind, "=", &found).then(|| refusal(&tested.expr, &tested.expr, &kind, "=", &found, sql))
        }
        _ => None,
    }
}

fn refused(left: &DataType, symbol: &str, right: &DataType) -> bool {
    match (family(left), family(right)) {
        (Family::Any, _) | (_, Family::Any) => false,
        (Family::Text, Family::Text) => matches!(symbol, "+" | "-" | "*" | "/" | "%"),
        // A value may be appended to an array; text is joined only with text.
        (one, other) if symbol == "||" => one != other || one != Family::Text,
        (one, other) => one != other,
    }
}

fn mismatch(left: &Expr, symbol: &str, right: &Expr, schema: &DFSchema, sql: &str) -> Option<QueryError> {
    let (left_type, right_type) = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    refused(&left_type, symbol, &right_type).then(|| refusal(left, right, &left_type, symbol, &right_type, sql))
}

fn refusal(left: &Expr, right: &Expr, left_type: &DataType, symbol: &str, right_type: &DataType, sql: &str) -> QueryError {
    // The operator's own position is not kept; a column beside it is close.
    let column = left.column_refs().into_iter().chain(right.column_refs()).next().map(|column| column.name.clone());
    let place = column.map_or_else(|| "line 1:1".to_owned(), |column| place_of(sql, &column));
    let message = format!("{place}: Cannot apply operator: {} {symbol} {}", trino_name(left_type), trino_name(right_type));
    QueryError::user("TYPE_MISMATCH", message)
}
