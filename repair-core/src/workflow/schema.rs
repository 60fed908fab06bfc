//! The workflow language as a JSON Schema, for editors. The language itself is written by hand here; the configuration of plug-ins comes from
//! the registry.

use serde_json::{Map, Value, json};

use super::include::SHARED;
use super::read::{MAX_STRATEGIES, STEP_WORDS};
use crate::error::ErrorKind;
use crate::model::{Cadence, EpochUnit, Format, Key, PartitionUnit, Repeated, Rows, Skipped, TimeMark};
use crate::plugin::{PluginKind, Registry};
use crate::workflow::schedule::Missed;
use crate::workflow::{AfterIf, MailSecurity, MapStep, Occasion, ParamType, RunIf};

/// The JSON Schema (draft 2020-12) of workflows that may use the plug-ins of a registry, and of the files that they include.
///
/// ```
/// use repair_core::plugin::Registry;
/// use repair_core::workflow::schema;
///
/// let schema = schema(&Registry::default());
/// assert!(schema.pointer("/properties/steps").is_some());
/// ```
pub fn schema(registry: &Registry) -> Value {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_-]*$" });
    let named = |inner: Value| json!({ "type": "object", "propertyNames": name, "additionalProperties": inner });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A data-repair workflow, or definitions that workflows include",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "workflow": { "description": "The name of the workflow", "$ref": "#/$defs/name" },
            "kind": { "oneOf": [
                { "const": "state-machine", "description": "Each step names its successors in `next`; a run may go back and skip forward" },
                { "const": "dag", "description": "Each step names its predecessors in `after`; independent steps run side by side" },
            ] },
            "timeout": { "description": "How long a run may take", "$ref": "#/$defs/duration" },
            "max_parallel": { "description": "In a dag: how many steps run at once", "type": "integer", "minimum": 1, "maximum": 1000, "default": 8 },
            "about": { "description": "What the workflow is for", "type": "string" },
            "include": {
                "description": "Files whose `tables`, `sources` and `calendars` this file shares, relative to it",
                "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" }, "uniqueItems": true }]
            },
            "params": named(param()),
            "tags": tags(),
            "budget": budget("How much a run may spend"),
            "schedule": schedule(),
            "prices": { "description": "The file of a price book, relative to this one", "type": "string" },
            "tables": named(table()),
            "sources": named(any_plugin(registry, PluginKind::Source, "source", &json!({ "rate_limit": { "$ref": "#/$defs/rate" } }))),
            "calendars": named(calendar()),
            "start": { "description": "In a state machine: the step that a run begins with", "$ref": "#/$defs/name" },
            "steps": named(json!({ "$ref": "#/$defs/step" })),
            "profiles": named(json!({
                "description": "Where the workflow runs",
                "type": "object", "required": ["lake"], "additionalProperties": false,
                "properties": { "lake": { "type": "string" }, "with": { "type": "object" } }
            })),
            "notify": named(notifier()),
            "lineage": lineage(),
        },
        // A file with nothing else is one that workflows include.
        "if": { "minProperties": 1, "propertyNames": { "enum": SHARED } },
        "else": {
            "required": ["workflow", "kind", "steps"],
            "if": { "properties": { "kind": { "const": "dag" } }, "required": ["kind"] },
            "then": { "not": { "required": ["start"] } },
            "else": { "required": ["start"] },
        },
        "$defs": {
            "name": name,
            "duration": { "description": "500ms, 90s, 15m, 2h, 3d, 1h30m", "type": "string", "pattern": "^([0-9]+(ms|s|m|min|h|d))+$" },
            "zone": { "description": "A time zone: a name such as Europe/Berlin, or an offset such as +02:00", "type": "string" },
            "path": { "description": "A pattern of names of folders and files, e.g. region={region}/year=%Y/month=%m", "type": "string" },
            "column-type": {
                "description": "text, integer, number, boolean, or e.g. decimal(18,4)",
                "type": "string", "pattern": "^(text|integer|number|boolean|decimal\\([0-9]+, *[0-9]+\\))$"
            },
            "rate": { "description": "5/s, 200/min, 1000/h, 10000/d", "type": "string", "pattern": "^ *[0-9]+ */ *(s|sec|second|m|min|minute|h|hour|d|day) *$" },
            "computed": { "description": "A JSONata expression, computed when the run reaches it", "type": "string", "pattern": "^\\s*\\{%[\\s\\S]*%\\}\\s*$" },
            "next": next(),
            "errors": errors(),
            "retry": retry(),
            "catch": {
                "description": "Where the run goes after an error that is not retried",
                "type": "array",
                "items": {
                    "type": "object", "required": ["on", "goto"], "additionalProperties": false,
                    "properties": { "on": { "$ref": "#/$defs/errors" }, "goto": { "$ref": "#/$defs/name" } }
                }
            },
            "step": { "oneOf": steps(registry) },
        },
    })
}

