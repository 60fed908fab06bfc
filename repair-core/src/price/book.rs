//! Price books: what countable things cost on a given day, each price with the place where it is published. They must not know what was
//! consumed, by whom, or why.
//!
//! Prices are decimals read from the text of the file; no float ever holds one.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::civil::Date;
use rust_decimal::Decimal;

use crate::model::Usage;
use crate::price::Query;
use crate::yaml::Diagnostics;
use crate::yaml::tree;
use crate::yaml::tree::{Key, Node, Place, Yaml};

/// How many digits a price or a budget may have after the decimal point: enough for the price of one call or byte, and few enough that sums
/// stay exact.
pub const MAX_DECIMALS: u32 = 12;
/// How many dollars a price or a budget may have. More is a typing error, and products with counts stay in range.
pub const MAX_USD: u32 = 1_000_000_000;
/// How many prices of sources one book may hold.
const MAX_SOURCES: usize = 1_000;

/// A countable thing that can have a price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Item {
    /// Bytes that a query engine read.
    QueryBytes,
    /// Requests to an object store that read.
    StorageReads,
    /// Requests to an object store that write or list.
    StorageWrites,
    /// Bytes kept for a month.
    BytesStored,
    /// Milliseconds that a machine or function worked.
    ComputeMs,
    /// Messages sent through a queue.
    QueueMessages,
    /// Records put into a stream.
    StreamRecords,
}

impl Item {
    /// All items, with their names in a price book and the units that their prices are given per.
    const ALL: [(Self, &'static str, &'static str); 7] = [
        (Self::QueryBytes, "query_bytes", "bytes, e.g. `1TB`"),
        (Self::StorageReads, "storage_reads", "requests, e.g. `1000`"),
        (Self::StorageWrites, "storage_writes", "requests, e.g. `1000`"),
        (Self::BytesStored, "bytes_stored", "bytes for a month, e.g. `1GB`"),
        (Self::ComputeMs, "compute_seconds", "seconds, e.g. `1`"),
        (Self::QueueMessages, "queue_messages", "messages, e.g. `1000000`"),
        (Self::StreamRecords, "stream_records", "records, e.g. `1000000`"),
    ];

    /// The name used in reports and price books, such as `query_bytes`.
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(item, _, _)| *item == self).map_or("", |(_, name, _)| name)
    }

    fn is_bytes(self) -> bool {
        matches!(self, Self::QueryBytes | Self::BytesStored)
    }
}

/// A price for a number of the same thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// Dollars.
    pub usd: Decimal,
    /// How many bytes, requests, milliseconds or calls the price is for.
    pub per: u64,
    /// Where the price is published.
    pub source: String,
}

impl Price {
    /// The price of `count` of them, in dollars.
    pub fn of(&self, count: u64) -> Decimal {
        self.usd * Decimal::from(count) / Decimal::from(self.per.max(1))
    }
}

/// What calls to a source cost.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallPrice {
    /// Every call costs the same.
    PerCall(Price),
    /// A monthly plan that includes a number of calls.
    Plan {
        /// Dollars per month.
        monthly_usd: Decimal,
        /// Calls per month that the plan includes.
        calls_included: u64,
        /// Dollars for each further call.
        usd_beyond: Decimal,
        /// Where the price is published.
        source: String,
    },
}

impl CallPrice {
    /// The most that one call may cost, in dollars.
    pub fn worst(&self) -> Decimal {
        match self {
            Self::PerCall(price) => price.of(1),
            Self::Plan { monthly_usd, calls_included, usd_beyond, .. } => {
                (*monthly_usd / Decimal::from((*calls_included).max(1))).max(*usd_beyond)
            }
        }
    }

    /// What `calls` calls within one month cost, in dollars. Calls that a plan includes cost their share of the plan.
    pub fn of(&self, calls: u64) -> Decimal {
        match self {
            Self::PerCall(price) => price.of(calls),
            Self::Plan { monthly_usd, calls_included, usd_beyond, .. } => {
                let within = calls.min(*calls_included);
                *monthly_usd * Decimal::from(within) / Decimal::from((*calls_included).max(1)) + *usd_beyond * Decimal::from(calls - within)
            }
        }
    }
}

