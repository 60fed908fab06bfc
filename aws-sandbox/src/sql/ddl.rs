//! Statements in Hive's dialect: tables, partitions, databases, and `SHOW` statements about them.
//!
//! This module parses text into statements; what they do to the catalog is in [`super::define`].

use std::collections::BTreeMap;

use crate::catalog::{Column, Database, Parameters, SerdeInfo, StorageDescriptor, Table};

use super::error::QueryError;
use super::types::arrow_of_hive;

/// A name of a table or view, with its database if it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) database: Option<String>,
    pub(crate) name: String,
}

/// The values of a partition by its keys, in the order they were written.
pub(crate) type PartitionSpec = Vec<(String, String)>;

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ddl {
    CreateDatabase { database: Box<Database>, if_not_exists: bool },
    DropDatabase { name: String, if_exists: bool, cascade: bool },
    CreateTable { name: Name, table: Box<Table>, if_not_exists: bool },
    AddPartitions { name: Name, if_not_exists: bool, partitions: Vec<(PartitionSpec, Option<String>)> },
    DropPartitions { name: Name, if_exists: bool, partitions: Vec<PartitionSpec> },
    AddColumns { name: Name, columns: Vec<Column> },
    SetProperties { name: Name, properties: Parameters },
    SetLocation { name: Name, location: String },
    Repair { name: Name },
    DropTable { name: Name, if_exists: bool },
    DropView { name: Name, if_exists: bool },
    ShowDatabases { pattern: Option<String> },
    ShowTables { database: Option<String>, pattern: Option<String>, views: bool },
    ShowPartitions { name: Name },
    ShowColumns { name: Name },
    ShowCreateView { name: Name },
    ShowCreateTable { name: Name },
    Describe { name: Name },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// A keyword or an unquoted name; also numbers.
    Word(String),
    /// A name in backticks or double quotes.
    Name(String),
    /// A string, unescaped.
    Text(String),
    Symbol(char),
}

#[derive(Debug, Clone)]
struct Placed {
    token: Token,
    /// Where it begins, in bytes.
    at: usize,
}

fn syntax(sql: &str, at: usize, message: &str) -> QueryError {
    let before = &sql[..at.min(sql.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    QueryError::user("SYNTAX_ERROR", format!("line {line}:{column}: {message}"))
}

fn tokens(sql: &str) -> Result<Vec<Placed>, QueryError> {
    let mut found = Vec::new();
    let mut characters = sql.char_indices().peekable();
    while let Some(&(at, c)) = characters.peek() {
        if c.is_whitespace() {
            characters.next();
        } else if sql[at..].starts_with("--") {
            while characters.next_if(|(_, c)| *c != '\n').is_some() {}
        } else if sql[at..].starts_with("/*") {
            let end = sql[at..].find("*/").map_or(sql.len(), |length| at + length + 2);
            while characters.next_if(|(at, _)| *at < end).is_some() {}
        } else if c.is_alphanumeric() || c == '_' {
            let mut word = String::new();
            while let Some((_, c)) = characters.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                word.push(c);
            }
            found.push(Placed { token: Token::Word(word), at });
        } else if matches!(c, '\'' | '"' | '`') {
            characters.next();
            let mut text = String::new();
            loop {
                match characters.next() {
                    None => return Err(syntax(sql, at, &format!("the text that begins with {c} does not end"))),
                    Some((_, end)) if end == c => {
                        // A doubled quote is the quote itself.
                        if characters.next_if(|(_, next)| *next == c).is_none() {
                            break;
                        }
                        text.push(c);
                    }
                    Some((_, '\\')) if c != '`' => match characters.next() {
                        Some((_, 't')) => text.push('\t'),
                        Some((_, 'n')) => text.push('\n'),
                        Some((_, 'r')) => text.push('\r'),
                        // Hive writes its separators as octal numbers: `\001`.
                        Some((_, '0')) => {
                            let digits: String = (0..2).filter_map(|_| characters.next().map(|(_, digit)| digit)).collect();
                            let code = u32::from_str_radix(&digits, 8).ok().and_then(char::from_u32);
                            text.push(code.unwrap_or('\u{1}'));
                        }
                        Some((_, other)) => text.push(other),
                        None => text.push('\\'),
                    },
                    Some((_, other)) => text.push(other),
                }
            }
            found.push(Placed { token: if c == '`' { Token::Name(text) } else { Token::Text(text) }, at });
        } else {
            characters.next();
            found.push(Placed { token: Token::Symbol(c), at });
        }
    }
    Ok(found)
}

/// Reads one statement.
pub(crate) fn parse(sql: &str) -> Result<Ddl, QueryError> {
    let mut parser = Parser { sql, tokens: tokens(sql)?, at: 0 };
    let ddl = parser.statement()?;
    while parser.symbol(';') {}
    if parser.at < parser.tokens.len() {
        return Err(parser.mismatch("<EOF>"));
    }
    Ok(ddl)
}

struct Parser<'a> {
    sql: &'a str,
    tokens: Vec<Placed>,
    at: usize,
}

