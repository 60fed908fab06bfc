//! What a table declares about its files must be what Athena's catalog says of them: Athena alone reads them, so nothing that it does not
//! know can be honoured. Values only, no I/O.

use repair_core::model::{Csv, Encoding, Format, Repeated, Table};
use repair_core::{Error, Result};

use crate::catalog::Relation;

/// Checks the declaration of a table against the catalog.
///
/// # Errors
/// `invalid` with the contradiction, and what to do about it.
pub(crate) fn declaration(table: &Table, relation: &Relation) -> Result<()> {
    let refuse = |why: String| Err(Error::invalid(format!("table `{}`: {why}", table.name)));
    if table.location.contains(['*', '?', '[']) {
        return refuse(format!(
            "Athena reads whole folders, not the files that match the glob `{}`; name the folder under `location`, and leave files out with `ignore`",
            table.location
        ));
    }
    if table.reading.repeated == Repeated::FileOrder {
        return refuse(
            "`repeated: file-order` needs the order of rows in their file, and rows have no order on Athena; write `earlier`, `later` or `refuse`"
                .to_owned(),
        );
    }
    let joined = &table.reading.columns;
    if !joined.is_empty() && relation.kind(&table.time).is_some() && !joined.iter().any(|column| column.eq_ignore_ascii_case(&table.time)) {
        return refuse(format!(
            "its time is called `{}`, and Athena has a column of that name, which is not the time; give the time another `name`",
            table.time
        ));
    }
    if !table.ignore.is_empty() {
        ignored(table, relation)?;
    }
    for (column, rule) in &table.columns {
        if let Some(path) = &rule.path
            && crate::sql::values::cell(table, relation, column).is_none()
        {
            return refuse(format!(
                "column `{column}` is at `{path}`, and Athena has no column `{}` of a struct type that holds it; declare it there, e.g. as \
                 `struct<…>`, or remove `path`",
                path.split('.').next().unwrap_or_default()
            ));
        }
    }
    if table.format == Format::Csv && !relation.is_view { csv(table, relation) } else { Ok(()) }
}

/// Athena opens every object of a table, and leaves out rows only once it has read them.
fn ignored(table: &Table, relation: &Relation) -> Result<()> {
    let refuse = |why: &str| {
        Err(Error::invalid(format!(
            "table `{}`: `ignore` cannot be honoured on Athena: {why}; move the files away, or begin their names with `_` or `.`, which Athena leaves \
             out",
            table.name
        )))
    };
    let tolerant = relation.parameters.get("serde.param.ignore.malformed.json").is_some_and(|word| word.eq_ignore_ascii_case("true"));
    match table.format {
        _ if relation.is_view => refuse("it is a view there, whose rows have no files"),
        Format::Csv => Ok(()),
        Format::Jsonl if tolerant => Ok(()),
        Format::Jsonl => refuse("it opens every file of the table, and fails at a line that is not JSON"),
        _ => refuse("it opens every file of the table, and fails at one that is not Parquet"),
    }
}

/// How a character is written in a message.
fn shown(character: char) -> String {
    match character {
        '\t' => "a tab".to_owned(),
        '\u{1}' => "the character 1, Hive's own".to_owned(),
        other => format!("`{other}`"),
    }
}

fn csv(table: &Table, relation: &Relation) -> Result<()> {
    let csv: &Csv = &table.csv;
    let refuse = |why: String| Err(Error::invalid(format!("table `{}`: {why}", table.name)));
    let parameter = |name: &str| relation.parameters.get(name).map(String::as_str);
    let character = |name: &str| parameter(name).and_then(|text| text.chars().next());
    let encoding = parameter("serde.param.serialization.encoding").unwrap_or("utf-8").to_ascii_lowercase().replace(['-', '_'], "");
    let same = match csv.encoding {
        Encoding::Utf8 => encoding == "utf8",
        Encoding::Utf16 => encoding == "utf16",
        Encoding::Utf16le => encoding == "utf16le",
        Encoding::Utf16be => encoding == "utf16be",
        Encoding::Latin1 => ["latin1", "iso88591", "windows1252", "cp1252"].contains(&encoding.as_str()),
        _ => false,
    };
    if !same {
        return refuse(format!(
            "its text is declared as {}, and Athena reads it as {encoding}; declare it in Athena with `'serialization.encoding'` if its SerDe supports \
             that, or write the files anew as UTF-8",
            csv.encoding.as_str()
        ));
    }
    if let Some(comment) = csv.comment {
        return refuse(format!(
            "Athena knows no comments, so it reads lines that begin with {} as rows; remove them from the files, and `comment` from the table",
            shown(comment)
        ));
    }
    if csv.final_newline {
        return refuse("Athena reads a last line without a line break like any other; leave out `final_newline: required`".to_owned());
    }
    if csv.trim && csv.delimiter == ' ' {
        return refuse("Athena takes every space for a delimiter; write the files anew with another one".to_owned());
    }
    let (delimiter, quote) = match relation.reader() {
        "OpenCSVSerde" => (character("serde.param.separatorChar").unwrap_or(','), Some(character("serde.param.quoteChar").unwrap_or('"'))),
        "LazySimpleSerDe" => {
            (character("serde.param.field.delim").or_else(|| character("serde.param.serialization.format")).unwrap_or('\u{1}'), None)
        }
        // Whatever else reads it, only the owner of the table can know.
        _ => return Ok(()),
    };
    if delimiter != csv.delimiter {
        return refuse(format!(
            "its fields are separated by {} as it is declared here, and by {} in Athena; correct `delimiter` under `csv`, or the table in Athena",
            shown(csv.delimiter),
            shown(delimiter)
        ));
    }
    match (csv.quote, quote) {
        (declared, known) if declared == known => {}
        (Some(_), None) => {
            return refuse(
                "Athena reads it with LazySimpleSerDe, which knows no quotes; write `quote: none` under `csv` if no field is quoted, or declare the table \
                 in Athena with OpenCSVSerde"
                    .to_owned(),
            );
        }
        (declared, known) => {
            let word = |quote: Option<char>| quote.map_or_else(|| "nothing".to_owned(), shown);
            return refuse(format!(
                "its fields are quoted by {} as it is declared here, and by {} in Athena; correct `quote` under `csv`, or the table in Athena",
                word(declared),
                word(known)
            ));
        }
    }
    let skipped: u64 = parameter("skip.header.line.count").and_then(|count| count.trim().parse().ok()).unwrap_or(0);
    let wanted = u64::from(csv.skip_lines) + u64::from(csv.header);
    if skipped != wanted {
        return refuse(format!(
            "its files have {wanted} lines before the first row as it is declared here, and Athena skips {skipped}; correct `header` and `skip_lines` \
             under `csv`, or set `'skip.header.line.count'='{wanted}'` in Athena"
        ));
    }
    Ok(())
}
