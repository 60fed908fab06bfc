//! Names of files and objects that follow from their content, so that writing one twice has the effect of writing it once.

use super::StageScope;

/// The longest part of a file's name that is written out. File systems allow 255 bytes, and a name has several parts.
const MAX_NAME_PART: usize = 80;

/// A text as part of a file's name; two texts never share a name. Special characters are written as `%XX`, as is a leading `.`.
pub fn part(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    for (at, byte) in text.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && at > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    if name.len() > MAX_NAME_PART {
        let hash = blake3::hash(text.as_bytes()).to_hex();
        name.truncate(MAX_NAME_PART - 33);
        // `%%` never occurs above, so a shortened name is equal to no other.
        name.push_str("%%");
        name.push_str(&hash.as_str()[..31]);
    }
    name
}

/// As [`part`], but without `-`, so that it can stand between dashes.
pub fn part_without_dash(text: &str) -> String {
    part(text).replace('-', "%2D")
}

/// The name of a published object. Only the part of the run may contain dashes, so each (run, step, visit, batch) has a name of its own.
pub fn object(scope: &StageScope<'_>, batch: u32) -> String {
    format!("{}-{}-{}-{batch}.parquet", part(scope.run), part_without_dash(scope.step), scope.visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_never_meet() {
        let long = "x".repeat(300);
        let texts = ["a", "a-b", "a/b", "a%2Fb", ".a", "..", "", "a.b", "é", &long, &format!("{long}y"), "A"];
        let names: std::collections::BTreeSet<String> = texts.iter().map(|text| part(text)).collect();
        assert_eq!(names.len(), texts.len());
        assert!(names.iter().all(|name| !name.starts_with('.') && !name.contains('/') && name.len() <= MAX_NAME_PART));
        assert!(!part_without_dash("a-b").contains('-'));
    }
}
