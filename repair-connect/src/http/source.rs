//! The source `http`: asks an API, which a workflow describes, for the rows of some keys and an interval.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use repair_core::builtin::Period;
use repair_core::lake::shape;
use repair_core::model::{Cadence, ColumnType, Interval, Key, SlotGrid, Table};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::text::name_twice;
use repair_core::yaml::closest;
use repair_core::{Error, Result};
use reqwest::{Method, StatusCode, Url};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::allowed::Options;
use crate::columns::{TableColumns, Types};
use crate::http::NAME;
use crate::http::answers::{AnswerRule, Means, ruling};
use crate::http::api::{Call, Paging, Reply, Words, most_pages, shown};
use crate::http::pages::{Bounds, Onward, Pages, PagesConfig, Place};
use crate::http::request::{Requests, config, set_parameter};
use crate::http::shape::{Fields, RowsConfig, Shape};
use crate::http::times::{TimeConfig, Times};
use crate::rows;
use crate::secret::{Secret, without};
use crate::template::Argument;

/// The default number of slots that one request asks for.
const ROWS: u64 = 10_000;
/// By default, how long after a slot its row may still arrive.
const SETTLES_AFTER: Period = Period::minutes(15);

/// In which order rows come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The oldest first.
    #[default]
    OldestFirst,
    /// The newest first.
    NewestFirst,
}

/// What becomes of rows outside the requested interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outside {
    /// The whole answer is rejected: the API may have ignored the request.
    #[default]
    Refuse,
    /// They are left out, because the API only answers whole days, months or pages.
    Drop,
}

/// What becomes of rows that have no value where `columns` wants one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// They are rows, as one of several values may be unknown.
    #[default]
    Keep,
    /// The whole answer is rejected.
    Refuse,
}

