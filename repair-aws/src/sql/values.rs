//! How a column of the catalog becomes a value of the table: declared types, words for "no value", marks of numbers, nested names.
//!
//! A value that does not fit is null, and a condition finds its row, so that no row is silently wrong.

use repair_core::model::{ColumnRule, ColumnType, Csv, Format, PathPattern, Table, TimeForm};
use repair_core::{Error, Result};

use super::{cells, name, regex, text};
use crate::catalog::{Kind, Relation, kind_of, trino_type};

/// A column as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cell {
    /// The expression that selects it.
    pub(crate) expression: String,
    /// Its type in Hive's words.
    pub(crate) declared: String,
}

impl Cell {
    pub(crate) fn kind(&self) -> Kind {
        kind_of(&self.declared)
    }
}

/// A column as the table has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Value {
    /// The expression of its value; null if there is none, or if it cannot be read.
    pub(crate) expression: String,
    /// The condition that it cannot be read; `None` if it always can.
    pub(crate) bad: Option<String>,
    /// Its type in Hive's words.
    pub(crate) declared: String,
}

/// The type of a member of a struct, in Hive's words.
fn member<'a>(declared: &'a str, wanted: &str) -> Option<&'a str> {
    let inner = declared.trim().strip_prefix("struct<")?.strip_suffix('>')?;
    let (mut depth, mut from) = (0_i32, 0);
    let ends = inner.char_indices().filter_map(|(at, c)| {
        depth += i32::from(matches!(c, '<' | '(')) - i32::from(matches!(c, '>' | ')'));
        (c == ',' && depth == 0).then_some(at)
    });
    for end in ends.chain([inner.len()]).collect::<Vec<_>>() {
        let (name, kind) = inner.get(from..end)?.split_once(':')?;
        if name.trim().trim_matches('`').eq_ignore_ascii_case(wanted) {
            return Some(kind.trim());
        }
        from = end + 1;
    }
    None
}

/// What a table declares about a column, with the name under which it does. The catalog has all names in lower case.
pub(crate) fn rule<'a>(table: &'a Table, column: &str) -> Option<(&'a str, &'a ColumnRule)> {
    let exact = table.columns.get_key_value(column);
    let found = exact.or_else(|| table.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)));
    found.map(|(name, rule)| (name.as_str(), rule))
}

/// Whether a column of the catalog is, or holds, what a path makes a column of its own, so that the table's columns have that in its place.
pub(crate) fn has_own_columns(table: &Table, column: &str) -> bool {
    let is_place = |own: &str| own.eq_ignore_ascii_case(column);
    let mut paths = table.columns.values().filter_map(|rule| rule.path.as_deref());
    !is_place(&table.time)
        && !table.key.iter().any(|key| is_place(key))
        && !table.time_columns().into_iter().any(is_place)
        && rule(table, column).is_none_or(|(_, rule)| rule.path.is_none())
        && paths.any(|path| path.split('.').next().is_some_and(is_place))
}

/// Where the catalog has a column; `None` if it does not have it.
pub(crate) fn cell(table: &Table, relation: &Relation, column: &str) -> Option<Cell> {
    let Some(path) = rule(table, column).and_then(|(_, rule)| rule.path.as_deref()) else {
        let declared = relation.declared(column)?.to_owned();
        // The time of a table of dates is an instant in its repairs.
        let is_kept = relation.keeps_date(column) && !column.eq_ignore_ascii_case(&table.time);
        if is_kept || cells::is_date_kept_as_timestamp(relation, column) {
            return Some(Cell { expression: format!("CAST({} AS date)", name(column)), declared: "date".to_owned() });
        }
        return Some(Cell { expression: name(column), declared });
    };
    let mut names = path.split('.');
    let root = names.next()?;
    let mut declared = relation.declared(root)?.to_ascii_lowercase();
    let mut expression = name(root);
    for inner in names {
        declared = member(&declared, inner)?.to_owned();
        expression = format!("{expression}.{}", name(inner));
    }
    Some(Cell { expression, declared })
}

