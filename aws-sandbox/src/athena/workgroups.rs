//! Workgroups: where results go, how much a query may scan, and the tags that the bill is split by.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::server::AwsError;

/// Athena's limit for an account.
const MAX_WORKGROUPS: usize = 1_000;

/// A workgroup.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Workgroup {
    pub(super) name: String,
    description: Option<String>,
    enabled: bool,
    /// As it was sent: `ResultConfiguration`, `EnforceWorkGroupConfiguration`, `BytesScannedCutoffPerQuery`, …
    configuration: Value,
    tags: BTreeMap<String, String>,
    created: f64,
}

impl Workgroup {
    fn new(name: &str, configuration: Value) -> Self {
        Self {
            name: name.to_owned(),
            description: None,
            enabled: true,
            configuration,
            tags: BTreeMap::new(),
            created: crate::catalog::now_seconds(),
        }
    }

    /// Whether the workgroup's settings override those of a request.
    pub(super) fn enforces(&self) -> bool {
        self.configuration.get("EnforceWorkGroupConfiguration").and_then(Value::as_bool).unwrap_or(true)
    }

    /// Where results go.
    pub(super) fn output_location(&self) -> Option<&str> {
        self.configuration.pointer("/ResultConfiguration/OutputLocation")?.as_str().filter(|location| !location.is_empty())
    }

    /// Whether Athena keeps results itself, so that none is written to S3.
    pub(super) fn manages_results(&self) -> bool {
        self.configuration.pointer("/ManagedQueryResultsConfiguration/Enabled").and_then(Value::as_bool).unwrap_or(false)
    }

    /// How much a query may scan.
    pub(super) fn cutoff_bytes(&self) -> Option<u64> {
        self.configuration.get("BytesScannedCutoffPerQuery")?.as_u64()
    }

    fn describe(&self) -> Value {
        let mut configuration = self.configuration.clone();
        if let Some(members) = configuration.as_object_mut() {
            members.entry("EnforceWorkGroupConfiguration").or_insert(json!(true));
            members.entry("PublishCloudWatchMetricsEnabled").or_insert(json!(true));
            members.entry("RequesterPaysEnabled").or_insert(json!(false));
            members.insert("EngineVersion".to_owned(), engine_version());
        }
        let mut described = json!({
            "Name": self.name,
            "State": if self.enabled { "ENABLED" } else { "DISABLED" },
            "Configuration": configuration,
            "CreationTime": self.created,
        });
        if let (Some(members), Some(description)) = (described.as_object_mut(), &self.description) {
            members.insert("Description".to_owned(), json!(description));
        }
        described
    }
}

pub(super) fn engine_version() -> Value {
    json!({ "SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3" })
}

/// All workgroups. `primary` exists from the start, and has no place for results.
#[derive(Debug)]
pub(super) struct Workgroups(BTreeMap<String, Workgroup>);

impl Default for Workgroups {
    fn default() -> Self {
        let primary = Workgroup::new("primary", json!({ "EnforceWorkGroupConfiguration": false }));
        Self([(primary.name.clone(), primary)].into())
    }
}

fn text<'a>(input: &'a Value, member: &str) -> Option<&'a str> {
    input.get(member).and_then(Value::as_str)
}

fn invalid(message: impl Into<String>) -> AwsError {
    AwsError::new("InvalidRequestException", message)
}

impl Workgroups {
    pub(super) fn get(&self, name: &str) -> Result<&Workgroup, AwsError> {
        self.0.get(name).ok_or_else(|| invalid(format!("WorkGroup {name} is not found.")))
    }

    pub(super) fn enabled(&self, name: &str) -> Result<&Workgroup, AwsError> {
        let workgroup = self.get(name)?;
        if workgroup.enabled { Ok(workgroup) } else { Err(invalid(format!("WorkGroup {name} is disabled."))) }
    }

    pub(super) fn describe(&self, input: &Value) -> Result<Value, AwsError> {
        let name = text(input, "WorkGroup").ok_or_else(|| invalid("WorkGroup is missing."))?;
        Ok(json!({ "WorkGroup": self.get(name)?.describe() }))
    }

    pub(super) fn create(&mut self, input: &Value) -> Result<Value, AwsError> {
        let name = text(input, "Name").unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 128 || !name.chars().all(allowed) {
            return Err(invalid(format!("WorkGroup name '{name}' must match [a-zA-Z0-9._-]{{1,128}}")));
        }
        if self.0.contains_key(name) {
            return Err(invalid("WorkGroup is already created"));
        }
        if self.0.len() >= MAX_WORKGROUPS {
            return Err(invalid(format!("The account has {MAX_WORKGROUPS} workgroups, which is the most it may have.")));
        }
        let configuration = match input.get("Configuration") {
            Some(configuration) if configuration.is_object() => configuration.clone(),
            _ => json!({}),
        };
        let mut workgroup = Workgroup::new(name, configuration);
        check_cutoff(&workgroup)?;
        check_results(&workgroup)?;
        workgroup.description = text(input, "Description").map(str::to_owned);
        workgroup.tags = tags(input.get("Tags"))?;
        self.0.insert(name.to_owned(), workgroup);
        Ok(json!({}))
    }