config! {
    /// The configuration of the source.
    pub struct HttpSourceConfig {
        /// Where the rows are in an answer; by default, the body is a list of objects.
        #[serde(default)]
        pub rows: RowsConfig,
        /// The columns of the table, each with the field of a row that it comes from: a name, or a JSON Pointer within the row. By default, fields have
        /// the names of columns, and all are taken.
        #[serde(default)]
        pub columns: BTreeMap<String, String>,
        /// More columns, filled if the table has them.
        #[serde(default)]
        pub optional: BTreeMap<String, String>,
        /// What becomes of rows in which a field of `columns` is null, or without `columns` any field: `keep` (the default), or `refuse`.
        #[serde(default)]
        pub nulls: Nulls,
        /// The types of columns, as in a table's `columns`, for a table that has no file yet which says them.
        #[serde(default)]
        #[schemars(with = "BTreeMap<String, String>")]
        pub types: BTreeMap<String, ColumnType>,
        /// The cadence of the rows; for tables of another cadence, nothing is asked. By default any.
        #[serde(default)]
        pub cadence: Option<Cadence>,
        /// The fields with the values of the key columns, in their order; each row must have them. By default those of their names; if a row has none, the
        /// key is the one that was asked for.
        #[serde(default)]
        pub key: Vec<String>,
        /// The field with the time; by default the name of the table's time column.
        #[serde(default)]
        pub time_field: Option<String>,
        /// How times are written in rows, and what they mean.
        #[serde(default)]
        pub time: TimeConfig,
        /// In which order rows come: `oldest_first` (the default) or `newest_first`.
        #[serde(default)]
        pub order: Order,
        /// What becomes of rows outside the requested interval: `refuse` (the default), or `drop`, for APIs that answer whole days or months.
        #[serde(default)]
        pub outside: Outside,
        /// How further pages are asked for; by default there is one.
        #[serde(default)]
        pub pages: Option<PagesConfig>,
        /// The most pages that one answer may have; more are an error. A budget in calls sets aside this number for each request. 1,000 by default.
        #[serde(default)]
        pub max_pages: Option<u64>,
        /// Rules about what answers mean, before their status decides.
        #[serde(default)]
        pub answers: Vec<AnswerRule>,
        /// Whether a slot that an answer leaves out has no row, if the answer has other rows of its key; false by default.
        #[serde(default)]
        pub vouches: bool,
        /// How long after a slot its row may still arrive; for younger slots, silence proves nothing. 15m by default.
        #[serde(default)]
        pub settles_after: Option<Period>,
        /// The most slots, over all keys, that one request asks for; 10,000 by default.
        #[serde(default)]
        pub rows_per_request: Option<u64>,
        /// The most keys that one request asks for; 1 by default.
        #[serde(default)]
        pub keys_per_request: Option<usize>,
        /// What is recorded of an answer as evidence, such as whose data it is; by default what errors call the API.
        #[serde(default)]
        pub said: Option<String>,
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry
        .source(NAME, "asks an API for missing rows", move |config: HttpSourceConfig| HttpSource::new(&config, &options, Words::default()));
}

/// The source `http`. A crate that knows one API can make it from a configuration of its own.
pub struct HttpSource {
    requests: Requests,
    words: Words,
    shape: Shape,
    columns: BTreeMap<String, String>,
    optional: BTreeMap<String, String>,
    nulls: Nulls,
    types: Types,
    cadence: Option<Cadence>,
    key: Vec<String>,
    time_field: Option<String>,
    times: Times,
    order: Order,
    outside: Outside,
    pages: Pages,
    most_pages: u64,
    answers: Vec<AnswerRule>,
    vouches: bool,
    settles_after: Period,
    limits: Limits,
    said: String,
    known: TableColumns,
}

/// The values of a request, by name. Those of the second list may say how they are written.
const VALUES: [&str; 8] = ["from", "first", "to", "last", "key", "keys", "limit", "table"];
const FORMATTED: [&str; 5] = ["from", "first", "to", "last", "key"];

impl HttpSource {
    /// A source that a configuration describes, and the words in which its errors speak of it.
    ///
    /// # Errors
    /// `invalid` if the configuration makes no sense.
    pub fn new(config: &HttpSourceConfig, options: &Options, words: Words) -> Result<Self> {
        let limits = Limits::new(config.rows_per_request.unwrap_or(ROWS), config.keys_per_request.unwrap_or(1));
        if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
            return Err(Error::invalid("`rows_per_request` and `keys_per_request` must be at least 1; correct them, or remove them"));
        }
        config.answers.iter().try_for_each(AnswerRule::check)?;
        let requests = Requests::new(config.request(), Method::GET, &VALUES, &FORMATTED, &options.environment, words)?;
        if limits.keys_per_request > 1 && requests.uses("key") {
            return Err(Error::invalid(
                "`{key}` stands for one key, and `keys_per_request` is more than 1; write `{keys}`, which are joined by commas, or ask for one key at a time",
            ));
        }
        let pages = Pages::new(config.pages.as_ref(), |text| Argument::parsed(text, &VALUES, &FORMATTED))?;
        let most_pages = match pages {
            Pages::One if config.max_pages.is_some_and(|pages| pages != 1) => {
                return Err(Error::invalid(
                    "`max_pages` has no meaning without `pages`; remove it, or say how further pages are asked for",
                ));
            }
            Pages::One => 1,
            _ => most_pages(config.max_pages)?,
        };
        let shape = Shape::new(&config.rows)?;
        if shape.is_csv() && matches!(&pages, Pages::Token { at: Place::Body(_), .. } | Pages::Next { at: Place::Body(_), .. }) {
            return Err(Error::invalid(
                "a body of CSV has no place for a token or an address; use `token_header`, `link`, `page` or `after`",
            ));
        }
        Ok(Self {
            words,
            shape,
            columns: config.columns.clone(),
            optional: config.optional.clone(),
            nulls: config.nulls,
            types: config.types.clone(),
            cadence: config.cadence,
            key: config.key.clone(),
            time_field: config.time_field.clone(),
            times: Times::new(&config.time)?,
            order: config.order,
            outside: config.outside,
            pages,
            most_pages,
            answers: config.answers.clone(),
            vouches: config.vouches,
            settles_after: config.settles_after.unwrap_or(SETTLES_AFTER),
            limits,
            said: config.said.clone().unwrap_or_else(|| requests.provider.clone()),
            known: TableColumns::default(),
            requests,
        })
    }

    /// Refuses a request that cannot be meant for this API, before anything is asked.
    fn check(&self, request: &Request) -> Result<()> {
        let (table, provider) = (&request.table, &self.requests.provider);
        if let Some(cadence) = self.cadence
            && table.cadence != Some(cadence)
        {
            let own = table.cadence.map_or_else(|| "has none".to_owned(), |own| format!("has one of {own}"));
            return Err(Error::invalid(format!(
                "{provider} has rows with a cadence of {cadence}, and table `{}` {own}; correct the cadence of the table, or what is asked for and `cadence` of the source",
                table.name
            )));
        }
        if !self.key.is_empty() && self.key.len() != table.key.len() {
            return Err(Error::invalid(format!(
                "`key` of the source is {}, and table `{}` is identified by {}; write a field for each of its key columns",
                self.key.join(", "),
                table.name,
                if table.key.is_empty() { "no column".to_owned() } else { table.key.join(", ") }
            )));
        }
        if table.grid().is_ok_and(|grid| grid.slots_in(&request.interval).is_empty()) {
            return Err(Error::invalid(format!("the request names no slot: none begins within {}", request.interval)));
        }
        Ok(())
    }

    /// The value of a request that a name stands for.
    fn value(&self, request: &Request, name: &str, form: Option<&str>) -> Result<String> {
        let grid = request.table.grid().ok();
        let (from, to) = (request.interval.from(), request.interval.to());
        let text = |key: &Key| key.values().collect::<Vec<_>>().join("/");
        let for_all = || Error::invalid(format!("`{{{name}}}` stands for what is asked for, and this request is for all keys"));
        match name {
            "from" => self.times.written(from, form),
            "first" => self.times.written(grid.map_or(from, |grid| grid.start_of(grid.slots_in(&request.interval).first)), form),
            "to" => self.times.written(to, form),
            "last" => {
                let last = match grid {
                    Some(grid) => grid.start_of(grid.slots_in(&request.interval).end - 1),
                    None => to.checked_sub(SignedDuration::from_micros(1)).unwrap_or(to),
                };
                self.times.written(last, form)
            }
            "key" => {
                let key = request.keys.first().ok_or_else(for_all)?;
                match form.map(|form| form.parse::<usize>()) {
                    None => Ok(text(key)),
                    Some(number) => {
                        let value = number.ok().and_then(|number| key.values().nth(number.checked_sub(1)?));
                        value
                            .map(str::to_owned)
                            .ok_or_else(|| Error::invalid("`{key:N}` stands for the N-th value of a key, which there is not"))
                    }
                }
            }
            "keys" if request.keys.is_empty() => Err(for_all()),
            "keys" => {
                let keys: Vec<String> = request.keys.iter().map(text).collect();
                match keys.iter().find(|key| key.contains(',')) {
                    None => Ok(keys.join(",")),
                    Some(odd) => Err(Error::invalid(format!(
                        "`{odd}` has a comma, and `{{keys}}` are joined by commas, so that it would be another key; ask for one key at a time, with `{{key}}`"
                    ))),
                }
            }
            "limit" => Ok(self.limits.rows_per_request.to_string()),
            "table" => Ok(request.table.name.clone()),
            other => Err(Error::internal(format!("no value for `{{{other}}}`"))),
        }
    }

    /// The first request.
    fn first(&self, context: &StepContext, request: &Request) -> Result<Call> {
        let id = format!("{}/{}", context.run, context.step);
        let mut call = self.requests.call(context, &id, &|name, form| self.value(request, name, form))?;
        if let Pages::Number { parameter, first } = &self.pages {
            set_parameter(&mut call.url, parameter, &first.to_string());
        }
        Ok(call)
    }

    /// The address below which all pages of a request are, if that is declared.
    fn below(&self, request: &Request) -> Result<Option<Url>> {
        let Pages::Next { below: Some(parts), .. } = &self.pages else { return Ok(None) };
        let parts = parts.iter().map(|part| part.filled(&|name, form| self.value(request, name, form))).collect::<Result<Vec<_>>>()?;
        self.requests.api.url(&parts.iter().map(String::as_str).collect::<Vec<_>>()).map(Some)
    }

    /// What a reply is: the rows of a page and what else is in its body, or none.
    fn page(&self, context: &StepContext, request: &Request, call: &Call, reply: &Reply) -> Result<Page> {
        let mut body: Option<Value> = if self.shape.is_csv() { None } else { serde_json::from_slice(&reply.body).ok() };
        let rule = ruling(&self.answers, reply.status.as_u16(), body.as_ref());
        match rule {
            Some(rule) => {
                if let Some(kind) = rule.means.kind() {
                    return Err(self.requests.api.refused_as(context, call, reply, rule, kind));
                }
            }
            // A part of what was asked for is no whole answer, whatever it has.
            None if reply.status == StatusCode::PARTIAL_CONTENT => {
                let why = "a part of what was asked for (status 206); if further pages bring the rest, add the rule `{ status: 206, means: rows }` to `answers`";
                return Err(self.requests.api.unusable(call, why, &reply.body));
            }
            None if reply.status.is_success() => {}
            None => return Err(self.requests.api.refusal(context, call, reply)),
        }
        let means = rule.map(|rule| rule.means);
        let none = matches!(means, Some(Means::Empty | Means::Absent | Means::End));
        let twice = if self.shape.is_csv() { None } else { name_twice(&reply.body, |_| true) };
        let rows = if let Some(name) = twice {
            Err(Error::invalid(format!("the field `{}` twice in one object", shown(name.as_bytes(), &call.secrets))))
        } else if none {
            self.is_about(request, body.as_ref().filter(|_| means == Some(Means::Absent)), &call.secrets).map(|()| Vec::new())
        } else if self.shape.is_csv() {
            self.shape.rows_of_csv(&reply.body, self.named_fields(&request.table))
        } else {
            let body = match &mut body {
                Some(body) => body,
                none => none.insert(self.requests.api.read(call, reply)?),
            };
            self.shape.rows(body)
        };
        self.requests.check_secrets(call, &reply.body)?;
        let rows = rows.map_err(|error| self.requests.api.no_page(call, error.message(), &reply.body))?;
        Ok(Page {
            rows,
            is_absent: means == Some(Means::Absent),
            is_unproven: means == Some(Means::Empty),
            is_end: means == Some(Means::End),
            body,
        })
    }

    /// Checks that an answer without rows that proves something is about what was asked for, as far as it says so.
    fn is_about(&self, request: &Request, body: Option<&Value>, secrets: &[Secret]) -> Result<()> {
        for (number, column) in request.table.key.iter().enumerate() {
            let name = self.key.get(number).unwrap_or(column);
            let Some(said) = body.and_then(|body| self.shape.shared(name, body)) else { continue };
            let said = said.as_str().map_or_else(|| said.to_string(), str::to_owned);
            if !request.keys.is_empty() && !request.keys.iter().any(|key| key.values().nth(number) == Some(said.as_str())) {
                let said = shown(said.as_bytes(), secrets);
                return Err(Error::invalid(format!("nothing about `{said}` (`{name}` under `shared`), which was not asked for")));
            }
        }
        Ok(())
    }

    /// The fields that every row must have. A row without the key may be of the one that was asked for.
    fn named_fields<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = &'a str> {
        let time = self.time_field.as_ref().unwrap_or(&table.time);
        let all = [time].into_iter().chain(&self.key).chain(self.columns.values());
        all.map(String::as_str).filter(|name| !name.starts_with('/'))
    }

    /// A row with the table's columns: its time as the API has it, and as the table has it; its key; and its values.
    fn row(&self, asked: &Asking<'_>, fields: &Fields, secrets: &[Secret]) -> Result<(Timestamp, Timestamp, Key, Map<String, Value>)> {
        let Asking { request, columns, grid, keys } = asked;
        let table = &request.table;
        let lacks = |name: &str| {
            let close = closest(name, fields.keys().map(String::as_str));
            let close = close.map(|close| format!(" (it has `{}`)", shown(close.as_bytes(), secrets))).unwrap_or_default();
            format!("a row without the field `{name}`{close}")
        };
        // Fields that are called as columns are found regardless of case.
        let mut taken: Vec<&str> = Vec::new();
        let mut found = |name: &'_ str, is_declared: bool| {
            let (own, value) = if is_declared { (None, field(fields, name)) } else { field_of_column(fields, name).unzip() };
            taken.extend(own);
            value.filter(|value| !value.is_null())
        };
        let time_field = self.time_field.as_deref().unwrap_or(&table.time);
        let time = found(time_field, self.time_field.is_some());
        let time = time.ok_or_else(|| Error::invalid(format!("{}, its time", lacks(time_field))))?;
        let said = self.times.read(time)?;
        let time = self.times.of_row(said, *grid);
        let mut row = Map::new();
        let mut key = Vec::new();
        for (number, column) in table.key.iter().enumerate() {
            let name = self.key.get(number).unwrap_or(column);
            let value = match (found(name, !self.key.is_empty()), request.keys.as_slice()) {
                (Some(value), _) => value.clone(),
                (_, [only]) if self.limits.keys_per_request == 1 && self.key.is_empty() => {
                    only.values().nth(number).map(Value::from).ok_or_else(|| Error::internal("a key has too few values"))?
                }
                _ => {
                    return Err(Error::invalid(format!("{}, a part of its key; write the fields under `key`", lacks(name))));
                }
            };
            key.push(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            row.insert(column.clone(), value);
        }
        let key = Key::new(key);
        if !keys.is_empty() && !keys.contains(&key) {
            let key = shown(key.values().collect::<Vec<_>>().join("/").as_bytes(), secrets);
            return Err(Error::invalid(format!("a row of `{key}`, which was not asked for")));
        }
        row.insert(table.time.clone(), time.to_string().into());
        // A word of the table for no value is none in an answer, either.
        let valued = |column: &str, value: &Value| match value {
            Value::String(text) if table.nulls_of(column).any(|word| word == text) => Value::Null,
            other => other.clone(),
        };
        if self.columns.is_empty() {
            let is_own = |name: &str| {
                name == time_field
                    || taken.contains(&name)
                    || self.key.iter().chain(&table.key).any(|key| key == name)
                    || row.contains_key(name)
            };
            let others: Vec<(String, Value)> =
                fields.iter().filter(|(name, _)| !is_own(name)).map(|(name, value)| (name.clone(), valued(name, value))).collect();
            if let Some((name, _)) = others.iter().find(|(_, value)| value.is_null() && self.nulls == Nulls::Refuse) {
                return Err(Error::invalid(format!("a row without a value of `{name}`")));
            }
            row.extend(others);
        }
        for (column, name) in &self.columns {
            let value = field(fields, name).ok_or_else(|| Error::invalid(format!("{}, which is column `{column}`", lacks(name))))?;
            let value = valued(column, value);
            if value.is_null() && self.nulls == Nulls::Refuse {
                return Err(Error::invalid(format!("a row without a value of `{name}`, which is column `{column}`")));
            }
            row.insert(column.clone(), value);
        }
        for (column, name) in &self.optional {
            if columns.is_some_and(|columns| matches!(shape::find(columns, column), Ok(Some(_)))) {
                row.insert(column.clone(), field(fields, name).map_or(Value::Null, |value| valued(column, value)));
            }
        }
        Ok((said, time, key, row))
    }

    /// All pages of a request.
    async fn ask(&self, context: &StepContext, asking: &Asking<'_>) -> Result<Asked> {
        let request = asking.request;
        let possible = match (asking.grid, self.outside) {
            (Some(grid), Outside::Refuse) if !request.keys.is_empty() => {
                grid.slots_in(&request.interval).len().saturating_mul(request.keys.len() as u64)
            }
            _ => u64::MAX,
        };
        let mut paging = Paging::new(self.requests.provider.clone(), self.words, self.most_pages, possible);
        let first = self.first(context, request)?;
        let (base, below) = (self.requests.api.url(&[])?, self.below(request)?);
        let mut call = first.clone();
        let mut asked = Asked::default();
        let mut seen: BTreeSet<(Key, Timestamp)> = BTreeSet::new();
        loop {
            let reply = self.requests.api.send(context, &call).await?;
            let page = self.page(context, request, &call, &reply)?;
            asked.is_absent |= page.is_absent;
            asked.is_unproven |= page.is_unproven;
            let (mut new, mut latest, mut rows) = (0, None, Vec::new());
            for (index, fields) in page.rows.iter().enumerate() {
                let (said, time, key, row) = self.row(asking, fields, &call.secrets).map_err(|error| {
                    let why = format!("{}: {}", self.shape.place(&page.rows, index), error.message());
                    self.requests.api.no_page(&call, &why, &reply.body)
                })?;
                // Pages that are asked for by time overlap where they meet.
                if matches!(self.pages, Pages::After { .. }) && !seen.insert((key.clone(), time)) {
                    continue;
                }
                new += 1;
                // The next page is asked for in the times of the API, whatever they mark in the table.
                latest = latest.max(Some(said));
                if self.outside == Outside::Refuse || is_within(request, asking.grid, time) {
                    asked.keys.insert(key);
                    rows.push(row);
                }
            }
            let bounds = Bounds { provider: &self.requests.provider, base: &base, below: below.as_ref(), secrets: &call.secrets };
            let onward = match &self.pages {
                _ if page.is_end => None,
                Pages::Number { parameter, first } if !page.rows.is_empty() => {
                    Some(Onward::Parameter(parameter.clone(), first.saturating_add(paging.pages() + 1).to_string()))
                }
                Pages::After { parameter, form } => match latest {
                    Some(latest) => Some(Onward::Parameter(parameter.clone(), self.times.written(latest, form.as_deref())?)),
                    None => None,
                },
                pages => pages.onward(&bounds, &call.url, &reply.headers, page.body.as_ref())?,
            };
            let token = onward.as_ref().map(|onward| match onward {
                Onward::Parameter(_, value) => value.clone(),
                Onward::Address(url) => url.to_string(),
            });
            paging.turn(new, token.as_deref())?;
            drop(page);
            self.take(asking, rows, &mut asked).map_err(|error| self.unusable(&call, &reply, &error))?;
            asked.pages = paging.pages();
            call = match onward {
                None => return Ok(asked),
                Some(Onward::Parameter(name, value)) => {
                    let mut url = first.url.clone();
                    set_parameter(&mut url, &name, &value);
                    Call { url, ..first.clone() }
                }
                Some(Onward::Address(url)) => self.requests.at(&first, url)?,
            };
        }
    }

    /// Takes the rows of a page into an answer, in the lake's shape.
    fn take(&self, asking: &Asking<'_>, mut rows: Vec<Map<String, Value>>, asked: &mut Asked) -> Result<()> {
        if self.order == Order::NewestFirst {
            rows.reverse();
        }
        let table = &asking.request.table;
        if asking.columns.is_none() && rows.iter().any(|row| row.len() > table.key.len() + 1) {
            return Err(Error::invalid(format!(
                "values for table `{}`, which has no file that says which types they have; declare its `columns`, or `types` of the source",
                table.name
            )));
        }
        let advice = if self.columns.is_empty() {
            "; name the fields that are wanted under `columns` of the source"
        } else {
            "; correct `columns` of the source"
        };
        let batches = rows::of_objects(&rows, table, asking.columns, advice)?;
        if let (Some(before), Some(now)) = (asked.batches.iter().flatten().next(), batches.first())
            && before.schema() != now.schema()
        {
            return Err(Error::invalid("rows of different columns: those of one page and those of the page before"));
        }
        asked.batches.push(batches);
        Ok(())
    }

    fn unusable(&self, call: &Call, reply: &Reply, error: &Error) -> Error {
        self.requests.api.unusable(call, &without(error.message(), &call.secrets), &reply.body)
    }
}