fn notifier() -> Value {
    let variable = |about: &str| json!({ "description": about, "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" });
    let one = |word: &str, about: &str, required: Value, properties: Value| {
        json!({
            "type": "object", "required": [word], "additionalProperties": false,
            "properties": { word: {
                "description": about, "type": "object", "required": required, "additionalProperties": false, "properties": properties
            } }
        })
    };
    let texts = json!({ "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": { "type": "string" } }] });
    let mut webhook = one(
        "webhook",
        "Posts each message as JSON",
        json!([]),
        json!({
            "url": { "description": "Where to; the URL holds no secret", "type": "string" },
            "url_env": variable("The variable that holds the URL"),
            "secret_env": variable("The variable that holds the secret by which messages are signed"),
        }),
    );
    if let Some(inner) = webhook.pointer_mut("/properties/webhook").and_then(Value::as_object_mut) {
        inner.insert("oneOf".to_owned(), json!([{ "required": ["url"] }, { "required": ["url_env"] }]));
    }
    let occasion: Vec<&str> = Occasion::ALL.into_iter().map(|(word, _)| word).collect();
    let occasion = json!({ "enum": occasion });
    json!({
        "description": "Somebody who hears of runs",
        "type": "object", "required": ["to", "on"], "additionalProperties": false,
        "properties": {
            "to": { "description": "Where messages go", "oneOf": [
                webhook,
                one("slack", "Posts to a channel of Slack", json!(["url_env"]), json!({ "url_env": variable("The variable that holds the URL of the webhook") })),
                one("command", "Runs a program, which reads the message as JSON from its input", json!(["run"]), json!({
                    "run": texts,
                    "env": { "description": "Variables that it gets", "anyOf": [variable("A variable"), { "type": "array", "items": variable("A variable") }] },
                })),
                one("email", "Sends mail by SMTP", json!(["to", "from", "server"]), json!({
                    "to": { "description": "The addresses of mailboxes", "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "maxItems": 20, "items": { "type": "string" } }] },
                    "from": { "description": "The address that messages are from", "type": "string" },
                    "server": { "description": "The server that sends mail", "type": "string" },
                    "port": { "description": "Its port [default: 465 with tls, 587 with starttls, 25 with none]", "type": "integer", "minimum": 1, "maximum": 65535 },
                    "security": { "description": "How it is encrypted; `none` only on this machine [default: tls]", "enum": MailSecurity::ALL.map(|(word, _)| word) },
                    "user_env": variable("The variable that holds the user"),
                    "password_env": variable("The variable that holds the password"),
                })),
                one("sns", "Publishes to a topic of Amazon SNS", json!(["topic"]), json!({
                    "topic": { "description": "The ARN of the topic", "type": "string", "pattern": "^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+(\\.fifo)?$" },
                })),
            ] },
            "on": { "description": "What messages are about", "anyOf": [occasion, { "type": "array", "minItems": 1, "items": occasion }] },
            "digest": { "description": "At most one message in this time, which gathers all", "$ref": "#/$defs/duration" },
        }
    })
}

fn lineage() -> Value {
    json!({
        "description": "Where OpenLineage events of runs go",
        "type": "object", "additionalProperties": false,
        "oneOf": [{ "required": ["url"] }, { "required": ["url_env"] }, { "required": ["file"] }],
        "properties": {
            "url": { "description": "Where events are posted, e.g. https://marquez.example/api/v1/lineage", "type": "string" },
            "url_env": { "description": "The variable that holds the URL", "type": "string" },
            "key_env": { "description": "The variable that holds the key for it", "type": "string" },
            "file": { "description": "A file to which events are added, as lines of JSON", "type": "string" },
        }
    })
}