/// Prices as of a day, read from YAML.
///
/// ```
/// use repair_core::price::{Item, PriceBook};
///
/// let text = "prices: example\nas_of: 2026-11-01\ncurrency: USD\nitems:\n  storage_writes: { usd: 0.005, per: 1000, source: the page }\n";
/// let book = PriceBook::parse("example.yaml", text)?;
/// assert_eq!(book.price(Item::StorageWrites, 200).to_string(), "0.001");
/// # Ok::<(), repair_core::yaml::Diagnostics>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PriceBook {
    /// Its name.
    pub name: String,
    /// The day on which its prices were looked up.
    pub as_of: Date,
    /// The file it was read from.
    pub file: String,
    items: BTreeMap<Item, Price>,
    /// The bytes that every query is charged for at least.
    query_minimum: u64,
    sources: BTreeMap<String, CallPrice>,
}

impl PriceBook {
    /// Reads a price book. `file` names the text in messages.
    ///
    /// # Errors
    /// All mistakes at once, each with its place.
    pub fn parse(file: &str, text: &str) -> Result<Self, Diagnostics> {
        if text.len() > tree::MAX_FILE_BYTES {
            let message = format!("the price book has {} bytes; at most {} are allowed", text.len(), tree::MAX_FILE_BYTES);
            return Err(Diagnostics::of_file(file, message, None));
        }
        let mut diagnostics = Diagnostics::new(file, text);
        let root = match tree::parse(text, 0) {
            Ok(root) => root,
            Err(error) => {
                diagnostics.push(error.place, error.message, None);
                return Err(diagnostics);
            }
        };
        let mut reader = Reader { text, diagnostics };
        let book = reader.book(file, &root);
        match book {
            Some(book) if reader.diagnostics.is_empty() => Ok(book),
            _ => {
                reader.diagnostics.sort();
                Err(reader.diagnostics)
            }
        }
    }

    /// Reads a price book from a file.
    ///
    /// # Errors
    /// As [`PriceBook::parse`]; a file that cannot be read is reported in the same way.
    pub fn load(path: &Path) -> Result<Self, Diagnostics> {
        Self::load_with_text(path).map(|(book, _)| book)
    }

    /// A price book read from a file, and the file's text.
    pub(crate) fn load_with_text(path: &Path) -> Result<(Self, String), Diagnostics> {
        let file = path.display().to_string();
        let text = crate::yaml::read_text(path).map_err(|(message, help)| Diagnostics::of_file(&file, message, help))?;
        Self::parse(&file, &text).map(|book| (book, text))
    }

    /// What `count` of an item cost, in dollars. An item without a price costs nothing.
    pub fn price(&self, item: Item, count: u64) -> Decimal {
        self.items.get(&item).map_or(Decimal::ZERO, |price| price.of(count))
    }

    /// What a query costs, in dollars. A query that read nothing, such as a statement about tables, is free. A query that failed or was
    /// cancelled costs what it read.
    pub fn query(&self, query: &Query) -> Decimal {
        if query.bytes_scanned == 0 {
            return Decimal::ZERO;
        }
        self.price(Item::QueryBytes, query.bytes_scanned.max(self.query_minimum))
    }

    /// What calls to a source cost, under the first of its names that the book knows: its name in the workflow, then its plug-in's.
    pub fn calls<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<&CallPrice> {
        self.source(names).map(|(_, price)| price)
    }

    /// As [`PriceBook::calls`], with the name under which the book has the price.
    pub fn source<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Option<(&str, &CallPrice)> {
        names.into_iter().find_map(|name| self.sources.get_key_value(name)).map(|(name, price)| (name.as_str(), price))
    }

