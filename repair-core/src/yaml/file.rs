//! Reads the text of a file, within limits.

use std::path::Path;

use super::tree;

/// The text of a file. The error is a message, and help if there is any.
pub(crate) fn read_text(path: &Path) -> Result<String, (String, Option<String>)> {
    let unreadable = |error: std::io::Error| (format!("the file {} cannot be read: {error}", path.display()), None);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err((format!("{} is a folder, not a file", path.display()), Some("name a YAML file in it".to_owned())));
    }
    if metadata.len() > tree::MAX_FILE_BYTES as u64 {
        return Err(too_big(metadata.len()));
    }
    let bytes = read_bounded(path).map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        (format!("the file is not UTF-8 text: byte {at} is invalid"), Some("save it as UTF-8".to_owned()))
    })
}

/// Reads at most one byte beyond the limit, because a pipe has no size to check first, and a file may grow.
fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(tree::MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(crate) fn too_big(bytes: u64) -> (String, Option<String>) {
    let message = format!("the file has {bytes} bytes; at most {} are allowed", tree::MAX_FILE_BYTES);
    (message, Some("keep long lists in a table or a parameter".to_owned()))
}