fn calendar() -> Value {
    let hours = json!({
        "description": "closed, 09:30-16:00, or with breaks 09:30-12:00 13:00-16:00; 22:00-05:00 ends on the next day, <17:00 is on the day before",
        "anyOf": [{ "type": "string" }, { "type": "array", "minItems": 1, "items": { "type": "string" } }]
    });
    let date = json!({ "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$" });
    let file = |columns: &str| {
        json!({
            "description": format!("A CSV file with the columns {columns}, relative to this one"),
            "type": "object", "required": ["file"], "additionalProperties": false,
            "properties": { "file": { "type": "string" } }
        })
    };
    json!({
        "description": "A calendar of your own: when rows are expected",
        "type": "object", "additionalProperties": false,
        "oneOf": [{ "required": ["zone", "open"] }, { "required": ["zone", "sessions"] }, { "required": ["extends"] }],
        "properties": {
            "zone": { "description": "The zone of its hours", "$ref": "#/$defs/zone" },
            "open": {
                "description": "The hours of weekdays: mon, tue, wed, thu, fri, sat, sun, or from one to another, as in mon-fri",
                "type": "object", "minProperties": 1, "additionalProperties": hours,
                "propertyNames": { "pattern": "^(mon|tue|wed|thu|fri|sat|sun)(-(mon|tue|wed|thu|fri|sat|sun))?$" }
            },
            "closed": {
                "description": "Days on which it is closed",
                "anyOf": [date, { "type": "array", "items": date }, file("date")]
            },
            "special": {
                "description": "Days with other hours",
                "anyOf": [
                    { "type": "object", "propertyNames": date, "additionalProperties": hours, "not": { "required": ["file"] } },
                    file("date, open")
                ]
            },
            "sessions": file("date, open"),
            "extends": { "description": "Another calendar, whose days it takes over", "type": "string" },
            "until": {
                "description": "With `extends`: the date to which your own days go on where the other calendar ends",
                "type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
            }
        }
    })
}

fn budget(about: &str) -> Value {
    json!({
        "description": about, "type": "object", "minProperties": 1, "additionalProperties": false,
        "properties": {
            "usd": { "description": "Dollars, by the price book", "type": "number", "minimum": 0 },
            "calls": { "description": "Calls to sources; each page of an answer counts as one", "type": "integer", "minimum": 0 },
            "bytes": { "description": "Bytes read, e.g. 10GB", "type": "string", "pattern": "^ *[0-9]+ *(B|[KMGT]B|[KMGT]iB) *$" }
        }
    })
}

fn schedule() -> Value {
    let limits = budget("");
    let mut per_day =
        json!({ "runs": { "description": "How many runs may start", "type": "integer", "minimum": 1, "maximum": 1_000_000 } });
    if let (Some(all), Some(amounts)) = (per_day.as_object_mut(), limits["properties"].as_object()) {
        all.extend(amounts.clone());
    }
    let after = |what: &str, about: &str| {
        json!({
            "type": "object", "required": [what], "additionalProperties": false,
            "properties": { what: { "description": about, "$ref": "#/$defs/name" } }
        })
    };
    let missed: Vec<&str> = Missed::ALL.iter().map(|(word, _)| *word).collect();
    json!({
        "description": "When the workflow starts by itself: `repair serve` runs it, `repair schedule` writes it for cron, systemd or EventBridge",
        "type": "object", "additionalProperties": false,
        "oneOf": [{ "required": ["cron"] }, { "required": ["every"] }, { "required": ["after"] }],
        "properties": {
            "cron": { "description": "Minute, hour, day of the month, month, day of the week, by the clock of `zone`, e.g. 30 17 * * mon-fri", "type": "string" },
            "every": { "description": "At all multiples of this since 1970-01-01T00:00:00Z", "$ref": "#/$defs/duration" },
            "after": {
                "description": "When a run of another workflow, or one that repairs a table or aggregates into it, has succeeded",
                "oneOf": [after("workflow", "Another workflow"), after("table", "A table")]
            },
            "zone": { "description": "The zone of `cron`, `complete_by` and `per_day`; UTC by default", "$ref": "#/$defs/zone" },
            "jitter": { "description": "A run starts up to this much after its tick", "$ref": "#/$defs/duration" },
            "missed": { "description": "What becomes of ticks at which nothing could start: one run for all of them, one for each, or none", "enum": missed, "default": "one" },
            "complete_by": { "description": "The time of day by which the run of the last tick must have succeeded", "type": "string", "pattern": "^[0-2][0-9]:[0-5][0-9](:[0-5][0-9])?$" },
            "params": { "description": "The parameters of these runs", "type": "object" },
            "profile": { "description": "The profile of these runs", "$ref": "#/$defs/name" },
            "per_day": {
                "description": "What the runs that start on one day of `zone` may amount to",
                "type": "object", "minProperties": 1, "additionalProperties": false, "properties": per_day
            }
        }
    })
}

fn param() -> Value {
    let types: Vec<Value> = ParamType::ALL.iter().map(|kind| json!({ "const": kind.as_str(), "description": kind.form() })).collect();
    json!({
        "type": "object", "required": ["type"], "additionalProperties": false,
        "properties": {
            "type": { "oneOf": types },
            "default": { "description": "The value used when none is given; a parameter without a default is required" },
            "about": { "type": "string" },
            "one_of": { "description": "The values allowed", "type": "array", "minItems": 1 },
            "zone": {
                "description": "The zone of dates and instants that are relative to now, such as yesterday; by default, that of the tables' days",
                "$ref": "#/$defs/zone"
            }
        }
    })
}

