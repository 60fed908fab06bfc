//! Types, in the words of Hive (the catalog), Arrow (the engine here), Trino (SQL) and Athena (results).

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

/// Nesting deeper than this is a mistake.
const MAX_DEPTH: usize = 32;

/// How Athena reads a `timestamp` column: milliseconds without a zone.
pub(crate) const TIMESTAMP: DataType = DataType::Timestamp(TimeUnit::Millisecond, None);

/// The Arrow type of a Hive type, such as `array<struct<a:int>>`.
pub(crate) fn arrow_of_hive(text: &str) -> Result<DataType, String> {
    let mut parser = HiveType { text, at: 0 };
    let kind = parser.parse(0)?;
    parser.skip_spaces();
    if parser.at < text.len() {
        return Err(format!("type {text:?} has more than a type in it"));
    }
    Ok(kind)
}

struct HiveType<'a> {
    text: &'a str,
    at: usize,
}

impl HiveType<'_> {
    fn skip_spaces(&mut self) {
        while self.text[self.at..].starts_with(' ') {
            self.at += 1;
        }
    }

    fn word(&mut self) -> String {
        self.skip_spaces();
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_lowercase()
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.skip_spaces();
        let found = self.text[self.at..].starts_with(symbol);
        if found {
            self.at += symbol.len_utf8();
        }
        found
    }

    fn expect(&mut self, symbol: char) -> Result<(), String> {
        if self.eat(symbol) { Ok(()) } else { Err(format!("type {:?} lacks a {symbol:?}", self.text)) }
    }

    fn numbers(&mut self) -> Result<Vec<u8>, String> {
        let mut numbers = Vec::new();
        if self.eat('(') {
            loop {
                let word = self.word();
                numbers.push(word.parse().map_err(|_| format!("type {:?}: {word:?} is not a size", self.text))?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(')')?;
        }
        Ok(numbers)
    }

    fn parse(&mut self, depth: usize) -> Result<DataType, String> {
        if depth > MAX_DEPTH {
            return Err(format!("type {:?} is nested too deep", self.text));
        }
        let name = self.word();
        Ok(match name.as_str() {
            "boolean" => DataType::Boolean,
            "tinyint" => DataType::Int8,
            "smallint" => DataType::Int16,
            "int" | "integer" => DataType::Int32,
            "bigint" => DataType::Int64,
            "float" | "real" => DataType::Float32,
            "double" => DataType::Float64,
            "string" => DataType::Utf8,
            "varchar" | "char" => {
                // A length has up to five digits, which `numbers` does not accept.
                if self.eat('(') {
                    self.word();
                    self.expect(')')?;
                }
                DataType::Utf8
            }
            "binary" => DataType::Binary,
            "date" => DataType::Date32,
            "timestamp" => TIMESTAMP,
            "decimal" => match self.numbers()?.as_slice() {
                [] => DataType::Decimal128(10, 0),
                [precision] => DataType::Decimal128(*precision, 0),
                [precision, scale, ..] => DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(0)),
            },
            "array" => {
                self.expect('<')?;
                let item = self.parse(depth + 1)?;
                self.expect('>')?;
                DataType::List(Arc::new(Field::new_list_field(item, true)))
            }
            "map" => {
                self.expect('<')?;
                let key = self.parse(depth + 1)?;
                self.expect(',')?;
                let value = self.parse(depth + 1)?;
                self.expect('>')?;
                let entries = Fields::from(vec![Field::new("key", key, false), Field::new("value", value, true)]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
            }
            "struct" => {
                self.expect('<')?;
                let mut fields = Vec::new();
                loop {
                    let field = self.word();
                    self.expect(':')?;
                    fields.push(Field::new(field, self.parse(depth + 1)?, true));
                    if !self.eat(',') {
                        break;
                    }
                }
                self.expect('>')?;
                DataType::Struct(Fields::from(fields))
            }
            other => return Err(format!("{other:?} is not a type of Hive (in {:?})", self.text)),
        })
    }
}

/// The type as Trino writes it, such as `array(row(a integer))`.
pub(crate) fn trino_name(kind: &DataType) -> String {
    match kind {
        DataType::Null => "unknown".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 => "tinyint".to_owned(),
        DataType::Int16 | DataType::UInt8 => "smallint".to_owned(),
        DataType::Int32 | DataType::UInt16 => "integer".to_owned(),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => "bigint".to_owned(),
        DataType::Float16 | DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => "varbinary".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Timestamp(unit, None) => format!("timestamp({})", precision(*unit)),
        DataType::Timestamp(unit, Some(_)) => format!("timestamp({}) with time zone", precision(*unit)),
        DataType::Interval(_) | DataType::Duration(_) => "interval day to second".to_owned(),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => format!("decimal({precision},{scale})"),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("array({})", trino_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| format!("{} {}", field.name(), trino_name(field.data_type()))).collect();
            format!("row({})", fields.join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("map({}, {})", trino_name(fields[0].data_type()), trino_name(fields[1].data_type()))
            }
            _ => "map".to_owned(),
        },
        DataType::Dictionary(_, value) => trino_name(value),
        _ => "varchar".to_owned(),
    }
}