    pub(super) fn update(&mut self, input: &Value) -> Result<Value, AwsError> {
        let name = text(input, "WorkGroup").unwrap_or_default();
        self.get(name)?;
        let Some(workgroup) = self.0.get_mut(name) else { return Ok(json!({})) };
        let mut changed = workgroup.clone();
        if let Some(description) = text(input, "Description") {
            changed.description = Some(description.to_owned());
        }
        if let Some(state) = text(input, "State") {
            changed.enabled = state == "ENABLED";
        }
        if let (Some(updates), Some(members)) =
            (input.get("ConfigurationUpdates").and_then(Value::as_object), changed.configuration.as_object_mut())
        {
            for (member, value) in updates {
                match member.as_str() {
                    "RemoveBytesScannedCutoffPerQuery" if value == &json!(true) => {
                        members.remove("BytesScannedCutoffPerQuery");
                    }
                    "ResultConfigurationUpdates" => {
                        members.insert("ResultConfiguration".to_owned(), value.clone());
                    }
                    _ => {
                        members.insert(member.clone(), value.clone());
                    }
                }
            }
        }
        check_cutoff(&changed)?;
        check_results(&changed)?;
        *workgroup = changed;
        Ok(json!({}))
    }

    pub(super) fn delete(&mut self, input: &Value) -> Result<Value, AwsError> {
        let name = text(input, "WorkGroup").unwrap_or_default();
        self.get(name)?;
        if name == "primary" {
            return Err(invalid("The primary workgroup cannot be deleted."));
        }
        self.0.remove(name);
        Ok(json!({}))
    }

    pub(super) fn list(&self) -> Value {
        let summary = |workgroup: &Workgroup| {
            json!({
                "Name": workgroup.name,
                "State": if workgroup.enabled { "ENABLED" } else { "DISABLED" },
                "Description": workgroup.description.clone().unwrap_or_default(),
                "CreationTime": workgroup.created,
                "EngineVersion": engine_version(),
            })
        };
        json!({ "WorkGroups": self.0.values().map(summary).collect::<Vec<_>>() })
    }

    fn by_arn(&mut self, input: &Value) -> Result<&mut Workgroup, AwsError> {
        let arn = text(input, "ResourceARN").unwrap_or_default();
        let name = arn.split_once(":workgroup/").map(|(_, name)| name).unwrap_or_default().to_owned();
        self.0
            .get_mut(&name)
            .ok_or_else(|| AwsError::new("ResourceNotFoundException", format!("{arn} is not found.")).with("ResourceName", arn))
    }

    pub(super) fn tag(&mut self, input: &Value) -> Result<Value, AwsError> {
        let added = tags(input.get("Tags"))?;
        self.by_arn(input)?.tags.extend(added);
        Ok(json!({}))
    }

    pub(super) fn untag(&mut self, input: &Value) -> Result<Value, AwsError> {
        let workgroup = self.by_arn(input)?;
        for key in input.get("TagKeys").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
            workgroup.tags.remove(key);
        }
        Ok(json!({}))
    }

    pub(super) fn tags(&mut self, input: &Value) -> Result<Value, AwsError> {
        let tags: Vec<Value> = self.by_arn(input)?.tags.iter().map(|(key, value)| json!({ "Key": key, "Value": value })).collect();
        Ok(json!({ "Tags": tags }))
    }
}

/// Athena allows no cutoff below 10 MB.
fn check_cutoff(workgroup: &Workgroup) -> Result<(), AwsError> {
    const LEAST_BYTES: u64 = 10_000_000;
    match workgroup.cutoff_bytes() {
        Some(bytes) if bytes < LEAST_BYTES => Err(invalid(format!(
            "1 validation error detected: Value '{bytes}' at 'configuration.bytesScannedCutoffPerQuery' failed to satisfy constraint: Member \
             must have value greater than or equal to {LEAST_BYTES}"
        ))),
        _ => Ok(()),
    }
}

/// Results are written to S3 or kept by Athena, not both.
fn check_results(workgroup: &Workgroup) -> Result<(), AwsError> {
    if workgroup.manages_results() && workgroup.output_location().is_some() {
        return Err(invalid("ManagedQueryResultsConfiguration and ResultConfiguration cannot be set together"));
    }
    Ok(())
}

fn tags(list: Option<&Value>) -> Result<BTreeMap<String, String>, AwsError> {
    let mut tags = BTreeMap::new();
    for tag in list.and_then(Value::as_array).into_iter().flatten() {
        let (key, value) = (text(tag, "Key").unwrap_or_default(), text(tag, "Value").unwrap_or_default());
        if key.is_empty() || key.len() > 128 || value.len() > 256 {
            return Err(invalid(format!("The tag '{key}' is invalid: a key has 1 to 128 characters, a value up to 256.")));
        }
        if tags.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(invalid(format!("Duplicate tag key: {key}")));
        }
    }
    Ok(tags)
}