fn table() -> Value {
    let texts = json!({ "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] });
    let with = |about: &str, schema: &Value| {
        let mut schema = schema.clone();
        schema["description"] = json!(about);
        schema
    };
    json!({
        "type": "object", "required": ["location", "format", "time"], "additionalProperties": false,
        "properties": {
            "location": { "description": "Where its files are: a folder, a file or a glob, absolute or relative to the lake's root", "type": "string" },
            "format": plain::<Format>(),
            "ignore": with("Files that are not data: globs of their names, or of their paths below the location", &texts),
            "csv": csv(),
            "nulls": with("Words that mean that there is no value", &texts),
            "columns": {
                "description": "What is declared about columns: a type, words for no value, a place in nested rows",
                "type": "object",
                "additionalProperties": { "oneOf": [
                    { "$ref": "#/$defs/column-type" },
                    {
                        "type": "object", "additionalProperties": false,
                        "properties": {
                            "type": { "$ref": "#/$defs/column-type" },
                            "nulls": with("Words that mean that there is no value, beside those of the table", &texts),
                            "path": { "description": "Where the values are in nested rows, e.g. quote.last", "type": "string" }
                        }
                    }
                ] }
            },
            "on_bad_row": {
                "description": "What happens to rows that cannot be read",
                "oneOf": [
                    { "enum": ["refuse", "quarantine"] },
                    {
                        "type": "object", "required": ["quarantine"], "additionalProperties": false,
                        "properties": { "quarantine": {
                            "description": "How many rows may be left out: a share of the rows that are read, or a number",
                            "oneOf": [{ "type": "string", "pattern": "^[0-9]+(\\.[0-9]{1,4})? *%$" }, { "type": "integer", "minimum": 0 }]
                        } }
                    }
                ]
            },
            "partition_by": {
                "description": "How folders carry time and keys: a Hive column and its unit, or a pattern such as year=%Y/month=%m/day=%d",
                "oneOf": [
                    {
                        "type": "array", "maxItems": 1,
                        "items": { "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": plain::<PartitionUnit>() }
                    },
                    { "$ref": "#/$defs/path" },
                    {
                        "type": "object", "required": ["path"], "additionalProperties": false,
                        "properties": {
                            "path": { "$ref": "#/$defs/path" },
                            "zone": { "$ref": "#/$defs/zone" },
                            "slack": {
                                "description": "How far from its folder a row may be and still be used; by default, one folder",
                                "$ref": "#/$defs/duration"
                            }
                        }
                    }
                ]
            },
            "key": with("The columns that identify a series; none if the table is one series", &texts),
            "keys": keys(&texts),
            "time": time(&texts),
            "time_marks": plain::<TimeMark>(),
            "zone": { "description": "What a day is; by default, the zone of its times, or else UTC", "$ref": "#/$defs/zone" },
            "cadence": cadence(),
            "rows": plain::<Rows>(),
            "version": with(
                "With `rows: unique`: the column, or the columns, by which the latest of several versions of a row is found; the next decides where one is equal",
                &texts
            ),
            "lookback": {
                "description": "With `rows: unique`: how far apart the versions of a row may lie in time, both ways; 30d by default",
                "$ref": "#/$defs/duration"
            },
            "lake": {
                "description": "The profile that says in which other lake the table is; only queries of sources with the same `lake` see it",
                "$ref": "#/$defs/name"
            },
            "name": { "description": "Of a table in another lake: what it is called there and in queries, if not as here", "$ref": "#/$defs/name" },
            "settles_after": {
                "description": "How long after its end a slot may still be without its row; younger slots are not expected yet",
                "$ref": "#/$defs/duration"
            },
        }
    })
}

fn cadence() -> Value {
    let every = plain::<Cadence>();
    json!({
        "description": "How often a series has a row, and where its slots begin",
        "oneOf": [
            every,
            {
                "type": "object", "required": ["every"], "additionalProperties": false,
                "properties": {
                    "every": every,
                    "at": {
                        "description": "Where slots begin: :30 (of each hour), 17:00, sun 17:00, 15 (of the month) or 04-01 (of the year); days and longer in the zone of the table, others in UTC",
                        "type": "string"
                    },
                    "tolerance": {
                        "description": "How far a row's time may be from that of its slot, either way; by default it must be exact",
                        "$ref": "#/$defs/duration"
                    },
                    "misaligned": {
                        "description": "How many rows may be further from their slot than that: a share such as 5%, which is the default, or a number",
                        "type": ["string", "integer"]
                    },
                    "before": {
                        "description": "The cadence before a date on which it changed, e.g. { 2025-10-01: 1h }",
                        "type": "object", "minProperties": 1, "propertyNames": { "format": "date" }, "additionalProperties": every
                    }
                }
            }
        ]
    })
}

fn keys(texts: &Value) -> Value {
    json!({
        "description": "The keys that are expected, unless a step says otherwise: a list, a file, or another table that lists them",
        "anyOf": [
            { "type": "array", "minItems": 1, "items": plain::<Key>() },
            {
                "type": "object", "required": ["file"], "additionalProperties": false,
                "properties": { "file": { "description": "A CSV file with the key columns, relative to this one", "type": "string" } }
            },
            {
                "type": "object", "required": ["table"], "additionalProperties": false,
                "properties": {
                    "table": { "description": "The table with a row for each key", "type": "string" },
                    "columns": texts,
                    "since": { "description": "Its column with the date or time from which a key is expected", "type": "string" },
                    "until": { "description": "Its column with the last date on which a key is expected, or the time from which it no longer is", "type": "string" },
                    "calendar": { "description": "Its column with the name of the calendar of a key", "type": "string" },
                    "cadence": { "description": "Its column with the cadence of a key, that of the table or a longer one", "type": "string" }
                }
            }
        ]
    })
}

fn csv() -> Value {
    let character = |about: &str| json!({ "description": about, "type": "string", "minLength": 1, "maxLength": 5 });
    json!({
        "description": "How its files are written, if they are CSV",
        "type": "object", "additionalProperties": false,
        "properties": {
            "delimiter": character("The character between fields, or `tab` or `space`"),
            "quote": character("The character around fields that contain a delimiter, or `none`"),
            "decimal": character("The decimal mark of numbers"),
            "thousands": character("The mark between groups of three digits"),
            "encoding": { "enum": ["utf8", "utf-8", "utf16", "utf-16", "utf16le", "utf16be", "latin1", "iso-8859-1", "windows-1252"] },
            "header": { "description": "Whether the first record names the columns", "type": "boolean" },
            "names": { "description": "The names of the columns, if there is no header, or instead of those in it", "type": "array", "items": { "type": "string" } },
            "comment": character("Lines that begin with this character are not records"),
            "skip_lines": { "description": "How many lines come before the header", "type": "integer", "minimum": 0, "maximum": 100_000 },
            "trim": { "description": "Whether spaces around fields and names are removed", "type": "boolean" },
            "final_newline": { "description": "Whether the last line of a file must end with a line break, as it may be cut off otherwise", "enum": ["optional", "required"] }
        }
    })
}

fn time(texts: &Value) -> Value {
    let unit = plain::<EpochUnit>();
    json!({
        "description": "The time column, or how the time of a row is read",
        "oneOf": [
            { "type": "string" },
            {
                "type": "object", "additionalProperties": false,
                "properties": {
                    "column": { "type": "string" },
                    "columns": texts,
                    "name": { "description": "What to call the time, if it is in several columns or in the path; by default, ts", "type": "string" },
                    "format": { "description": "A pattern of strptime, e.g. %d.%m.%Y %H:%M", "type": "string" },
                    "epoch": {
                        "description": "The unit of times that are numbers since 1970, or several units",
                        "oneOf": [unit, { "type": "array", "minItems": 1, "items": unit }]
                    },
                    "path": { "$ref": "#/$defs/path" },
                    "zone": { "$ref": "#/$defs/zone" },
                    "repeated": plain::<Repeated>(),
                    "skipped": plain::<Skipped>(),
                    "marks": plain::<TimeMark>()
                }
            }
        ]
    })
}

fn plain<T: schemars::JsonSchema>() -> Value {
    let mut schema = schemars::schema_for!(T).to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.remove("title");
    }
    schema
}

fn tags() -> Value {
    json!({
        "description": "Tags on everything that it costs",
        "type": "object", "additionalProperties": { "type": ["string", "number", "boolean"] }
    })
}

fn next() -> Value {
    json!({
        "description": "Where the run goes next: a step, or branches, of which the first that applies is taken",
        "oneOf": [
            { "$ref": "#/$defs/name" },
            {
                "type": "array", "minItems": 1,
                "items": {
                    "type": "object", "required": ["goto"], "additionalProperties": false,
                    "properties": {
                        "when": { "description": "A JSONata condition; without one the branch is always taken", "type": "string" },
                        "goto": { "$ref": "#/$defs/name" }
                    }
                }
            }
        ]
    })
}

fn errors() -> Value {
    let kinds: Vec<&str> = ErrorKind::ALL.into_iter().filter(|kind| *kind != ErrorKind::Cancelled).map(ErrorKind::as_str).collect();
    let any: Vec<&str> = kinds.iter().copied().chain(["any"]).collect();
    json!({
        "description": "Kinds of errors; `any` means all but `budget` and `blind`",
        "oneOf": [{ "enum": any }, { "type": "array", "minItems": 1, "items": { "enum": any } }]
    })
}

fn retry() -> Value {
    json!({
        "description": "Which errors are retried; the first rule that names the error applies",
        "type": "array",
        "items": {
            "type": "object", "required": ["on"], "additionalProperties": false,
            "properties": {
                "on": { "$ref": "#/$defs/errors" },
                "attempts": { "description": "The number of retries", "type": "integer", "minimum": 0, "maximum": 1000, "default": 3 },
                "interval": { "description": "The wait before the first retry; default 1s", "$ref": "#/$defs/duration" },
                "backoff": { "description": "The factor by which each wait is longer than the one before", "type": "number", "minimum": 1, "maximum": 100, "default": 2 },
                "max_interval": { "description": "The longest wait", "$ref": "#/$defs/duration" },
                "jitter": { "description": "Whether the wait is as computed (none) or drawn at random, from zero to the computed one (full)", "enum": ["none", "full"], "default": "none" }
            }
        }
    })
}

/// One alternative for each word that can begin a step.
fn steps(registry: &Registry) -> Vec<Value> {
    let of = json!({ "description": "The detect step whose findings the step works on", "$ref": "#/$defs/name" });
    let repair = json!({
        "of": of,
        "concurrency": { "description": "How many units run at once", "type": "integer", "minimum": 1, "maximum": 256, "default": 4 },
        "budget": budget("How much the step may spend, over all its visits and strategies"),
        "tags": tags(),
        "rate_limit": { "description": "How many units may begin within how much time", "$ref": "#/$defs/rate" },
        "tolerate": tolerate("units"),
        "give_up_after": { "description": "After so many runs that asked for a slot in vain, it is given up, and no run asks for it any more", "type": "integer", "minimum": 1, "maximum": 10_000 }
    });
    let wait = json!({
        "type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": false,
        "properties": {
            "for": { "description": "How long", "anyOf": [{ "$ref": "#/$defs/duration" }, { "$ref": "#/$defs/computed" }] },
            "until": {
                "description": "An instant, or a condition on the reading of a sensor",
                "anyOf": [{ "type": "string", "format": "date-time" }, { "$ref": "#/$defs/computed" }, sensor(registry), said("event", "The event that `repair signal` says"), said("approval", "What a person is to approve")]
            }
        }
    });
    let branches = json!({
        "description": "Branches, by name, each a state machine of its own; the step ends when all branches have ended",
        "type": "object", "minProperties": 1, "propertyNames": { "$ref": "#/$defs/name" },
        "additionalProperties": {
            "type": "object", "required": ["start", "steps"], "additionalProperties": false,
            "properties": {
                "start": { "description": "The step that the branch begins with", "$ref": "#/$defs/name" },
                "steps": { "type": "object", "propertyNames": { "$ref": "#/$defs/name" }, "additionalProperties": { "$ref": "#/$defs/step" } }
            }
        }
    });
    STEP_WORDS
        .into_iter()
        .map(|word| match word {
            "detect" => going_on(any_plugin(registry, PluginKind::Detector, word, &json!({}))),
            "repair" => going_on(required(strategies(registry, any_plugin(registry, PluginKind::Repairer, word, &repair)), "of")),
            "aggregate" => going_on(any_plugin(registry, PluginKind::Aggregator, word, &json!({ "of": of }))),
            "task" => going_on(any_plugin(registry, PluginKind::Task, word, &json!({}))),
            "verify" => going_on(plain_step(
                word,
                &json!({ "description": "The detect step whose findings are checked again", "$ref": "#/$defs/name" }),
            )),
            "wait" => going_on(plain_step(word, &wait)),
            "parallel" => going_on(plain_step(word, &branches)),
            "map" => going_on(map()),
            "workflow" => {
                let mut step =
                    plain_step(word, &json!({ "description": "The file of another workflow, relative to this one", "type": "string" }));
                if let Some(properties) = step.get_mut("properties").and_then(Value::as_object_mut) {
                    properties.insert("with".to_owned(), json!({ "description": "The values of its parameters", "type": "object" }));
                }
                going_on(step)
            }
            "fail" => plain_step(word, &json!({ "description": "Ends the run as failed, with this reason", "type": "string" })),
            _ => plain_step(word, &json!({ "description": "Ends the run as succeeded", "enum": [true, null] })),
        })
        .collect()
}

fn tolerate(what: &str) -> Value {
    json!({
        "description": format!("How many {what} may fail: a number, or a percentage of all"),
        "type": "object", "required": ["failed"], "additionalProperties": false,
        "properties": { "failed": { "oneOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": "^ *[0-9.]+ *% *$" }] } }
    })
}

