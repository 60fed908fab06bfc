//! The source `http`: asks an API, which a workflow describes, for the rows of some keys and an interval.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use repair_core::builtin::Period;
use repair_core::lake::shape;
use repair_core::model::{Interval, Key, SlotGrid};
use repair_core::plugin::{Answer, Covered, Limits, Registry, Request, Source, StepContext};
use repair_core::{Error, Result};
use reqwest::Method;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::allowed::Options;
use crate::columns::TableColumns;
use crate::http::answers::{AnswerRule, Means, meaning};
use crate::http::api::{Call, Paging, Reply, most_pages};
use crate::http::pages::{Onward, Pages, PagesConfig};
use crate::http::request::{Requests, config, set_parameter};
use crate::http::shape::{Fields, RowsConfig, Shape};
use crate::http::times::{TimeConfig, Times};
use crate::http::{NAME, WORDS};
use crate::rows;
use crate::secret::without;

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
        /// The fields with the values of the key columns, in their order. By default those of their names; if a row has none, the key is the one that was asked for.
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
    }
}

pub(super) fn register(registry: &mut Registry, options: &Options) {
    let options = options.clone();
    registry.source(NAME, "asks an API for missing rows", move |config: HttpSourceConfig| HttpSource::new(&config, &options));
}

struct HttpSource {
    requests: Requests,
    shape: Shape,
    columns: BTreeMap<String, String>,
    optional: BTreeMap<String, String>,
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
    known: TableColumns,
}

/// The values of a request, by name. Those of the second list may say how they are written.
const VALUES: [&str; 7] = ["from", "to", "last", "key", "keys", "limit", "table"];
const FORMATTED: [&str; 4] = ["from", "to", "last", "key"];

impl HttpSource {
    fn new(config: &HttpSourceConfig, options: &Options) -> Result<Self> {
        let limits = Limits::new(config.rows_per_request.unwrap_or(ROWS), config.keys_per_request.unwrap_or(1));
        if limits.rows_per_request == 0 || limits.keys_per_request == 0 {
            return Err(Error::invalid("`rows_per_request` and `keys_per_request` must be at least 1; correct them, or remove them"));
        }
        config.answers.iter().try_for_each(AnswerRule::check)?;
        let requests = Requests::new(config.request(), Method::GET, &VALUES, &FORMATTED, &options.environment)?;
        if limits.keys_per_request > 1 && requests.uses("key") {
            return Err(Error::invalid(
                "`{key}` stands for one key, and `keys_per_request` is more than 1; write `{keys}`, which are joined by commas, or ask for one key at a time",
            ));
        }
        let pages = Pages::new(config.pages.as_ref())?;
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
        if shape.is_csv()
            && matches!(
                &pages,
                Pages::Token { at: crate::http::pages::Place::Body(_), .. } | Pages::Next(crate::http::pages::Place::Body(_))
            )
        {
            return Err(Error::invalid(
                "a body of CSV has no place for a token or an address; use `token_header`, `link`, `page` or `after`",
            ));
        }
        Ok(Self {
            requests,
            shape,
            columns: config.columns.clone(),
            optional: config.optional.clone(),
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
            known: TableColumns::default(),
        })
    }

