//! How far a filter is pushed towards the tables.
//!
//! DataFusion pushes a filter below a projection by writing each expression of the projection where the filter names its column. A column that is
//! named twice then doubles its expression, and subqueries upon subqueries double it again, until planning takes minutes and gigabytes. Trino
//! [pushes only what does not grow](https://trino.io/docs/current/optimizer/pushdown.html#predicate-pushdown): so do we. Another rule of DataFusion writes
//! a condition out in the same way, to see whether an outer join can be an inner one, and is not asked about what would become too long.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, LogicalPlan, Projection};
use datafusion::optimizer::eliminate_outer_join::EliminateOuterJoin;
use datafusion::optimizer::optimizer::{ApplyOrder, Optimizer};
use datafusion::optimizer::push_down_filter::PushDownFilter;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

/// How many terms a condition may have when the expressions that it names are written out.
const MOST_TERMS: u64 = 4_096;

/// The rules of DataFusion, in its order, with ours for two of them.
pub(super) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let replace = |rule: Arc<dyn OptimizerRule + Send + Sync>| -> Arc<dyn OptimizerRule + Send + Sync> {
        if rule.name() == PushDownFilter::new().name() {
            Arc::new(PushDown(PushDownFilter::new()))
        } else if rule.name() == EliminateOuterJoin::new().name() {
            Arc::new(InnerJoins(EliminateOuterJoin::new()))
        } else {
            rule
        }
    };
    Optimizer::new().rules.into_iter().map(replace).collect()
}

/// The rules of DataFusion for what is about to run, without those that push filters once more, in the same way. The filters are where they belong.
pub(super) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    PhysicalOptimizer::new().rules.into_iter().filter(|rule| !rule.name().starts_with("FilterPushdown")).collect()
}

/// Pushes a condition below a projection only if no expression is computed more often for it.
#[derive(Debug)]
struct PushDown(PushDownFilter);

impl OptimizerRule for PushDown {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let LogicalPlan::Filter(filter) = &plan else { return self.0.rewrite(plan, config) };
        let mut conditions = split_conjunction_owned(filter.predicate.clone());
        let mut input = &filter.input;
        // DataFusion makes one filter of several before it pushes them.
        while let LogicalPlan::Filter(inner) = input.as_ref() {
            conditions.extend(split_conjunction_owned(inner.predicate.clone()));
            input = &inner.input;
        }
        let LogicalPlan::Projection(projection) = input.as_ref() else { return self.0.rewrite(plan, config) };
        let (stay, go): (Vec<Expr>, Vec<Expr>) = conditions.into_iter().partition(|condition| grows(condition, projection));
        let Some(stay) = conjunction(stay) else { return self.0.rewrite(plan, config) };
        let Some(go) = conjunction(go) else { return Ok(Transformed::no(plan)) };
        let below = LogicalPlan::Filter(Filter::try_new(go, Arc::clone(input))?);
        let below = self.0.rewrite(below, config)?;
        if !below.transformed {
            return Ok(Transformed::no(plan));
        }
        Ok(Transformed::yes(LogicalPlan::Filter(Filter::try_new(stay, Arc::new(below.data))?)))
    }
}

/// Makes inner joins of outer ones, where conditions that are not too long when written out say that it may.
#[derive(Debug)]
struct InnerJoins(EliminateOuterJoin);

impl OptimizerRule for InnerJoins {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let is_short = match &plan {
            LogicalPlan::Filter(filter) => terms(&filter.predicate, filter.input.schema(), &terms_of(&filter.input)) <= MOST_TERMS,
            _ => true,
        };
        if is_short { self.0.rewrite(plan, config) } else { Ok(Transformed::no(plan)) }
    }
}

/// How many terms each column of a plan has when it is written out.
fn terms_of(plan: &LogicalPlan) -> Vec<u64> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let below = terms_of(&projection.input);
            projection.expr.iter().map(|expression| terms(expression, projection.input.schema(), &below)).collect()
        }
        LogicalPlan::SubqueryAlias(alias) => terms_of(&alias.input),
        LogicalPlan::Filter(filter) => terms_of(&filter.input),
        other => vec![1; other.schema().fields().len()],
    }
}

/// How many terms an expression has whose columns have so many.
fn terms(expression: &Expr, schema: &DFSchema, of_columns: &[u64]) -> u64 {
    let mut terms: u64 = 0;
    // The closure never fails, so neither does this.
    let _ = expression.apply(|part| {
        let own = match part {
            Expr::Column(column) => schema.maybe_index_of_column(column).and_then(|at| of_columns.get(at)).copied().unwrap_or(1),
            _ => 1,
        };
        terms = terms.saturating_add(own);
        Ok(TreeNodeRecursion::Continue)
    });
    terms
}

/// Whether a condition would hold an expression of the projection more than once that is more than a column or a constant.
fn grows(condition: &Expr, projection: &Projection) -> bool {
    let mut uses: HashMap<usize, usize> = HashMap::new();
    // The closure never fails, so neither does this.
    let _ = condition.apply(|part| {
        if let Expr::Column(column) = part
            && let Some(at) = projection.schema.maybe_index_of_column(column)
        {
            *uses.entry(at).or_default() += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    uses.into_iter().any(|(at, times)| times > 1 && projection.expr.get(at).is_some_and(|expression| !is_cheap(expression)))
}

fn is_cheap(expression: &Expr) -> bool {
    match expression {
        Expr::Column(_) | Expr::Literal(..) => true,
        Expr::Alias(alias) => is_cheap(&alias.expr),
        Expr::Cast(cast) => is_cheap(&cast.expr),
        Expr::TryCast(cast) => is_cheap(&cast.expr),
        _ => false,
    }
}
