//! From text to a checked workflow. Text becomes a tree in which everything knows its place (`tree`), the tree becomes a draft
//! (`read`), the draft is checked against the plug-ins and as a graph (`check`). All mistakes of a file are told at once.

use std::path::Path;

use super::{Diagnostics, Workflow, check, read, tree};
use crate::plugin::Registry;

impl Workflow {
    /// Reads and checks a workflow. `file` is where the text was, for messages.
    ///
    /// # Errors
    /// All mistakes at once, each with its place.
    pub fn parse(file: &str, text: &str, registry: &Registry) -> Result<Workflow, Diagnostics> {
        if text.len() > tree::MAX_FILE_BYTES {
            return Err(too_big(file, u64::try_from(text.len()).unwrap_or(u64::MAX)));
        }
        let mut diagnostics = Diagnostics::new(file, text);
        let root = match tree::parse(text) {
            Ok(root) => root,
            Err(error) => {
                diagnostics.push(error.place, error.message, None);
                return Err(diagnostics);
            }
        };
        let mut reader = read::Reader::new(text, diagnostics);
        let draft = reader.workflow(file, &root);
        let mut diagnostics = reader.into_diagnostics();
        let checked = draft.map(|draft| check::check(draft, text, registry, &mut diagnostics));
        match checked {
            Some(workflow) if diagnostics.is_empty() => Ok(workflow),
            _ => {
                diagnostics.sort();
                Err(diagnostics)
            }
        }
    }

    /// Reads and checks a workflow in a file.
    ///
    /// # Errors
    /// As [`Workflow::parse`]; a file that is not there, is not a file, is too big or is not text is a mistake like others.
    pub fn load(path: &Path, registry: &Registry) -> Result<Workflow, Diagnostics> {
        let file = path.display().to_string();
        let refuse = |message: String| Diagnostics::of_file(&file, message, None);
        let metadata = std::fs::metadata(path).map_err(|error| refuse(format!("the file cannot be read: {error}")))?;
        if metadata.is_dir() {
            return Err(Diagnostics::of_file(&file, "this is a folder, not a workflow", Some("name a YAML file within".to_owned())));
        }
        if metadata.len() > u64::try_from(tree::MAX_FILE_BYTES).unwrap_or(u64::MAX) {
            return Err(too_big(&file, metadata.len()));
        }
        let bytes = read_bounded(path).map_err(|error| refuse(format!("the file cannot be read: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Diagnostics::of_file(&file, format!("the file is not UTF-8 text: byte {at} is not"), Some("save it as UTF-8".to_owned()))
        })?;
        Workflow::parse(&file, &text, registry)
    }
}

/// Reads no more than one byte beyond the limit: a pipe has no size that could be asked first, and a file may grow.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let limit = u64::try_from(tree::MAX_FILE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn too_big(file: &str, bytes: u64) -> Diagnostics {
    let message = format!("{bytes} bytes are too many for a workflow; {} are allowed", tree::MAX_FILE_BYTES);
    Diagnostics::of_file(file, message, Some("keep long lists in a table or a parameter".to_owned()))
}