/// A text column without the words that mean that there is no value. An empty field of a CSV file is none either.
pub(crate) fn words_removed(table: &Table, column: &str, expression: &str) -> String {
    let is_csv = table.format == Format::Csv;
    let trimmed = if is_csv && table.csv.trim { format!("trim({expression})") } else { expression.to_owned() };
    let mut words: Vec<&str> = if is_csv { vec![""] } else { Vec::new() };
    words.extend(table.nulls_of(rule(table, column).map_or(column, |(name, _)| name)));
    words.sort_unstable();
    words.dedup();
    match words.as_slice() {
        [] => trimmed,
        [word] => format!("nullif({trimmed}, {})", text(word)),
        words => {
            let list: Vec<String> = words.iter().map(|word| text(word)).collect();
            format!("CASE WHEN {trimmed} IN ({}) THEN NULL ELSE {trimmed} END", list.join(", "))
        }
    }
}

/// What a declared type is called in Hive's words.
pub(crate) fn hive_type(kind: ColumnType) -> Option<String> {
    Some(match kind {
        ColumnType::Text => "string".to_owned(),
        ColumnType::Integer => "bigint".to_owned(),
        ColumnType::Number => "double".to_owned(),
        ColumnType::Boolean => "boolean".to_owned(),
        ColumnType::Decimal(precision, scale) => format!("decimal({precision},{scale})"),
        _ => return None,
    })
}

/// A number's text with a point as its decimal mark and without marks between groups.
fn plain(csv: &Csv, expression: &str) -> String {
    let ungrouped = match csv.thousands {
        Some(mark) => format!("replace({expression}, {}, '')", text(&mark.to_string())),
        None => expression.to_owned(),
    };
    if csv.decimal == '.' { ungrouped } else { format!("replace({ungrouped}, {}, '.')", text(&csv.decimal.to_string())) }
}

/// The pattern of the digits before the decimal mark.
fn whole_digits(csv: &Csv) -> String {
    match csv.thousands {
        Some(mark) => {
            let mark = regex::escape(&mark.to_string());
            format!("[+-]?(?:[0-9]*|[0-9]{{1,3}}(?:{mark}[0-9]{{3}})+)")
        }
        None => "[+-]?[0-9]*".to_owned(),
    }
}

/// The value of a text as a declared type; null if it is not one.
fn parsed(csv: &Csv, kind: ColumnType, expression: &str) -> Option<String> {
    let decimal = regex::escape(&csv.decimal.to_string());
    let when = |pattern: String, then: String| format!("CASE WHEN regexp_like({expression}, {}) THEN {then} END", text(&pattern));
    let number = plain(csv, expression);
    Some(match kind {
        ColumnType::Integer => when(format!("\\A{}\\z", whole_digits(csv)), format!("TRY_CAST({number} AS bigint)")),
        ColumnType::Number => format!(
            "CASE WHEN regexp_like({expression}, {pattern}) THEN nullif(nullif(TRY_CAST({number} AS double), infinity()), -infinity()) WHEN lower({expression}) IN ('nan', '-nan', '+nan') \
             THEN nan() WHEN lower({expression}) IN ('inf', '+inf', 'infinity', '+infinity') THEN infinity() WHEN lower({expression}) IN ('-inf', \
             '-infinity') THEN -infinity() END",
            pattern = text(&format!("\\A{}(?:{decimal}[0-9]*)?(?:[eE][+-]?[0-9]+)?\\z", whole_digits(csv))),
        ),
        ColumnType::Boolean => {
            format!(
                "CASE WHEN {expression} IN ('true', 'True', 'TRUE') THEN true WHEN {expression} IN ('false', 'False', 'FALSE') THEN false END"
            )
        }
        ColumnType::Decimal(precision, scale) => when(
            format!("\\A{}(?:{decimal}[0-9]{{0,{scale}}}0*)?\\z", whole_digits(csv)),
            format!("TRY_CAST({number} AS decimal({precision},{scale}))"),
        ),
        ColumnType::Text => expression.to_owned(),
        _ => return None,
    })
}