/// Whether a time is one of the requested interval: of a table with slots, whether its slot is.
fn is_within(request: &Request, grid: Option<SlotGrid>, time: Timestamp) -> bool {
    match grid {
        Some(grid) => grid.slots_in(&request.interval).contains(grid.slot_of(time)),
        None => request.interval.contains(time),
    }
}

/// A request, and what is known of its table.
struct Asking<'a> {
    request: &'a Request,
    columns: Option<&'a Schema>,
    grid: Option<SlotGrid>,
    /// The keys of the request; none if it is for all.
    keys: BTreeSet<&'a Key>,
}

/// A page of an answer.
struct Page {
    rows: Vec<Fields>,
    is_absent: bool,
    /// Whether that it has no rows proves nothing.
    is_unproven: bool,
    /// Whether the pages end before it.
    is_end: bool,
    /// The body without its rows.
    body: Option<Value>,
}

/// A whole answer.
#[derive(Default)]
struct Asked {
    /// The rows of each page.
    batches: Vec<Vec<RecordBatch>>,
    /// The keys of which there are rows.
    keys: BTreeSet<Key>,
    is_absent: bool,
    /// Whether a page proves nothing, so that neither does the answer.
    is_unproven: bool,
    pages: u64,
}

/// The field of a row that is called as a column: exactly, or as the only one regardless of case.
fn field_of_column<'a>(fields: &'a Fields, column: &str) -> Option<(&'a str, &'a Value)> {
    if let Some((name, value)) = fields.get_key_value(column) {
        return Some((name.as_str(), value));
    }
    let mut close = fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(column));
    close.next().filter(|_| close.next().is_none()).map(|(name, value)| (name.as_str(), value))
}

