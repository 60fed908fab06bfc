//! `budget`, of a workflow, a repair step or a strategy, the amounts of a day, and `prices`.

use std::sync::Arc;

use super::{Fields, Reader};
use crate::price::{Budget, PriceBook};
use crate::price::{dollars, number_text, size};
use crate::yaml::tree::{Node, Yaml};

impl<'a> Reader<'a> {
    /// The price book: the one given separately, or else the one that `prices` names.
    pub(super) fn price_book(&mut self, fields: &Fields<'a>) -> Option<Arc<PriceBook>> {
        let node = fields.get("prices");
        let name = node.and_then(|node| self.text(node, "`prices`, which names a file,"));
        let found = (self.prices)(name.as_deref());
        // If a book is named but cannot be used, that is the mistake, and not that a book is missing.
        self.priced = node.is_some() || !matches!(found, Ok(None));
        found
            .map_err(|why| {
                let place = node.map_or(fields.place, |node| node.place);
                self.error(place, why, None);
            })
            .ok()
            .flatten()
    }

    /// Reads `budget`.
    pub(super) fn budget(&mut self, fields: &Fields<'a>) -> Option<Budget> {
        let node = fields.get("budget")?;
        let inner = self.fields(node, fields.key_place("budget"), "`budget`", &["usd", "calls", "bytes"])?;
        if matches!(&node.value, Yaml::Map(entries) if entries.is_empty()) {
            self.error(node.place, "`budget` is empty", Some("e.g. `budget: { usd: 0.50, calls: 100, bytes: 10GB }`".to_owned()));
        }
        Some(self.amounts(&inner))
    }

    /// Reads what may be spent from a mapping, whose other keys are somebody else's.
    pub(super) fn amounts(&mut self, inner: &Fields<'a>) -> Budget {
        let usd = inner.get("usd").and_then(|node| self.usd(node));
        if !self.priced && inner.get("usd").is_some() {
            let help =
                "name one, e.g. `prices: prices/aws-us-east-1.yaml`, or give one with the workflow; or limit `calls` or `bytes` instead";
            self.error(inner.key_place("usd"), "a budget in dollars needs a price book", Some(help.to_owned()));
        }
        let calls = inner.get("calls").and_then(|node| {
            let calls = match &node.value {
                Yaml::Number(number) => number.as_u64(),
                _ => None,
            };
            if calls.is_none() {
                self.error(node.place, "`calls` must be a whole number, 0 or more", None);
            }
            calls
        });
        let bytes = inner.get("bytes").and_then(|node| {
            let bytes = node.text().and_then(size);
            if bytes.is_none() {
                self.error(node.place, "`bytes` must be a whole number with a unit", Some("e.g. `512MB`, `10GB`, `1TiB`".to_owned()));
            }
            bytes
        });
        Budget { usd, calls, bytes }
    }

    fn usd(&mut self, node: &'a Node) -> Option<rust_decimal::Decimal> {
        let written = number_text(node, self.text).ok_or_else(|| format!("must be a number, not {}", node.describe()));
        written.and_then(dollars).map_err(|why| self.error(node.place, format!("`usd` {why}"), None)).ok()
    }
}