/// A step that runs steps, or another workflow, for each item of a list.
fn map() -> Value {
    let over = json!({
        "description": "The list, written out or computed, or the rows of a query",
        "anyOf": [
            { "type": "array", "maxItems": MapStep::MAX_ITEMS },
            { "$ref": "#/$defs/computed" },
            {
                "type": "object", "required": ["rows"], "additionalProperties": false,
                "properties": {
                    "rows": { "description": "A query; each row is an item, with its columns by name", "type": "string" },
                    "values": { "description": "Values that the query may name, as `:name`", "type": "object" }
                }
            }
        ]
    });
    json!({
        "type": "object", "required": ["map"], "additionalProperties": false,
        "oneOf": [{ "required": ["steps"] }, { "required": ["workflow"] }],
        "properties": {
            "map": { "type": "object", "required": ["over"], "additionalProperties": false, "properties": { "over": over } },
            "as": { "description": "The variable that holds the item; default `item`", "type": "string", "pattern": "^[A-Za-z_][A-Za-z0-9_]*$" },
            "concurrency": { "description": "How many items run at once", "type": "integer", "minimum": 1, "maximum": 256, "default": 4 },
            "tolerate": tolerate("items"),
            "kind": { "description": "Of the steps within: how they follow each other", "enum": ["state-machine", "dag"], "default": "state-machine" },
            "max_parallel": { "description": "Of the steps within, in a dag: how many run at once", "type": "integer", "minimum": 1, "maximum": 1000, "default": 8 },
            "start": { "description": "The step that each item begins with", "$ref": "#/$defs/name" },
            "steps": {
                "description": "What runs for each item, which they know as `$item`, and its number as `$index`",
                "type": "object", "propertyNames": { "$ref": "#/$defs/name" }, "additionalProperties": { "$ref": "#/$defs/step" }
            },
            "workflow": { "description": "The file of another workflow that runs for each item, relative to this one", "type": "string" },
            "with": { "description": "The values of its parameters, which may use the item", "type": "object" }
        }
    })
}