    /// Whether the book has a price for an item.
    pub fn has(&self, item: Item) -> bool {
        self.items.contains_key(&item)
    }

    /// The least that a number of queries cost, given only the sum of their bytes: the price of these bytes, or of one query's minimum.
    pub fn scanned_at_least(&self, queries: u64, bytes: u64) -> Decimal {
        if queries == 0 || bytes == 0 { Decimal::ZERO } else { self.price(Item::QueryBytes, bytes.max(self.query_minimum)) }
    }

    /// The most that a number of queries cost, given only the sum of their bytes: the price of these bytes, plus the minimum of each query.
    pub fn scanned_at_most(&self, queries: u64, bytes: u64) -> Decimal {
        let scanned = if queries == 0 { 0 } else { bytes.saturating_add(queries.saturating_mul(self.query_minimum)) };
        self.price(Item::QueryBytes, scanned)
    }

    /// The most that usage costs, without calls to sources. Queries cost as in [`PriceBook::scanned_at_most`].
    pub fn worst(&self, usage: &Usage) -> Decimal {
        self.scanned_at_most(usage.queries, usage.bytes_scanned) + self.counted(usage)
    }

    /// What usage costs, without calls to sources and without the bytes that queries read.
    pub fn counted(&self, usage: &Usage) -> Decimal {
        counts(usage).into_iter().map(|(item, count)| self.price(item, count)).sum()
    }

    /// The least that usage costs, without calls to sources. Queries cost the bytes that they read together, or the minimum of each.
    pub fn least(&self, usage: &Usage) -> Decimal {
        let scanned = if usage.queries == 0 { 0 } else { usage.bytes_scanned.max(usage.queries.saturating_mul(self.query_minimum)) };
        let counts = counts(usage).into_iter().map(|(item, count)| self.price(item, count));
        self.price(Item::QueryBytes, scanned) + counts.sum::<Decimal>()
    }
}

/// How much of each item some usage holds, without the bytes that queries read.
pub fn counts(usage: &Usage) -> [(Item, u64); 6] {
    [
        (Item::StorageReads, usage.storage_reads),
        (Item::StorageWrites, usage.storage_writes),
        (Item::BytesStored, usage.bytes_written),
        (Item::ComputeMs, usage.compute_ms),
        (Item::QueueMessages, usage.queue_messages),
        (Item::StreamRecords, usage.stream_records),
    ]
}

/// Reads dollars from text.
///
/// # Errors
/// What is wrong with the text, as the end of a sentence: `is negative`. It must be a plain decimal from 0 to [`MAX_USD`], with at most
/// [`MAX_DECIMALS`] digits after the point.
pub fn dollars(text: &str) -> Result<Decimal, String> {
    let text = text.trim();
    let plain = text.strip_prefix('-').unwrap_or(text);
    let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
    let (whole, part) = plain.split_once('.').unwrap_or((plain, "0"));
    if !digits(whole) || !digits(part) {
        return Err("must be a plain decimal number of dollars, e.g. 0.50".to_owned());
    }
    if text.starts_with('-') {
        return Err("is negative".to_owned());
    }
    if part.trim_end_matches('0').len() > MAX_DECIMALS as usize {
        return Err(format!("has more than {MAX_DECIMALS} digits after the decimal point"));
    }
    let most = Decimal::from(MAX_USD);
    plain.parse::<Decimal>().ok().filter(|usd| *usd <= most).ok_or_else(|| format!("is more than {MAX_USD} dollars"))
}

const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// A number of bytes with its unit: `10GB`, `512 MiB`.
pub(crate) fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, unit) = SIZES.into_iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<u64>().ok()?.checked_mul(unit)
}

/// The text of a number as it is written, because the parser turns numbers into floats.
pub(crate) fn number_text<'a>(node: &'a Node, text: &'a str) -> Option<&'a str> {
    match &node.value {
        Yaml::Number(_) => text.get(node.place.start..node.place.end),
        Yaml::Text(text) => Some(text),
        _ => None,
    }
}

