//! Reads the text of a file, within limits.

use std::path::Path;

use super::tree;

/// The text of a file; else what is wrong with it, and what to do.
pub(crate) fn read_text(path: &Path) -> Result<String, (String, Option<String>)> {
    let unreadable = |error: std::io::Error| (format!("the file {} cannot be read: {error}", path.display()), None);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err((format!("{} is a folder, not a workflow", path.display()), Some("name a YAML file within".to_owned())));
    }
    if metadata.len() > tree::MAX_FILE_BYTES as u64 {
        return Err(too_big(metadata.len()));
    }
    let bytes = read_bounded(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (format!("the file is not UTF-8 text: byte {at} is not"), Some("save it as UTF-8".to_owned()))
    })
}

/// Reads no more than one byte beyond the limit: a pipe has no size that could be asked first, and a file may grow.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(tree::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn too_big(bytes: u64) -> (String, Option<String>) {
    let message = format!("{bytes} bytes are too many for a workflow; {} are allowed", tree::MAX_FILE_BYTES);
    (message, Some("keep long lists in a table or a parameter".to_owned()))
}