    /// The first request.
    fn first(&self, context: &StepContext, request: &Request) -> Result<Call> {
        let grid = request.table.grid().ok();
        let (from, to) = (request.interval.from(), request.interval.to());
        let last = match grid {
            Some(grid) => grid.start_of(grid.slots_in(&request.interval).end - 1),
            None => to.checked_sub(SignedDuration::from_micros(1)).unwrap_or(to),
        };
        let text = |key: &Key| key.values().collect::<Vec<_>>().join("/");
        let value = |name: &str, form: Option<&str>| match name {
            "from" => self.times.written(from, form),
            "to" => self.times.written(to, form),
            "last" => self.times.written(last, form),
            "key" => {
                let key =
                    request.keys.first().ok_or_else(|| Error::invalid("`{key}` stands for a key, and this request is for all keys"))?;
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
            "keys" => Ok(request.keys.iter().map(text).collect::<Vec<_>>().join(",")),
            "limit" => Ok(self.limits.rows_per_request.to_string()),
            "table" => Ok(request.table.name.clone()),
            other => Err(Error::internal(format!("no value for `{{{other}}}`"))),
        };
        let id = format!("{}/{}", context.run, context.step);
        let mut call = self.requests.call(context, &id, &value)?;
        if let Pages::Number { parameter, first } = &self.pages {
            set_parameter(&mut call.url, parameter, &first.to_string());
        }
        Ok(call)
    }

    /// What a reply is: the rows of a page and its body, or none.
    fn page(&self, context: &StepContext, call: &Call, reply: &Reply) -> Result<Page> {
        let body: Option<Value> = if self.shape.is_csv() { None } else { serde_json::from_slice(&reply.body).ok() };
        let means = meaning(&self.answers, reply.status.as_u16(), body.as_ref());
        if let Some(kind) = means.and_then(Means::kind) {
            return Err(self.requests.api.refused_as(context, call, reply, kind));
        }
        if means.is_none() && !reply.status.is_success() {
            return Err(self.requests.api.refusal(context, call, reply));
        }
        self.requests.check_secrets(call, &reply.body)?;
        match means {
            Some(Means::Empty) => return Ok(Page { rows: Vec::new(), is_absent: false, body }),
            Some(Means::Absent) => return Ok(Page { rows: Vec::new(), is_absent: true, body }),
            _ => {}
        }
        if self.shape.is_csv() {
            return Ok(Page { rows: of_csv(&reply.body).map_err(|error| self.unusable(call, reply, &error))?, is_absent: false, body });
        }
        let value: Value = self.requests.api.read(call, reply)?;
        let rows = self.shape.rows(value).map_err(|error| self.unusable(call, reply, &error))?;
        Ok(Page { rows, is_absent: false, body })
    }

    fn unusable(&self, call: &Call, reply: &Reply, error: &Error) -> Error {
        self.requests.api.unusable(call, &without(error.message(), &call.secrets), &reply.body)
    }

    /// A row with the table's columns, and its time.
    fn row(
        &self,
        request: &Request,
        columns: Option<&Schema>,
        grid: Option<SlotGrid>,
        fields: &Fields,
    ) -> Result<(Timestamp, Map<String, Value>)> {
        let table = &request.table;
        let time_field = self.time_field.as_deref().unwrap_or(&table.time);
        let time = field(fields, time_field).filter(|time| !time.is_null());
        let time = time.ok_or_else(|| Error::invalid(format!("a row without the field `{time_field}`, its time")))?;
        let time = self.times.of_row(self.times.read(time)?, grid);
        let mut row = Map::new();
        for (number, column) in table.key.iter().enumerate() {
            let name = self.key.get(number).unwrap_or(column);
            let value = match (field(fields, name), request.keys.as_slice()) {
                (Some(value), _) if !value.is_null() => value.clone(),
                (_, [only]) if self.limits.keys_per_request == 1 => {
                    only.values().nth(number).map(Value::from).ok_or_else(|| Error::internal("a key has too few values"))?
                }
                _ => {
                    return Err(Error::invalid(format!(
                        "a row without the field `{name}`, a part of its key; write the fields under `key`"
                    )));
                }
            };
            row.insert(column.clone(), value);
        }
        row.insert(table.time.clone(), time.to_string().into());
        if self.columns.is_empty() {
            let is_own =
                |name: &str| name == time_field || self.key.iter().chain(&table.key).any(|key| key == name) || row.contains_key(name);
            let others: Vec<(String, Value)> =
                fields.iter().filter(|(name, _)| !is_own(name)).map(|(name, value)| (name.clone(), value.clone())).collect();
            row.extend(others);
        }
        for (column, name) in &self.columns {
            let value = field(fields, name)
                .ok_or_else(|| Error::invalid(format!("a row without the field `{name}`, which is column `{column}`")))?;
            row.insert(column.clone(), value.clone());
        }
        for (column, name) in &self.optional {
            if columns.is_some_and(|columns| matches!(shape::find(columns, column), Ok(Some(_)))) {
                row.insert(column.clone(), field(fields, name).cloned().unwrap_or(Value::Null));
            }
        }
        Ok((time, row))
    }

    /// All pages of a request.
    async fn ask(&self, context: &StepContext, request: &Request, columns: Option<&Schema>) -> Result<Asked> {
        let grid = request.table.grid().ok();
        let possible = match (grid, self.outside) {
            (Some(grid), Outside::Refuse) if !request.keys.is_empty() => {
                grid.slots_in(&request.interval).len().saturating_mul(request.keys.len() as u64)
            }
            _ => u64::MAX,
        };
        let mut paging = Paging::new(self.requests.provider.clone(), WORDS, self.most_pages, possible);
        let first = self.first(context, request)?;
        let mut call = first.clone();
        let mut asked = Asked { rows: Vec::new(), is_absent: false, pages: 0 };
        let mut seen: BTreeSet<String> = BTreeSet::new();
        loop {
            let reply = self.requests.api.send(context, &call).await?;
            let page = self.page(context, &call, &reply)?;
            asked.is_absent |= page.is_absent;
            let (mut new, mut latest) = (0, None);
            for fields in &page.rows {
                let (time, row) = self.row(request, columns, grid, fields).map_err(|error| self.unusable(&call, &reply, &error))?;
                // Pages that are asked for by time overlap where they meet.
                let repeats = matches!(self.pages, Pages::After { .. }) && !seen.insert(identity(request, &row));
                if repeats {
                    continue;
                }
                new += 1;
                latest = latest.max(Some(time));
                if self.outside == Outside::Refuse || request.interval.contains(time) || marks_slot_in(request, grid, time) {
                    asked.rows.push(row);
                }
            }
            let onward = match &self.pages {
                Pages::Number { parameter, first } if !page.rows.is_empty() => {
                    Some(Onward::Parameter(parameter.clone(), first.saturating_add(paging.pages() + 1).to_string()))
                }
                Pages::After { parameter, form } => match latest {
                    Some(latest) => Some(Onward::Parameter(parameter.clone(), self.times.written(latest, form.as_deref())?)),
                    None => None,
                },
                pages => pages.onward(&self.requests.provider, &call.url, &reply.headers, page.body.as_ref())?,
            };
            let token = onward.as_ref().map(|onward| match onward {
                Onward::Parameter(_, value) => value.clone(),
                Onward::Address(url) => url.to_string(),
            });
            paging.turn(new, token.as_deref())?;
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
}

/// Whether a time marks a slot of the requested interval, where it marks the end of a slot.
fn marks_slot_in(request: &Request, grid: Option<SlotGrid>, time: Timestamp) -> bool {
    grid.is_some_and(|grid| grid.slots_in(&request.interval).contains(grid.slot_of(time)))
}

/// What makes two rows the same.
fn identity(request: &Request, row: &Map<String, Value>) -> String {
    let table = &request.table;
    let values: Vec<String> =
        table.key.iter().chain([&table.time]).map(|name| row.get(name).map(Value::to_string).unwrap_or_default()).collect();
    values.join("\n")
}

/// A page of an answer.
struct Page {
    rows: Vec<Fields>,
    is_absent: bool,
    body: Option<Value>,
}

/// A whole answer.
struct Asked {
    rows: Vec<Map<String, Value>>,
    is_absent: bool,
    pages: u64,
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

fn of_csv(body: &[u8]) -> Result<Vec<Fields>> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    let broken = |error: csv::Error| Error::invalid(format!("something that is not CSV ({error})"));
    let mut reader = csv::ReaderBuilder::new().flexible(false).from_reader(body);
    let names: Vec<String> = reader.headers().map_err(broken)?.iter().map(|name| name.trim().to_owned()).collect();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(broken)?;
        let value = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        rows.push(names.iter().cloned().zip(record.iter().map(value)).collect());
    }
    Ok(rows)
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
        let columns = self.known.of(context, &request.table).await?;
        let Asked { mut rows, is_absent, pages } = self.ask(context, request, columns.as_deref()).await?;
        if self.order == Order::NewestFirst {
            rows.reverse();
        }
        let provider = &self.requests.provider;
        let batches = rows::of_objects(&rows, &request.table, columns.as_deref())
            .map_err(|error| Error::invalid(format!("{provider} answered with {}; the answer was discarded", error.message())))?;
        let settled = context
            .clock
            .now()
            .checked_sub(self.settles_after.signed())
            .map_err(|error| Error::invalid("`settles_after` is out of range").because(error))?;
        let interval = Interval::new(request.interval.from(), request.interval.to().min(settled)).ok();
        let is_known = |key: &Key| {
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let matches = |row: &Map<String, Value>| {
                request.table.key.iter().zip(key.values()).all(|(name, value)| row.get(name).map(text).as_deref() == Some(value))
            };
            rows.iter().any(matches)
        };
        let keys: Vec<Key> = if request.keys.is_empty() { vec![Key::default()] } else { request.keys.clone() };
        let vouched = keys.into_iter().filter(|key| (is_absent && rows.is_empty()) || (self.vouches && is_known(key)));
        let covered = interval.map_or_else(Vec::new, |interval| vouched.map(|key| Covered { key, interval }).collect());
        Ok(Answer::new(batches).with_covered(covered).with_requests(pages).with_said(provider.clone()))
    }
}