fn plain_step(word: &str, value: &Value) -> Value {
    json!({ "type": "object", "required": [word], "additionalProperties": false, "properties": { word: value } })
}

/// A repair step that may list strategies instead of naming one plug-in.
fn strategies(registry: &Registry, mut step: Value) -> Value {
    let further = json!({
        "name": { "description": "The name within the step; default: that of the plug-in", "$ref": "#/$defs/name" },
        "retry": { "$ref": "#/$defs/retry" },
        "budget": budget("How much the strategy may spend, over all visits of the step"),
        "tags": tags(),
    });
    let list = json!({
        "description": "Strategies, in order: what one cannot fix goes to the next",
        "type": "array", "minItems": 1, "maxItems": MAX_STRATEGIES,
        "items": any_plugin(registry, PluginKind::Repairer, "strategy", &further)
    });
    if let Some(names) = step.pointer_mut("/properties/repair/oneOf").and_then(Value::as_array_mut) {
        names.push(list);
    }
    step
}

fn required(mut step: Value, name: &str) -> Value {
    if let Some(required) = step.get_mut("required").and_then(Value::as_array_mut) {
        required.push(json!(name));
    }
    step
}

/// A step with the fields of every step that does not end the run.
fn going_on(mut step: Value) -> Value {
    if let Some(properties) = step.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("next".to_owned(), json!({ "$ref": "#/$defs/next" }));
        properties.insert("end".to_owned(), json!({ "description": "The run ends after this step", "const": true }));
        properties.insert("retry".to_owned(), json!({ "$ref": "#/$defs/retry" }));
        properties.insert("catch".to_owned(), json!({ "$ref": "#/$defs/catch" }));
        let visits = json!({ "description": "How often a run may come to this step", "type": "integer", "minimum": 1 });
        properties.insert("max_visits".to_owned(), visits);
        properties.insert("timeout".to_owned(), json!({ "description": "How long one attempt may take", "$ref": "#/$defs/duration" }));
        let heartbeat = json!({ "description": "How long an attempt may run without a sign of progress", "$ref": "#/$defs/duration" });
        properties.insert("heartbeat".to_owned(), heartbeat);
        let one = json!({
            "description": "In a dag: the steps that come before; or a mapping that says how each must have ended",
            "oneOf": [
                { "$ref": "#/$defs/name" },
                { "type": "array", "items": { "$ref": "#/$defs/name" } },
                {
                    "type": "object", "minProperties": 1, "propertyNames": { "$ref": "#/$defs/name" },
                    "additionalProperties": { "enum": AfterIf::ALL.map(|(word, _)| word) }
                }
            ]
        });
        properties.insert("after".to_owned(), one);
        let run_if = json!({ "description": "In a dag: how the steps before must have ended", "enum": RunIf::ALL.map(|(word, _)| word), "default": "all_succeeded" });
        properties.insert("run_if".to_owned(), run_if);
    }
    if let Some(step) = step.as_object_mut() {
        step.insert("if".to_owned(), json!({ "properties": { "after": { "type": "object" } }, "required": ["after"] }));
        step.insert("then".to_owned(), json!({ "not": { "required": ["run_if"] } }));
    }
    step
}