/// The type as a result's metadata names it: Trino's name without parentheses; `real` is called `float`.
pub(crate) fn athena_name(trino: &str) -> String {
    if trino.starts_with("timestamp") && trino.ends_with("with time zone") {
        return "timestamp with time zone".to_owned();
    }
    let base = trino.split('(').next().unwrap_or(trino);
    if base == "real" { "float".to_owned() } else { base.to_owned() }
}

/// The Hive type of a Trino type, as the catalog stores a view's columns.
pub(crate) fn hive_name(kind: &DataType) -> String {
    match kind {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            format!("array<{}>", hive_name(item.data_type()))
        }
        DataType::Struct(fields) => {
            let fields: Vec<_> = fields.iter().map(|field| format!("{}:{}", field.name(), hive_name(field.data_type()))).collect();
            format!("struct<{}>", fields.join(","))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) if fields.len() == 2 => {
                format!("map<{},{}>", hive_name(fields[0].data_type()), hive_name(fields[1].data_type()))
            }
            _ => "string".to_owned(),
        },
        // Hive has no type with a zone; Athena writes such a column as a plain timestamp.
        DataType::Timestamp(..) => "timestamp".to_owned(),
        other => match trino_name(other).as_str() {
            "integer" => "int".to_owned(),
            "real" => "float".to_owned(),
            "varchar" | "unknown" => "string".to_owned(),
            "varbinary" => "binary".to_owned(),
            "interval day to second" => "interval_day_time".to_owned(),
            name => name.to_owned(),
        },
    }
}

pub(crate) fn precision(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

/// The Hive type of a Trino type. A type without a Hive name stays as it is.
pub(crate) fn hive_of_trino(kind: &str) -> String {
    let (name, inside) = match kind.split_once('(').and_then(|(name, rest)| Some((name, rest.strip_suffix(')')?))) {
        Some((name, inside)) => (name, Some(inside)),
        None => (kind, None),
    };
    match (name, inside) {
        ("varchar" | "char" | "json" | "unknown", _) => "string".to_owned(),
        ("integer", _) => "int".to_owned(),
        ("real", _) => "float".to_owned(),
        ("varbinary", _) => "binary".to_owned(),
        ("timestamp", None) => "timestamp".to_owned(),
        ("timestamp", Some(digits)) if digits.bytes().all(|digit| digit.is_ascii_digit()) => "timestamp".to_owned(),
        ("decimal", Some(inside)) => format!("decimal({})", inside.replace(' ', "")),
        ("array", Some(item)) => format!("array<{}>", hive_of_trino(item)),
        ("map", Some(inside)) => format!("map<{}>", parts(inside).into_iter().map(hive_of_trino).collect::<Vec<_>>().join(",")),
        ("row", Some(inside)) => {
            let member = |part: &str| match part.strip_prefix('"').and_then(|rest| rest.split_once("\" ")).or_else(|| part.split_once(' '))
            {
                Some((name, kind)) => format!("{name}:{}", hive_of_trino(kind)),
                None => part.to_owned(),
            };
            format!("struct<{}>", parts(inside).into_iter().map(member).collect::<Vec<_>>().join(","))
        }
        _ => kind.to_owned(),
    }
}

/// The parts of a list whose commas may also be within parentheses.
fn parts(list: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_i32, 0, Vec::new());
    for (at, c) in list.char_indices() {
        depth += i32::from(c == '(') - i32::from(c == ')');
        if c == ',' && depth == 0 {
            parts.push(list[from..at].trim());
            from = at + 1;
        }
    }
    parts.push(list[from..].trim());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_types_are_read_and_named() {
        let kind = arrow_of_hive("struct<a:array<int>, B:map<string,decimal(10,2)>,c:varchar(65535)>").unwrap();
        assert_eq!(trino_name(&kind), "row(a array(integer), b map(varchar, decimal(10,2)), c varchar)");
        assert_eq!(hive_name(&kind), "struct<a:array<int>,b:map<string,decimal(10,2)>,c:string>");
    }

    #[test]
    fn what_is_no_type_is_refused() {
        for text in ["strin", "array<int", "int>", "struct<a>", "decimal(x)"] {
            assert!(arrow_of_hive(text).is_err(), "{text}");
        }
    }

    #[test]
    fn results_name_types_without_their_parameters() {
        assert_eq!(athena_name("timestamp(3)"), "timestamp");
        assert_eq!(athena_name("timestamp(3) with time zone"), "timestamp with time zone");
        assert_eq!(athena_name("real"), "float");
        assert_eq!(athena_name("array(varchar)"), "array");
    }

    #[test]
    fn types_of_trino_have_words_in_hive() {
        for (trino, hive) in [
            ("varchar", "string"),
            ("varchar(1)", "string"),
            ("integer", "int"),
            ("bigint", "bigint"),
            ("timestamp(3)", "timestamp"),
            ("timestamp(3) with time zone", "timestamp(3) with time zone"),
            ("decimal(2, 1)", "decimal(2,1)"),
            ("array(array(varchar(2)))", "array<array<string>>"),
            ("map(varchar, decimal(2, 1))", "map<string,decimal(2,1)>"),
            ("row(\"value\" double, unit row(a array(integer),b varchar))", "struct<value:double,unit:struct<a:array<int>,b:string>>"),
        ] {
            assert_eq!(hive_of_trino(trino), hive, "{trino}");
        }
    }
}