type Parsed<T> = Result<T, QueryError>;

impl Parser<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|placed| &placed.token)
    }

    fn position(&self) -> usize {
        self.tokens.get(self.at).map_or(self.sql.len(), |placed| placed.at)
    }

    fn mismatch(&self, expected: &str) -> QueryError {
        let found = match self.peek() {
            None => "<EOF>".to_owned(),
            Some(Token::Word(text) | Token::Name(text)) => text.clone(),
            Some(Token::Text(text)) => format!("'{text}'"),
            Some(Token::Symbol(symbol)) => symbol.to_string(),
        };
        syntax(self.sql, self.position(), &format!("mismatched input '{found}'. Expecting: {expected}"))
    }

    /// Consumes these words if all of them come next.
    fn words(&mut self, words: &str) -> bool {
        let mut at = self.at;
        for word in words.split(' ') {
            match self.tokens.get(at) {
                Some(Placed { token: Token::Word(found), .. }) if found.eq_ignore_ascii_case(word) => at += 1,
                _ => return false,
            }
        }
        self.at = at;
        true
    }

    fn expect_words(&mut self, words: &str) -> Parsed<()> {
        if self.words(words) { Ok(()) } else { Err(self.mismatch(&format!("'{}'", words.to_uppercase()))) }
    }

    fn symbol(&mut self, symbol: char) -> bool {
        let found = self.peek() == Some(&Token::Symbol(symbol));
        self.at += usize::from(found);
        found
    }

    fn expect_symbol(&mut self, symbol: char) -> Parsed<()> {
        if self.symbol(symbol) { Ok(()) } else { Err(self.mismatch(&format!("'{symbol}'"))) }
    }

    fn identifier(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Token::Word(name) | Token::Name(name) | Token::Text(name)) => {
                let name = name.to_lowercase();
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.mismatch("<identifier>")),
        }
    }

    fn name(&mut self) -> Parsed<Name> {
        let mut parts = vec![self.identifier()?];
        while self.symbol('.') {
            parts.push(self.identifier()?);
        }
        let name = parts.pop().unwrap_or_default();
        // A catalog before the database is ignored, since there is only one.
        Ok(Name { database: parts.pop(), name })
    }

    fn text(&mut self) -> Parsed<String> {
        match self.peek() {
            Some(Token::Text(text)) => {
                let text = text.clone();
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.mismatch("<string>")),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        self.expect_symbol('(')?;
        let mut items = vec![item(self)?];
        while self.symbol(',') {
            items.push(item(self)?);
        }
        self.expect_symbol(')')?;
        Ok(items)
    }

    fn properties(&mut self) -> Parsed<Parameters> {
        let pairs = self.list(|parser| {
            let key = parser.text()?;
            parser.expect_symbol('=')?;
            Ok((key, parser.text()?))
        })?;
        Ok(pairs.into_iter().collect())
    }

    fn column(&mut self) -> Parsed<Column> {
        let name = self.identifier()?;
        // Hive also accepts `name: type`, as inside structs.
        self.symbol(':');
        let start = self.position();
        let mut kind = String::new();
        let mut depth = 0_i32;
        while let Some(token) = self.peek() {
            match token {
                Token::Symbol(',' | ')') if depth == 0 => break,
                Token::Word(word) if depth == 0 && !kind.is_empty() && word.eq_ignore_ascii_case("comment") => break,
                Token::Symbol(symbol) => {
                    depth += i32::from(matches!(symbol, '<' | '(')) - i32::from(matches!(symbol, '>' | ')'));
                    kind.push(*symbol);
                }
                Token::Word(word) => kind.push_str(&word.to_lowercase()),
                Token::Name(word) => kind.push_str(word),
                Token::Text(_) => return Err(self.mismatch("<type>")),
            }
            self.at += 1;
        }
        let kind = if kind == "integer" { "int".to_owned() } else { kind };
        arrow_of_hive(&kind).map_err(|why| syntax(self.sql, start, &why))?;
        let comment = if self.words("COMMENT") { Some(self.text()?) } else { None };
        Ok(Column { comment, ..Column::new(name, kind) })
    }

    fn partition_spec(&mut self) -> Parsed<PartitionSpec> {
        self.expect_words("PARTITION")?;
        self.list(|parser| {
            let key = parser.identifier()?;
            parser.expect_symbol('=')?;
            let negative = parser.symbol('-');
            let value = match parser.peek() {
                Some(Token::Word(word)) if word.eq_ignore_ascii_case("date") => {
                    parser.at += 1;
                    return Ok((key, parser.text()?));
                }
                Some(Token::Word(value) | Token::Text(value)) => value.clone(),
                _ => return Err(parser.mismatch("<value>")),
            };
            parser.at += 1;
            Ok((key, if negative { format!("-{value}") } else { value }))
        })
    }

    fn statement(&mut self) -> Parsed<Ddl> {
        if self.words("CREATE DATABASE") || self.words("CREATE SCHEMA") {
            return self.create_database();
        }
        if self.words("CREATE EXTERNAL TABLE") {
            return self.create_table();
        }
        if self.words("CREATE TABLE") {
            return Err(QueryError::ddl("SemanticException Only external tables can be created (CREATE EXTERNAL TABLE)"));
        }
        if self.words("ALTER TABLE") {
            return self.alter_table();
        }
        if self.words("MSCK REPAIR TABLE") {
            return Ok(Ddl::Repair { name: self.name()? });
        }
        if self.words("DROP TABLE") {
            let if_exists = self.words("IF EXISTS");
            return Ok(Ddl::DropTable { name: self.name()?, if_exists });
        }
        if self.words("DROP VIEW") {
            let if_exists = self.words("IF EXISTS");
            return Ok(Ddl::DropView { name: self.name()?, if_exists });
        }
        if self.words("DROP DATABASE") || self.words("DROP SCHEMA") {
            let if_exists = self.words("IF EXISTS");
            let name = self.identifier()?;
            let cascade = self.words("CASCADE");
            if !cascade {
                self.words("RESTRICT");
            }
            return Ok(Ddl::DropDatabase { name, if_exists, cascade });
        }
        if self.words("SHOW DATABASES") || self.words("SHOW SCHEMAS") {
            return Ok(Ddl::ShowDatabases { pattern: self.pattern()? });
        }
        for (words, views) in [("SHOW TABLES", false), ("SHOW VIEWS", true)] {
            if self.words(words) {
                let database = if self.words("IN") || self.words("FROM") { Some(self.identifier()?) } else { None };
                return Ok(Ddl::ShowTables { database, pattern: self.pattern()?, views });
            }
        }
        if self.words("SHOW PARTITIONS") {
            return Ok(Ddl::ShowPartitions { name: self.name()? });
        }
        if self.words("SHOW COLUMNS IN") || self.words("SHOW COLUMNS FROM") {
            let mut name = self.name()?;
            if self.words("IN") || self.words("FROM") {
                name.database = Some(self.identifier()?);
            }
            return Ok(Ddl::ShowColumns { name });
        }
        if self.words("SHOW CREATE VIEW") {
            return Ok(Ddl::ShowCreateView { name: self.name()? });
        }
        if self.words("SHOW CREATE TABLE") {
            return Ok(Ddl::ShowCreateTable { name: self.name()? });
        }
        if self.words("DESCRIBE") || self.words("DESC") {
            if !self.words("EXTENDED") {
                self.words("FORMATTED");
            }
            return Ok(Ddl::Describe { name: self.name()? });
        }
        Err(self.mismatch("'ALTER', 'CREATE', 'DESCRIBE', 'DROP', 'MSCK', 'SELECT', 'SHOW', 'WITH'"))
    }

    fn pattern(&mut self) -> Parsed<Option<String>> {
        self.words("LIKE");
        if matches!(self.peek(), Some(Token::Text(_))) { Ok(Some(self.text()?)) } else { Ok(None) }
    }

    fn create_database(&mut self) -> Parsed<Ddl> {
        let if_not_exists = self.words("IF NOT EXISTS");
        let mut database = Database { name: self.identifier()?, ..Database::default() };
        loop {
            if self.words("COMMENT") {
                database.description = Some(self.text()?);
            } else if self.words("LOCATION") {
                database.location_uri = Some(self.text()?);
            } else if self.words("WITH DBPROPERTIES") {
                database.parameters = self.properties()?;
            } else {
                return Ok(Ddl::CreateDatabase { database: Box::new(database), if_not_exists });
            }
        }
    }

    fn create_table(&mut self) -> Parsed<Ddl> {
        let if_not_exists = self.words("IF NOT EXISTS");
        let name = self.name()?;
        let columns = self.list(Self::column)?;
        let mut table = Table { name: name.name.clone(), table_type: Some("EXTERNAL_TABLE".to_owned()), ..Table::default() };
        let mut storage = Storage::default();
        loop {
            if self.words("COMMENT") {
                let comment = self.text()?;
                table.parameters.insert("comment".to_owned(), comment);
            } else if self.words("PARTITIONED BY") {
                table.partition_keys = self.list(Self::column)?;
            } else if self.words("ROW FORMAT SERDE") {
                storage.serde = Some(self.text()?);
            } else if self.words("ROW FORMAT DELIMITED") {
                self.delimited(&mut storage)?;
            } else if self.words("WITH SERDEPROPERTIES") {
                storage.properties.extend(self.properties()?);
            } else if self.words("STORED AS INPUTFORMAT") {
                storage.input = Some(self.text()?);
                self.expect_words("OUTPUTFORMAT")?;
                storage.output = Some(self.text()?);
            } else if self.words("STORED AS") {
                storage.format = Some(self.identifier()?);
            } else if self.words("LOCATION") {
                storage.location = Some(self.text()?);
            } else if self.words("TBLPROPERTIES") {
                table.parameters.extend(self.properties()?);
            } else if self.at == self.tokens.len() || self.peek() == Some(&Token::Symbol(';')) {
                break;
            } else {
                return Err(self.mismatch("'LOCATION', 'PARTITIONED', 'ROW', 'STORED', 'TBLPROPERTIES', <EOF>"));
            }
        }
        if storage.location.is_none() {
            return Err(QueryError::ddl("Execution Error: the location of the table is missing (LOCATION 's3://bucket/prefix/')"));
        }
        if let Some(twice) = twice(columns.iter().chain(&table.partition_keys)) {
            return Err(QueryError::ddl(format!("SemanticException [Error 10036]: Duplicate column name: {twice}")));
        }
        table.parameters.entry("EXTERNAL".to_owned()).or_insert_with(|| "TRUE".to_owned());
        table.storage_descriptor = Some(storage.descriptor(columns)?);
        Ok(Ddl::CreateTable { name, table: Box::new(table), if_not_exists })
    }

    fn delimited(&mut self, storage: &mut Storage) -> Parsed<()> {
        loop {
            let property = if self.words("FIELDS TERMINATED BY") {
                "field.delim"
            } else if self.words("ESCAPED BY") {
                "escape.delim"
            } else if self.words("COLLECTION ITEMS TERMINATED BY") {
                "colelction.delim"
            } else if self.words("MAP KEYS TERMINATED BY") {
                "mapkey.delim"
            } else if self.words("LINES TERMINATED BY") {
                "line.delim"
            } else if self.words("NULL DEFINED AS") {
                "serialization.null.format"
            } else {
                return Ok(());
            };
            let value = self.text()?;
            storage.properties.insert(property.to_owned(), value);
        }
    }

    fn alter_table(&mut self) -> Parsed<Ddl> {
        let name = self.name()?;
        if self.words("ADD COLUMNS") {
            return Ok(Ddl::AddColumns { name, columns: self.list(Self::column)? });
        }
        if self.words("ADD") {
            let if_not_exists = self.words("IF NOT EXISTS");
            let mut partitions = Vec::new();
            loop {
                let spec = self.partition_spec()?;
                let location = if self.words("LOCATION") { Some(self.text()?) } else { None };
                partitions.push((spec, location));
                self.symbol(',');
                if !matches!(self.peek(), Some(Token::Word(word)) if word.eq_ignore_ascii_case("partition")) {
                    return Ok(Ddl::AddPartitions { name, if_not_exists, partitions });
                }
            }
        }
        if self.words("DROP") {
            let if_exists = self.words("IF EXISTS");
            let mut partitions = vec![self.partition_spec()?];
            while self.symbol(',') {
                partitions.push(self.partition_spec()?);
            }
            return Ok(Ddl::DropPartitions { name, if_exists, partitions });
        }
        if self.words("SET TBLPROPERTIES") {
            return Ok(Ddl::SetProperties { name, properties: self.properties()? });
        }
        if self.words("SET LOCATION") {
            return Ok(Ddl::SetLocation { name, location: self.text()? });
        }
        Err(self.mismatch("'ADD', 'DROP', 'SET'"))
    }
}