/// A wait until something is said.
fn said(word: &str, what: &str) -> Value {
    json!({
        "type": "object", "required": [word], "additionalProperties": false,
        "properties": {
            word: { "description": what, "type": "string" },
            "every": { "description": "How often it is looked for; default 5s", "$ref": "#/$defs/duration" },
            "timeout": { "description": "The longest wait", "$ref": "#/$defs/duration" }
        }
    })
}

/// A wait until a condition on the reading of a sensor holds.
fn sensor(registry: &Registry) -> Value {
    let further = json!({
        "when": { "description": "A JSONata condition on the reading, `$output`; without one, the reading must be true", "type": "string" },
        "every": { "description": "How often the sensor is read; default 30s", "$ref": "#/$defs/duration" },
        "timeout": { "description": "The longest wait", "$ref": "#/$defs/duration" }
    });
    any_plugin(registry, PluginKind::Sensor, "sensor", &further)
}

/// A mapping that names a plug-in of a kind, with that plug-in's configuration under `with`, and `further` fields.
fn any_plugin(registry: &Registry, kind: PluginKind, word: &str, further: &Value) -> Value {
    let entries = || registry.entries().filter(|entry| entry.kind == kind);
    let names: Vec<Value> = entries().map(|entry| json!({ "const": entry.name, "description": entry.about })).collect();
    let mut properties = Map::from_iter([(word.to_owned(), json!({ "oneOf": names })), ("with".to_owned(), json!({ "type": "object" }))]);
    properties.extend(further.as_object().cloned().unwrap_or_default());
    let takes: Vec<Value> = entries()
        .map(|entry| {
            let with = computable(entry.schema(), entry.schema(), 0);
            json!({
                "if": { "properties": { word: { "const": entry.name } }, "required": [word] },
                "then": { "properties": { "with": with } }
            })
        })
        .collect();
    json!({ "type": "object", "required": [word], "additionalProperties": false, "properties": properties, "allOf": takes })
}