/// Digits before and after the mark of a decimal type.
fn digits(declared: &str) -> Option<(i16, i16)> {
    let Some((_, rest)) = declared.split_once('(') else { return Some((10, 0)) };
    let mut numbers = rest.trim_end_matches(')').split(',').map(|number| number.trim().parse::<i16>());
    let precision = numbers.next()?.ok()?;
    let scale = numbers.next().map_or(Some(0), Result::ok)?;
    Some((precision - scale, scale))
}

/// How a column is read.
///
/// # Errors
/// `invalid` if the catalog's type cannot hold the declared one without loss.
pub(crate) fn value(table: &Table, relation: &Relation, column: &str) -> Result<Option<Value>> {
    let Some(cell) = cell(table, relation, column) else { return Ok(None) };
    let Cell { expression, declared } = &cell;
    let of = |expression: String, bad: Option<String>, declared: &str| Ok(Some(Value { expression, bad, declared: declared.to_owned() }));
    let is_text = cell.kind() == Kind::Text;
    let own = if is_text { words_removed(table, column, expression) } else { expression.clone() };
    // JSON has no word for it, so such a float is a number that was larger than any.
    let is_infinite = (table.format == Format::Jsonl && !relation.is_view && cell.kind() == Kind::Float)
        .then(|| format!("(abs({expression}) = infinity())"));
    let finite = |expression: &str| match &is_infinite {
        Some(is_infinite) => format!("CASE WHEN NOT {is_infinite} THEN {expression} END"),
        None => expression.to_owned(),
    };
    let Some(kind) = rule(table, column).and_then(|(_, rule)| rule.kind) else {
        return of(if is_text { own } else { finite(expression) }, is_infinite, declared);
    };
    let refuse = |advice: String| {
        Err(Error::invalid(format!(
            "column `{column}` of table `{}` is `{declared}` in Athena, and the table declares it as {kind}; {advice}",
            table.name
        )))
    };
    let Some(target) = hive_type(kind) else { return refuse("that type cannot be read on Athena; remove it".to_owned()) };
    if is_text {
        let Some(read) = parsed(&table.csv, kind, &own) else { return refuse("that type cannot be read on Athena; remove it".to_owned()) };
        let bad = (kind != ColumnType::Text).then(|| format!("({own} IS NOT NULL AND {read} IS NULL)"));
        return of(read, bad, &target);
    }
    let as_string = || refuse("declare it as `string` in Athena, so that nothing is lost before it is read".to_owned());
    if relation.nulls_what_it_cannot_read() {
        return as_string();
    }
    // A value that does not come back the same does not fit.
    let exactly = || {
        let (there, back) = (trino_type(&target), trino_type(&declared.to_ascii_lowercase()));
        let read = format!("TRY_CAST({expression} AS {there})");
        let bad = format!("({expression} IS NOT NULL AND ({read} IS NULL OR TRY_CAST({read} AS {back}) IS DISTINCT FROM {expression}))");
        of(read, Some(bad), &target)
    };
    match (cell.kind(), kind) {
        (Kind::Whole, ColumnType::Integer) => of(format!("CAST({expression} AS bigint)"), None, &target),
        (Kind::Float, ColumnType::Number) => of(finite(&format!("CAST({expression} AS double)")), is_infinite, &target),
        (Kind::Bool, ColumnType::Boolean) => of(expression.clone(), None, &target),
        (Kind::Whole, ColumnType::Number) if declared.eq_ignore_ascii_case("bigint") => exactly(),
        (Kind::Whole, ColumnType::Number) => of(format!("CAST({expression} AS double)"), None, &target),
        (Kind::Whole, ColumnType::Decimal(..)) => exactly(),
        (Kind::Decimal, ColumnType::Decimal(precision, scale)) => {
            let (wanted, has) = ((i16::from(precision) - i16::from(scale), i16::from(scale)), digits(declared));
            if has.is_some_and(|has| has.0 <= wanted.0 && has.1 <= wanted.1) {
                of(format!("CAST({expression} AS {target})"), None, &target)
            } else {
                exactly()
            }
        }
        // In text files, Athena has lost zeros in front and the like by then.
        (Kind::Whole | Kind::Bool | Kind::Date, ColumnType::Text) if table.format == Format::Parquet => {
            of(format!("CAST({expression} AS varchar)"), None, &target)
        }
        _ if table.format == Format::Parquet => refuse("it cannot be converted without loss; correct the type under `columns`".to_owned()),
        _ => as_string(),
    }
}