fn twice<'a>(columns: impl Iterator<Item = &'a Column>) -> Option<&'a str> {
    let mut seen = std::collections::BTreeSet::new();
    columns.map(|column| column.name.as_str()).find(|name| !seen.insert(*name))
}

/// The storage format in a `CREATE EXTERNAL TABLE`.
#[derive(Debug, Default)]
struct Storage {
    serde: Option<String>,
    properties: BTreeMap<String, String>,
    format: Option<String>,
    input: Option<String>,
    output: Option<String>,
    location: Option<String>,
}

pub(crate) const PARQUET_SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";
pub(crate) const LAZY_SERDE: &str = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe";
const TEXT_INPUT: &str = "org.apache.hadoop.mapred.TextInputFormat";
const TEXT_OUTPUT: &str = "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat";

impl Storage {
    fn descriptor(mut self, columns: Vec<Column>) -> Parsed<StorageDescriptor> {
        let (serde, input, output) = match self.format.as_deref() {
            Some("parquet") => (
                PARQUET_SERDE,
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
                "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            ),
            Some("textfile") | None => (LAZY_SERDE, TEXT_INPUT, TEXT_OUTPUT),
            Some(other) => {
                return Err(QueryError::ddl(format!("SemanticException Unrecognized file format in STORED AS clause: '{other}'")));
            }
        };
        let serde = self.serde.unwrap_or_else(|| serde.to_owned());
        if serde == LAZY_SERDE {
            // Hive stores the separator under both names.
            if let Some(separator) = self.properties.get("field.delim").cloned() {
                self.properties.entry("serialization.format".to_owned()).or_insert(separator);
            }
        } else {
            self.properties.entry("serialization.format".to_owned()).or_insert_with(|| "1".to_owned());
        }
        Ok(StorageDescriptor {
            columns,
            location: self.location,
            input_format: Some(self.input.unwrap_or_else(|| input.to_owned())),
            output_format: Some(self.output.unwrap_or_else(|| output.to_owned())),
            number_of_buckets: -1,
            serde_info: Some(SerdeInfo { name: None, serialization_library: Some(serde), parameters: self.properties }),
            ..StorageDescriptor::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(sql: &str) -> Table {
        match parse(sql).unwrap() {
            Ddl::CreateTable { table, .. } => *table,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_parquet_table_with_projection_is_read() {
        let table = table(
            "CREATE EXTERNAL TABLE IF NOT EXISTS `market`.`bars` (\n  `symbol` string COMMENT 'ticker, listed',\n  ts timestamp,\n  tags \
             map<string,array<int>>)\nCOMMENT 'bars'\nPARTITIONED BY (`day` string)\nSTORED AS PARQUET\nLOCATION 's3://lake/bars/'\n\
             TBLPROPERTIES ('projection.enabled'='true', 'storage.location.template'='s3://lake/bars/day=${day}')",
        );
        assert_eq!(table.name, "bars");
        assert_eq!(table.columns()[0].comment.as_deref(), Some("ticker, listed"));
        assert_eq!(table.columns()[2].hive_type(), "map<string,array<int>>");
        assert_eq!(table.partition_keys[0].name, "day");
        assert_eq!(table.location(), Some("s3://lake/bars/"));
        assert!(table.is_projected());
        let serde = table.storage_descriptor.unwrap().serde_info.unwrap();
        assert_eq!(serde.serialization_library.as_deref(), Some(PARQUET_SERDE));
    }

    #[test]
    fn separators_are_read_with_their_escapes() {
        let delimited = table("create external table t (a int) row format delimited fields terminated by '\\t' location 's3://b/'");
        let serde = delimited.storage_descriptor.unwrap().serde_info.unwrap();
        assert_eq!(serde.parameters["field.delim"], "\t");
        let quoted = table(
            "CREATE EXTERNAL TABLE t (a string) ROW FORMAT SERDE 'org.apache.hadoop.hive.serde2.OpenCSVSerde' WITH SERDEPROPERTIES \
             ('separatorChar' = ',', 'quoteChar' = '\"', 'escapeChar' = '\\\\') LOCATION 's3://b/'",
        );
        let serde = quoted.storage_descriptor.unwrap().serde_info.unwrap();
        assert_eq!(serde.parameters["quoteChar"], "\"");
        assert_eq!(serde.parameters["escapeChar"], "\\");
    }

    #[test]
    fn several_partitions_are_added_at_once() {
        let ddl = parse(
            "ALTER TABLE d.t ADD IF NOT EXISTS PARTITION (day='2026-01-01', n=-3) LOCATION 's3://b/x/' PARTITION (day='2026-01-02', n=4)",
        );
        let Ddl::AddPartitions { name, if_not_exists: true, partitions } = ddl.unwrap() else { panic!("another statement") };
        assert_eq!(name, Name { database: Some("d".to_owned()), name: "t".to_owned() });
        assert_eq!(partitions[0].0, [("day".to_owned(), "2026-01-01".to_owned()), ("n".to_owned(), "-3".to_owned())]);
        assert_eq!(partitions[0].1.as_deref(), Some("s3://b/x/"));
        assert_eq!(partitions[1].1, None);
    }

    #[test]
    fn mistakes_say_where_and_what_was_expected() {
        let error = parse("CREATE EXTERNAL TABLE t (a int)\n  STORD AS PARQUET LOCATION 's3://b/'").unwrap_err();
        assert!(error.message.starts_with("line 2:3: mismatched input 'STORD'. Expecting: 'LOCATION'"), "{}", error.message);
        let error = parse("DROP TABLE").unwrap_err();
        assert_eq!(error.message, "line 1:11: mismatched input '<EOF>'. Expecting: <identifier>");
        let error = parse("CREATE EXTERNAL TABLE t (a int, A string) LOCATION 's3://b/'").unwrap_err();
        assert!(error.message.contains("Duplicate column name: a"), "{}", error.message);
    }
}