/// A field of a row: by its name, or by a JSON Pointer.
fn field<'a>(fields: &'a Fields, name: &str) -> Option<&'a Value> {
    match name.strip_prefix('/') {
        None => fields.get(name),
        Some(rest) => {
            let (first, deeper) = rest.split_once('/').map_or((rest, None), |(first, deeper)| (first, Some(deeper)));
            let value = fields.get(&first.replace("~1", "/").replace("~0", "~"))?;
            match deeper {
                None => Some(value),
                Some(deeper) => value.pointer(&format!("/{deeper}")),
            }
        }
    }
}

#[async_trait]
impl Source for HttpSource {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn requests_at_worst(&self) -> u64 {
        self.most_pages
    }

    async fn ready(&self) -> Result<()> {
        self.requests.ready()
    }

    async fn fetch(&self, context: &StepContext, request: &Request) -> Result<Answer> {
        self.check(request)?;
        let columns = self.known.of(context, &request.table, Some(&self.types)).await?;
        let asking = Asking { request, columns: columns.as_deref(), grid: request.table.grid().ok(), keys: request.keys.iter().collect() };
        let Asked { mut batches, keys: known, is_absent, is_unproven, pages } = self.ask(context, &asking).await?;
        if self.order == Order::NewestFirst {
            batches.reverse();
        }
        let batches: Vec<RecordBatch> = batches.into_iter().flatten().collect();
        let settled = context
            .clock
            .now()
            .checked_sub(self.settles_after.signed())
            .map_err(|error| Error::invalid("`settles_after` is out of range").because(error))?;
        let interval = Interval::new(request.interval.from(), request.interval.to().min(settled)).ok();
        // A request for all keys is one for whatever there is.
        let (keys, for_all) = if request.keys.is_empty() { (vec![Key::default()], true) } else { (request.keys.clone(), false) };
        let is_known = |key: &Key| if for_all { !known.is_empty() } else { known.contains(key) };
        let vouched = keys.into_iter().filter(|key| !is_unproven && ((is_absent && known.is_empty()) || (self.vouches && is_known(key))));
        let covered = interval.map_or_else(Vec::new, |interval| vouched.map(|key| Covered { key, interval }).collect());
        Ok(Answer::new(batches).with_covered(covered).with_requests(pages).with_said(self.said.clone()))
    }
}
