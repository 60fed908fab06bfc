//! What a file defines together with the files that it includes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Draft, Fields, MAX_ENTRIES, Reader, did_you_mean, keys, one_of, quoted};
use crate::workflow::include::{INCLUDE, SHARED};
use crate::workflow::{IncludedNames, Steps, Workflow, WorkflowKind};
use crate::yaml::tree::{Key, Node, Place, Yaml};

impl<'a> Reader<'a> {
    /// Reads a file that holds only definitions, as a workflow without steps.
    pub(crate) fn definitions(&mut self, file: &str, root: &'a Node) -> Option<Draft<'a>> {
        self.repeated(root);
        let entries = self.mapping(root, "the file", MAX_ENTRIES)?;
        self.only_shared(entries);
        let fields = Fields { node: root, place: Place::default(), what: "the file".to_owned() };
        let draft = self.shared_draft(file, &fields);
        Some(Draft { expressions: std::mem::take(&mut self.expressions), ..draft })
    }

    /// What a file and the files that it includes define, as a workflow without steps.
    pub(super) fn shared_draft(&mut self, file: &str, fields: &Fields<'a>) -> Draft<'a> {
        self.included();
        let (tables, sources) = (self.shared_section(fields, "tables"), self.shared_section(fields, "sources"));
        let table_places = tables.iter().map(|(key, _)| (key.name.as_str(), key.place)).collect();
        let table_keys = tables.iter().filter_map(|(key, node)| Some((key.name.as_str(), node.get("keys")?))).collect();
        let (tables, elsewhere, lake_places) = self.tables(&tables);
        let (sources, source_places) = self.sources(sources);
        let calendars = self.shared_section(fields, "calendars");
        let calendars = self.calendars(calendars);
        let workflow = Workflow {
            name: String::new(),
            kind: WorkflowKind::StateMachine,
            timeout: None,
            text: self.text.to_owned(),
            file: file.to_owned(),
            children: self.included.texts.clone(),
            params: BTreeMap::new(),
            tags: BTreeMap::new(),
            budget: None,
            prices: None,
            tables,
            elsewhere,
            sources,
            calendars: BTreeMap::new(),
            included: IncludedNames { tables: self.included_names("tables"), sources: self.included_names("sources") },
            start: String::new(),
            steps: Steps::default(),
            profiles: BTreeMap::new(),
            schedule: None,
            items: BTreeMap::new(),
            outer: None,
            notify: BTreeMap::new(),
            lineage: None,
        };
        Draft {
            workflow,
            start: None,
            step_names: Vec::new(),
            steps: Vec::new(),
            sources: source_places,
            table_places,
            table_keys,
            lake_places,
            table_names: self.shared_names(fields, "tables"),
            source_names: self.shared_names(fields, "sources"),
            calendars,
            calendar_names: self.shared_names(fields, "calendars"),
            param_names: None,
            param_places: BTreeMap::new(),
            complete: self.included.complete,
            schedule: None,
            expressions: Vec::new(),
            whole: false,
        }
    }

    /// Checks the keys of the files that are included, and keeps what they define.
    fn included(&mut self) {
        for root in &self.included.roots {
            self.repeated(root);
            if matches!(root.value, Yaml::Null) {
                self.error(root.place, "the file is empty", Some(format!("define something, or remove it from `{INCLUDE}`")));
            } else if let Some(entries) = self.mapping(root, "an included file", MAX_ENTRIES) {
                self.only_shared(entries);
                let place = Place { file: root.place.file, ..Place::default() };
                self.shared.push(Fields { node: root, place, what: "the file".to_owned() });
            }
        }
    }

    /// Refuses all but what workflows can share.
    fn only_shared(&mut self, entries: &'a [(Key, Node)]) {
        for (key, _) in entries.iter().filter(|(key, _)| !SHARED.contains(&key.name.as_str())) {
            let name = quoted(&key.name);
            if super::KEYS.contains(&key.name.as_str()) {
                let help = format!("a file without steps holds only {}; move {name} to the workflow", listed());
                self.error(key.place, format!("{name} belongs to a workflow, and workflows cannot share it"), Some(help));
            } else {
                let help = did_you_mean(&key.name, SHARED.into_iter()).unwrap_or_else(|| one_of(SHARED.into_iter()));
                self.error(key.place, format!("unknown key {name} in a file of shared definitions"), Some(help));
            }
        }
    }

    /// The entries of a section that the file shares with those that it includes. A name may be defined once.
    fn shared_section(&mut self, fields: &Fields<'a>, name: &str) -> Vec<(&'a Key, &'a Node)> {
        let mut all: Vec<(&Key, &Node)> = Vec::new();
        let mut first: BTreeMap<&str, Place> = BTreeMap::new();
        let shared = std::mem::take(&mut self.shared);
        for fields in shared.iter().chain([fields]) {
            for (key, node) in self.section(fields, name, MAX_ENTRIES) {
                if let Some(before) = first.get(key.name.as_str()) {
                    let (what, other) = (name.trim_end_matches('s'), self.diagnostics.at(*before));
                    let help = "one name means one thing in all files: keep one of the two, or rename one";
                    let message = format!("{what} `{}` is defined here and at {other}", key.name);
                    self.error(key.place, message, Some(help.to_owned()));
                } else {
                    first.insert(&key.name, key.place);
                    all.push((key, node));
                }
            }
        }
        self.shared = shared;
        if all.len() > MAX_ENTRIES {
            let message = format!("the files define {} {name} in all; at most {MAX_ENTRIES} are allowed", all.len());
            self.error(fields.key_place(INCLUDE), message, None);
            all.clear();
        }
        all
    }

    /// Every name of a section, read or not.
    fn shared_names(&self, fields: &Fields<'a>, name: &str) -> Vec<&'a str> {
        self.shared.iter().chain([fields]).flat_map(|fields| keys(fields.get(name))).collect()
    }

    /// The names of a section that included files define.
    fn included_names(&self, name: &str) -> BTreeSet<String> {
        self.shared.iter().flat_map(|fields| keys(fields.get(name))).map(str::to_owned).collect()
    }

    /// ` (lake.yaml:3:5)`, if a place is in another file than this one.
    pub(super) fn elsewhere(&self, here: Place, other: Place) -> String {
        if here.file == other.file { String::new() } else { format!(" ({})", self.diagnostics.at(other)) }
    }
}

/// `` `include`, `tables`, `sources` and `calendars` ``
fn listed() -> String {
    let [others @ .., last] = SHARED.map(quoted);
    format!("{} and {last}", others.join(", "))
}