/// The type of a column as the table has it, in Hive's words; `None` if the catalog does not have the column.
pub(crate) fn declared(table: &Table, relation: &Relation, column: &str) -> Option<String> {
    value(table, relation, column).ok().flatten().map(|value| value.declared)
}

/// The first key column that Athena holds as floats: numbers there that are not whole are no keys.
pub(crate) fn float_key<'t>(table: &'t Table, relation: &Relation) -> Option<&'t str> {
    let is_float = |column: &&String| cell(table, relation, column).is_some_and(|cell| cell.kind() == Kind::Float);
    table.key.iter().find(is_float).map(String::as_str)
}

/// The text of a key column; null if there is no value, or a number that is not whole.
pub(crate) fn key(table: &Table, relation: &Relation, column: &str) -> Option<String> {
    let Some(cell) = cell(table, relation, column) else {
        let path = match (&table.layout, &table.reading.form) {
            (Some(layout), _) if layout.path.keys().any(|key| key == column) => &layout.path,
            (_, TimeForm::Path(path)) if path.keys().any(|key| key == column) => path,
            _ => return None,
        };
        return Some(key_of_path(relation, path, column));
    };
    let expression = cell.expression;
    Some(match kind_of(&cell.declared) {
        Kind::Text => words_removed(table, column, &expression),
        Kind::Float => format!("CASE WHEN {expression} = floor({expression}) THEN CAST(TRY_CAST({expression} AS bigint) AS varchar) END"),
        _ => format!("CAST({expression} AS varchar)"),
    })
}

/// A key that only the path of a row's object holds.
fn key_of_path(relation: &Relation, path: &PathPattern, column: &str) -> String {
    let (pattern, groups) = regex::of_path(path);
    let at = groups.iter().position(|group| *group == regex::Group::Key(column.to_owned())).map_or(0, |at| at + 1);
    format!("regexp_extract({}, {}, {at})", relation.path(), text(&pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_structs_are_found() {
        let declared = "struct<a:int,b:struct<c:decimal(10,2),d:array<string>>,e:string>";
        assert_eq!(member(declared, "a"), Some("int"));
        assert_eq!(member(declared, "B"), Some("struct<c:decimal(10,2),d:array<string>>"));
        assert_eq!(member(declared, "e"), Some("string"));
        assert_eq!(member(declared, "c"), None);
        assert_eq!(member("array<int>", "a"), None);
    }

    #[test]
    fn numbers_are_written_with_the_marks_of_the_table() {
        let mut csv = Csv::default();
        csv.decimal = ',';
        csv.thousands = Some('.');
        assert_eq!(
            parsed(&csv, ColumnType::Decimal(10, 2), "x").unwrap(),
            "CASE WHEN regexp_like(x, '\\A[+-]?(?:[0-9]*|[0-9]{1,3}(?:\\.[0-9]{3})+)(?:,[0-9]{0,2}0*)?\\z') THEN TRY_CAST(replace(replace(x, '.', \
             ''), ',', '.') AS decimal(10,2)) END"
        );
        assert_eq!(
            parsed(&Csv::default(), ColumnType::Integer, "x").unwrap(),
            "CASE WHEN regexp_like(x, '\\A[+-]?[0-9]*\\z') THEN TRY_CAST(x AS bigint) END"
        );
    }
}