struct Reader<'a> {
    text: &'a str,
    diagnostics: Diagnostics,
}

impl<'a> Reader<'a> {
    fn error(&mut self, place: Place, message: impl Into<String>, help: Option<&str>) {
        self.diagnostics.push(place, message.into(), help.map(str::to_owned));
    }

    fn entries(&mut self, node: &'a Node, what: &str, known: &[&str]) -> &'a [(Key, Node)] {
        let Yaml::Map(entries) = &node.value else {
            self.error(node.place, format!("{what} must be a mapping, not {}", node.describe()), None);
            return &[];
        };
        for (key, _) in entries.iter().filter(|(key, _)| !known.is_empty() && !known.contains(&key.name.as_str())) {
            let help = format!("the keys are {}", known.join(", "));
            self.error(key.place, format!("unknown key `{}` in {what}", key.name), Some(&help));
        }
        entries
    }

    fn required(&mut self, node: &'a Node, place: Place, name: &str, help: &str) -> Option<&'a Node> {
        let found = node.get(name);
        if found.is_none() {
            self.error(place, format!("`{name}` is missing"), Some(help));
        }
        found
    }

    fn required_text(&mut self, node: &'a Node, place: Place, name: &str, help: &str) -> Option<String> {
        let found = self.required(node, place, name, help)?;
        let text = found.text().filter(|text| !text.trim().is_empty());
        if text.is_none() {
            self.error(found.place, format!("`{name}` must be text"), Some(help));
        }
        text.map(str::to_owned)
    }

    fn book(&mut self, file: &str, root: &'a Node) -> Option<PriceBook> {
        let mut repeated = Vec::new();
        root.repeated_keys(&mut |key, _| repeated.push(key));
        for key in repeated {
            self.error(key.place, format!("the key `{}` appears twice", key.name), Some("remove one"));
        }
        self.entries(root, "the price book", &["prices", "as_of", "currency", "items", "sources"]);
        let start = Place::default();
        let name = self.required_text(root, start, "prices", "give the book's name, e.g. `prices: aws-us-east-1`");
        let as_of = self.required_text(root, start, "as_of", "give the day on which the prices were looked up, e.g. `as_of: 2026-11-01`");
        let as_of = as_of.and_then(|text| {
            let date = text.parse::<Date>().ok();
            if date.is_none() {
                let place = root.get("as_of").map_or(start, |node| node.place);
                self.error(place, format!("`{text}` is not a date"), Some("write it as 2026-11-01"));
            }
            date
        });
        if let Some(currency) = self.required_text(root, start, "currency", "write `currency: USD`")
            && currency != "USD"
        {
            let place = root.get("currency").map_or(start, |node| node.place);
            self.error(place, format!("unknown currency `{currency}`"), Some("write `currency: USD`; prices are in dollars"));
        }
        let (items, query_minimum) = root.get("items").map(|node| self.items(node)).unwrap_or_default();
        let sources = root.get("sources").map(|node| self.sources(node)).unwrap_or_default();
        Some(PriceBook { name: name?, as_of: as_of?, file: file.to_owned(), items, query_minimum, sources })
    }

    fn items(&mut self, node: &'a Node) -> (BTreeMap<Item, Price>, u64) {
        let known = Item::ALL.map(|(_, name, _)| name);
        let (mut items, mut query_minimum) = (BTreeMap::new(), 0);
        for (key, node) in self.entries(node, "`items`", &known) {
            let Some((item, name, per)) = Item::ALL.into_iter().find(|(_, name, _)| *name == key.name) else { continue };
            let mut keys = vec!["usd", "per", "source"];
            if item == Item::QueryBytes {
                keys.push("minimum");
            }
            self.entries(node, &format!("the price of `{name}`"), &keys);
            if let Some(minimum) = node.get("minimum").filter(|_| item == Item::QueryBytes) {
                match minimum.text().and_then(size) {
                    Some(bytes) => query_minimum = bytes,
                    None => self.error(minimum.place, "`minimum` must be a whole number of bytes with a unit", Some("write e.g. `10MB`")),
                }
            }
            let usd = self.usd(node, key.place, "usd");
            let source = self.source(node, key.place);
            let per =
                self.required(node, key.place, "per", &format!("give the number of {per}, that the price is for")).and_then(|found| {
                    let count = if item.is_bytes() {
                        found.text().and_then(size)
                    } else {
                        number_text(found, self.text).and_then(|text| text.parse::<u64>().ok())
                    };
                    let count = if item == Item::ComputeMs { count.and_then(|seconds| seconds.checked_mul(1_000)) } else { count };
                    let count = count.filter(|count| *count > 0);
                    if count.is_none() {
                        self.error(found.place, format!("`per` must be a number of {per}"), None);
                    }
                    count
                });
            if let (Some(usd), Some(per), Some(source)) = (usd, per, source) {
                items.insert(item, Price { usd, per, source });
            }
        }
        (items, query_minimum)
    }

    fn sources(&mut self, node: &'a Node) -> BTreeMap<String, CallPrice> {
        let mut sources = BTreeMap::new();
        let entries = self.entries(node, "`sources`", &[]);
        if entries.len() > MAX_SOURCES {
            self.error(node.place, format!("there are {} sources; at most {MAX_SOURCES} are allowed", entries.len()), None);
            return sources;
        }
        for (key, node) in entries {
            let what = format!("the price of `{}`", key.name);
            let plan = node.get("monthly_usd").is_some() || node.get("calls_included").is_some();
            let known: &[&str] =
                if plan { &["monthly_usd", "calls_included", "usd_beyond", "source"] } else { &["usd_per_call", "source"] };
            self.entries(node, &what, known);
            let source = self.source(node, key.place);
            let price = if plan {
                let monthly_usd = self.usd(node, key.place, "monthly_usd");
                let usd_beyond = self.usd(node, key.place, "usd_beyond");
                let included =
                    self.required(node, key.place, "calls_included", "give the number of calls per month that the plan includes");
                let calls_included = included.and_then(|found| {
                    let count = number_text(found, self.text).and_then(|text| text.parse::<u64>().ok()).filter(|count| *count > 0);
                    if count.is_none() {
                        self.error(found.place, "`calls_included` must be a whole number of calls", None);
                    }
                    count
                });
                monthly_usd.zip(usd_beyond).zip(calls_included).zip(source).map(|(((monthly_usd, usd_beyond), calls_included), source)| {
                    CallPrice::Plan { monthly_usd, calls_included, usd_beyond, source }
                })
            } else {
                let usd = self.usd(node, key.place, "usd_per_call");
                usd.zip(source).map(|(usd, source)| CallPrice::PerCall(Price { usd, per: 1, source }))
            };
            sources.extend(price.map(|price| (key.name.clone(), price)));
        }
        sources
    }

    fn source(&mut self, node: &'a Node, place: Place) -> Option<String> {
        self.required_text(node, place, "source", "say where the price is published, e.g. `source: https://…`")
    }

    fn usd(&mut self, node: &'a Node, place: Place, name: &str) -> Option<Decimal> {
        let found = self.required(node, place, name, "give a price in dollars")?;
        let read = number_text(found, self.text).ok_or_else(|| format!("must be a number, not {}", found.describe())).and_then(dollars);
        read.map_err(|why| self.error(found.place, format!("`{name}` {why}"), None)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOK: &str = "prices: test
as_of: 2026-11-01
currency: USD
items:
  query_bytes: { usd: 5, per: 1TB, minimum: 10MB, source: page }
  storage_reads: { usd: 0.0004, per: 1000, source: page }
  compute_seconds: { usd: 0.0000166667, per: 1, source: page }
sources:
  market: { usd_per_call: 0.01, source: page }
  plan: { monthly_usd: 30, calls_included: 1000, usd_beyond: 0.05, source: page }
";

    fn query(bytes_scanned: u64) -> Query {
        Query { id: "q".to_owned(), bytes_scanned, engine_ms: 1 }
    }

    #[test]
    fn prices_are_decimals_to_the_last_digit() {
        let book = PriceBook::parse("book.yaml", BOOK).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(book.price(Item::StorageReads, 3).to_string(), "0.0000012");
        assert_eq!(book.price(Item::ComputeMs, 1).normalize().to_string(), "0.0000000166667");
        assert_eq!(book.price(Item::QueueMessages, 3), Decimal::ZERO, "no price, no cost");
        assert_eq!(book.query(&query(1)).normalize().to_string(), "0.00005", "the minimum of 10 MB");
        assert_eq!(book.query(&query(20_000_000)).normalize().to_string(), "0.0001");
        assert_eq!(book.query(&query(0)), Decimal::ZERO, "statements about tables are free");
    }

    #[test]
    fn a_plan_shares_its_price_and_charges_beyond() {
        let book = PriceBook::parse("book.yaml", BOOK).unwrap();
        let plan = book.calls(["unknown", "plan"]).unwrap();
        assert_eq!(plan.of(100).normalize().to_string(), "3");
        assert_eq!(plan.of(1_002).normalize().to_string(), "30.1");
        assert_eq!(plan.worst().to_string(), "0.05");
        assert_eq!(book.calls(["market", "plan"]).unwrap().of(7).to_string(), "0.07");
        assert!(book.calls(["unknown"]).is_none());
    }

    /// Where single queries are unknown, the worst case is assumed, so the result is never less than the sum of the single prices.
    #[test]
    fn the_worst_price_is_not_below_the_price() {
        let book = PriceBook::parse("book.yaml", BOOK).unwrap();
        for sizes in [[1, 1, 1], [9_999_999, 10_000_001, 5], [0, 0, 123_456_789]] {
            let each: Decimal = sizes.iter().map(|bytes| book.query(&query(*bytes))).sum();
            let usage = Usage { queries: 3, bytes_scanned: sizes.iter().sum(), ..Usage::default() };
            assert!(book.worst(&usage) >= each, "{sizes:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_their_places() {
        let text = "prices: test
as_of: yesterday
currency: EUR
items:
  query_byte: { usd: 5, per: 1TB, source: page }
  storage_reads: { usd: -1, per: 0, source: page }
  storage_writes: { usd: 0.0000000000001, per: 1000 }
  queue_messages: { usd: 1e-7, per: 1000, source: page }
";
        let mistakes = PriceBook::parse("book.yaml", text).unwrap_err();
        let mistakes: Vec<String> = mistakes.iter().map(|one| format!("{}:{} {}", one.line, one.column, one.message)).collect();
        assert_eq!(
            mistakes,
            [
                "2:8 `yesterday` is not a date",
                "3:11 unknown currency `EUR`",
                "5:3 unknown key `query_byte` in `items`",
                "6:25 `usd` is negative",
                "6:34 `per` must be a number of requests, e.g. `1000`",
                "7:3 `source` is missing",
                "7:26 `usd` has more than 12 digits after the decimal point",
                "8:26 `usd` must be a plain decimal number of dollars, e.g. 0.50",
            ]
        );
    }

    #[test]
    fn the_bundled_books_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../prices");
        let aws = PriceBook::load(&folder.join("aws-us-east-1.yaml")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(aws.price(Item::QueryBytes, 1_000_000_000_000), Decimal::from(5));
        assert_eq!(aws.price(Item::StorageWrites, 1_000).to_string(), "0.005");
        let local = PriceBook::load(&folder.join("local.yaml")).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        assert_eq!(local.query(&query(1)), Decimal::ZERO);
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [("10GB", 10_000_000_000), ("1 MiB", 1 << 20), ("0B", 0)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "10", "GB", "-1GB", "1.5GB", "99999999999TB", "1gb"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
