//! How deep the expressions of a query are nested. Planning and computing recurse into them, so a text of a few kilobytes could otherwise
//! exhaust the stack, and with it the program.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Tokenizer;
use repair_core::{Error, Result};

/// Queries that people write nest tens of expressions; generated ones, some hundreds.
const MOST_DEEP: usize = 400;

/// A chain of operators is as deep as it is long. What has more words than this is refused before it is parsed.
const MOST_TOKENS: usize = 100_000;

/// Stack for parsing and walking over that many words. Memory is used only as far as the stack grows.
const STACK_BYTES: usize = 512 << 20;

/// Counts how deep expressions and queries are nested.
#[derive(Default)]
struct Depth {
    now: usize,
    most: usize,
}

impl Depth {
    fn enter(&mut self) -> ControlFlow<()> {
        self.now += 1;
        self.most = self.most.max(self.now);
        ControlFlow::Continue(())
    }

    fn leave(&mut self) -> ControlFlow<()> {
        self.now = self.now.saturating_sub(1);
        ControlFlow::Continue(())
    }
}

impl Visitor for Depth {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<()> {
        self.leave()
    }

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.enter()
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.leave()
    }
}

/// Refuses a query whose expressions are nested too deep. A query that cannot be parsed is left to whoever explains that.
///
/// # Errors
/// `invalid` if it is nested too deep, or too long.
pub(super) fn check(sql: &str) -> Result<()> {
    // Where even this cannot be read, the parser says why.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().map_or(0, |tokens| tokens.len());
    if tokens > MOST_TOKENS {
        return Err(Error::invalid(format!(
            "the SQL has {tokens} words and signs, and may have {MOST_TOKENS}; put long lists into a table, and join with it"
        )));
    }
    let most = std::thread::scope(|scope| {
        let parsing = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, || {
            let mut depth = Depth::default();
            if let Ok(statements) = Parser::parse_sql(&GenericDialect {}, sql) {
                let _: ControlFlow<()> = statements.visit(&mut depth);
            }
            depth.most
        });
        let failed = |error: std::io::Error| {
            Error::new(repair_core::ErrorKind::Transient, "the system gives this process no thread to read the SQL on").because(error)
        };
        parsing.map_err(failed)?.join().map_err(|_| Error::internal("the SQL parser panicked"))
    })?;
    if most > MOST_DEEP {
        return Err(Error::invalid(format!(
            "the SQL nests {most} expressions, and may nest {MOST_DEEP}; split a long chain of operators, or compute parts of it in `WITH`"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_chains_and_deep_nests_are_refused() {
        let chain = |length: usize| format!("SELECT 1{} AS s", "+1".repeat(length));
        check(&chain(300)).unwrap();
        check("no SQL at all (((").unwrap();
        let lists = format!("SELECT 1 IN ({}1)", "1,".repeat(20_000));
        check(&lists).unwrap();
        for (sql, word) in [(chain(3_000), "nests 3002"), (chain(49_000), "nests 49002"), (chain(60_000), " words and signs")] {
            let error = check(&sql).unwrap_err();
            assert!(error.message().contains(word), "{error}");
        }
    }
}