/// A plug-in's schema, in which every value may be computed instead. References are expanded, because they point into the plug-in's own schema.
fn computable(schema: &Value, root: &Value, depth: usize) -> Value {
    const MAX_DEPTH: usize = 16;
    if depth > MAX_DEPTH {
        return json!({});
    }
    let Some(object) = schema.as_object() else { return schema.clone() };
    if let Some(inner) = object.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix('#')).and_then(|at| root.pointer(at))
    {
        return computable(inner, root, depth + 1);
    }
    let mut written = Map::new();
    for (key, value) in object {
        match (key.as_str(), value) {
            ("$schema" | "$defs" | "title", _) => {}
            ("properties", Value::Object(properties)) => {
                let each = properties.iter().map(|(name, inner)| {
                    let inner = computable(inner, root, depth + 1);
                    let description = inner.get("description").map(|text| ("description".to_owned(), text.clone()));
                    let either = ("anyOf".to_owned(), json!([inner, { "$ref": "#/$defs/computed" }]));
                    (name.clone(), Value::Object(description.into_iter().chain([either]).collect()))
                });
                written.insert(key.clone(), Value::Object(each.collect()));
            }
            ("items" | "additionalProperties", inner) => {
                written.insert(key.clone(), computable(inner, root, depth + 1));
            }
            ("anyOf" | "oneOf" | "allOf", Value::Array(all)) => {
                written.insert(key.clone(), all.iter().map(|inner| computable(inner, root, depth + 1)).collect());
            }
            _ => {
                written.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(written)
}
