//! "Did you mean": the known name that is closest to a misspelt one.

/// `; did you mean …?` if one of the known names is close, else an empty text.
pub(crate) fn close_name<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> String {
    closest(name, known.map(String::as_str)).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default()
}

/// The known name that was probably meant: the closest one, if at most a third of its letters differ.
///
/// ```
/// use repair_core::yaml::closest;
///
/// assert_eq!(closest("retyr", ["retry", "catch"].into_iter()), Some("retry"));
/// assert_eq!(closest("budget", ["retry", "catch"].into_iter()), None);
/// ```
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= candidate.chars().count().max(name.chars().count()).max(3))
        .min()
        .map(|(_, candidate)| candidate)
}
