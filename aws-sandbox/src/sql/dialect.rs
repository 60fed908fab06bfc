//! From Trino's dialect to DataFusion's: parses a query and rewrites what the two write or mean differently.
//!
//! It works only on the text and its syntax tree; [`super::engine`] resolves names.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, CastKind, CharacterLength, DataType, DateTimeField, DuplicateTreatment, ExactNumberInfo, Expr, Function,
    FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, ObjectNamePart, Query, SelectItem, SetExpr,
    TimezoneInfo, TypedString, UnaryOperator, Value, ValueWithSpan, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

use super::error::{QueryError, syntax_message};

/// Marks a name defined by the statement itself (`WITH`), so that it is not looked up in the catalog.
pub(crate) const OWN_QUERY: char = '[';
/// The name of an unnamed result column, followed by its position.
pub(crate) const UNNAMED: &str = "$unnamed_";

/// A query in DataFusion's dialect.
#[derive(Debug, Clone)]
pub(crate) struct Prepared {
    pub(crate) query: Query,
    /// The names of the result's columns as they were written; `None` where a `*` leaves them to the tables.
    pub(crate) labels: Option<Vec<String>>,
}

/// The statement's tokens; quoted names are converted to lower case, because Trino's names have no case.
fn tokens(sql: &str) -> Result<(Vec<TokenWithSpan>, HashMap<Location, String>), QueryError> {
    let mut tokens = Tokenizer::new(&GenericDialect {}, sql)
        .tokenize_with_location()
        .map_err(|error| QueryError::user("SYNTAX_ERROR", syntax_message(&error.to_string())))?;
    let mut spelled = HashMap::new();
    for token in &mut tokens {
        if let Token::Word(word) = &mut token.token {
            if word.quote_style == Some('`') {
                let Location { line, column } = token.span.start;
                let message = "backquoted identifiers are not supported; use double quotes to quote identifiers";
                return Err(QueryError::user("SYNTAX_ERROR", format!("line {line}:{column}: {message}")));
            }
            spelled.insert(token.span.start, word.value.clone());
            if word.quote_style.is_some() {
                word.value = word.value.to_lowercase();
            }
        }
    }
    Ok((tokens, spelled))
}

/// Parses a query and rewrites it in DataFusion's dialect.
pub(crate) fn prepare(sql: &str) -> Result<Prepared, QueryError> {
    let (tokens, spelled) = tokens(sql)?;
    let syntax =
        |error: datafusion::sql::sqlparser::parser::ParserError| QueryError::user("SYNTAX_ERROR", syntax_message(&error.to_string()));
    let mut parser = Parser::new(&GenericDialect {}).with_tokens_with_locations(tokens);
    let mut query = *parser.parse_query().map_err(syntax)?;
    while parser.consume_token(&Token::SemiColon) {}
    if parser.peek_token().token != Token::EOF {
        return parser.expected("<EOF>", parser.peek_token()).map_err(syntax);
    }
    let labels = labels(&query.body, &spelled);
    name_columns(&mut query.body);
    let mut rewrite = Rewrite { error: None };
    if query.visit(&mut rewrite).is_break() {
        let error = rewrite.error.unwrap_or_else(|| QueryError::system("GENERIC_INTERNAL_ERROR", "a rewrite ended early"));
        return Err(error);
    }
    Ok(Prepared { query, labels })
}

fn labels(body: &SetExpr, spelled: &HashMap<Location, String>) -> Option<Vec<String>> {
    let select = match body {
        SetExpr::Select(select) => select,
        SetExpr::Query(query) => return labels(&query.body, spelled),
        SetExpr::SetOperation { left, .. } => return labels(left, spelled),
        SetExpr::Values(values) => {
            return values.rows.first().map(|row| (0..row.content.len()).map(|index| format!("_col{index}")).collect());
        }
        _ => return None,
    };
    let as_spelled = |ident: &Ident| spelled.get(&ident.span.start).cloned().unwrap_or_else(|| ident.value.clone());
    let label = |(index, item): (usize, &SelectItem)| match item {
        SelectItem::ExprWithAlias { alias, .. } => Some(as_spelled(alias)),
        SelectItem::UnnamedExpr(Expr::Identifier(ident)) => Some(as_spelled(ident)),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(idents)) => idents.last().map(as_spelled),
        SelectItem::UnnamedExpr(_) => Some(format!("_col{index}")),
        _ => None,
    };
    select.projection.iter().enumerate().map(label).collect()
}

/// Names the columns of a result, so that equal expressions do not collide.
fn name_columns(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => {
            for (index, item) in select.projection.iter_mut().enumerate() {
                if let SelectItem::UnnamedExpr(expr) = item
                    && !matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_))
                {
                    let expr = std::mem::replace(expr, null());
                    *item = SelectItem::ExprWithAlias { expr, alias: Ident::with_quote('"', format!("{UNNAMED}{index}")) };
                }
            }
        }
        SetExpr::Query(query) => name_columns(&mut query.body),
        SetExpr::SetOperation { left, right, .. } => {
            name_columns(left);
            name_columns(right);
        }
        _ => {}
    }
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn string(text: &str) -> Expr {
    Expr::value(Value::SingleQuotedString(text.to_owned()))
}

/// A call of a function by its exact name.
fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    let args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
    Expr::Function(Function {
        name: ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn case(condition: Expr, result: Expr, otherwise: Option<Expr>) -> Expr {
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![CaseWhen { condition, result }],
        else_result: otherwise.map(Box::new),
    }
}

fn cast(kind: CastKind, expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind, expr: Box::new(expr), data_type, array: false, format: None }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

/// Joins expressions by one operator, as a tree whose depth grows with the logarithm of their number.
fn joined(mut exprs: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    while exprs.len() > 1 {
        let mut next = Vec::with_capacity(exprs.len().div_ceil(2));
        let mut pairs = exprs.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => Expr::Nested(Box::new(binary(left, op.clone(), right))),
                None => left,
            });
        }
        exprs = next;
    }
    exprs.pop()
}

struct Rewrite {
    error: Option<QueryError>,
}

impl VisitorMut for Rewrite {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        // A row before IN is not a value of its own.
        if let Expr::InList { expr: tested, list, negated } = expr
            && let Expr::Tuple(columns) = tested.as_ref()
        {
            match row_in(columns, list) {
                Some(found) => {
                    *expr = if *negated {
                        Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(Expr::Nested(Box::new(found))) }
                    } else {
                        Expr::Nested(Box::new(found))
                    }
                }
                None => {
                    self.error = Some(QueryError::user("TYPE_MISMATCH", "line 1:1: IN value and list items must be rows of the same size"));
                    return ControlFlow::Break(());
                }
            }
        }
        // TRY suppresses errors of its content, so it must be noted before the content is rewritten.
        if let Expr::Function(function) = expr
            && function.name.to_string().eq_ignore_ascii_case("try")
            && let FunctionArguments::List(list) = &mut function.args
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(inner))] = list.args.as_mut_slice()
        {
            let mut inner = std::mem::replace(inner, null());
            let _ = inner.visit(&mut Try);
            *expr = Expr::Nested(Box::new(inner));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { .. } => rewrite_cast(expr),
            Expr::TypedString(literal) => {
                let (text, kind) = (literal.value.clone(), literal.data_type.clone());
                *expr = typed_literal(&text, kind);
            }
            Expr::AtTimeZone { timestamp, time_zone } => {
                *expr = call("at_timezone", vec![std::mem::replace(timestamp, null()), std::mem::replace(time_zone, null())]);
            }
            Expr::Extract { field, expr: from, .. } => {
                let name = match field {
                    DateTimeField::Dow | DateTimeField::DayOfWeek => "day_of_week".to_owned(),
                    DateTimeField::Doy | DateTimeField::DayOfYear => "day_of_year".to_owned(),
                    other => other.to_string().to_lowercase(),
                };
                *expr = call(&name, vec![std::mem::replace(from, null())]);
            }
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), .. }) if text.contains(['e', 'E']) => {
                let literal = string(text);
                *expr = cast(CastKind::Cast, literal, DataType::Double(ExactNumberInfo::None));
            }
            Expr::Position { .. } => {
                let position = std::mem::replace(expr, null());
                *expr = cast(CastKind::Cast, position, DataType::BigInt(None));
            }
            Expr::Function(_) => rewrite_function(expr),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Inside TRY, failing casts and divisions by zero give null.
struct Try;

impl VisitorMut for Try {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { kind, .. } => *kind = CastKind::TryCast,
            Expr::BinaryOp { op: BinaryOperator::Divide | BinaryOperator::Modulo, right, .. } => {
                let divisor = std::mem::replace(right.as_mut(), null());
                *right.as_mut() = call("nullif", vec![divisor, Expr::value(Value::Number("0".to_owned(), false))]);
            }
            Expr::Function(function) => {
                let name = function.name.to_string().to_lowercase();
                if matches!(name.as_str(), "from_iso8601_timestamp" | "from_iso8601_date" | "date_parse") {
                    function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', format!("$try_{name}")))]);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// `(a, b) IN ((x, y), …)`: groups equal first values, and adds what each column alone must be, so that partitions can be left out.
fn row_in(columns: &[Expr], rows: &[Expr]) -> Option<Expr> {
    let mut grouped: Vec<(Expr, Vec<Vec<Expr>>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut each: Vec<(Vec<Expr>, std::collections::HashSet<String>)> = columns.iter().map(|_| Default::default()).collect();
    for row in rows {
        let Expr::Tuple(values) = row else { return None };
        if values.len() != columns.len() || values.len() < 2 {
            return None;
        }
        for (value, (alone, seen)) in values.iter().zip(&mut each) {
            if seen.insert(value.to_string()) {
                alone.push(value.clone());
            }
        }
        let place = *places.entry(values[0].to_string()).or_insert_with(|| {
            grouped.push((values[0].clone(), Vec::new()));
            grouped.len() - 1
        });
        grouped[place].1.push(values[1..].to_vec());
    }
    let in_list = |column: &Expr, list: Vec<Expr>| Expr::InList { expr: Box::new(column.clone()), list, negated: false };
    let groups = grouped
        .into_iter()
        .map(|(first, rests)| {
            let rest = if columns.len() == 2 {
                in_list(&columns[1], rests.into_iter().flatten().collect())
            } else {
                let rows: Vec<Expr> = rests.into_iter().map(Expr::Tuple).collect();
                row_in(&columns[1..], &rows)?
            };
            Some(Expr::Nested(Box::new(binary(binary(columns[0].clone(), BinaryOperator::Eq, first), BinaryOperator::And, rest))))
        })
        .collect::<Option<Vec<_>>>()?;
    let mut conditions: Vec<Expr> = columns.iter().zip(each).map(|(column, (alone, _))| in_list(column, alone)).collect();
    conditions.push(joined(groups, &BinaryOperator::Or)?);
    joined(conditions, &BinaryOperator::And)
}

/// `BIGINT '1'`, `timestamp '2026-01-01 00:00:00'`: the literal, with the precision of its digits, at least milliseconds.
fn typed_literal(text: &ValueWithSpan, kind: DataType) -> Expr {
    if let DataType::Timestamp(..) = kind {
        let written = text.value.clone().into_string().unwrap_or_default();
        let digits = written.split_once('.').map_or(0, |(_, fraction)| fraction.chars().take_while(char::is_ascii_digit).count());
        let precision = match digits {
            0..=3 => 3,
            4..=6 => 6,
            _ => 9,
        };
        // Only digits and their separators, without a zone.
        let plain = written.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | ' '));
        let zone = if plain { TimezoneInfo::None } else { TimezoneInfo::WithTimeZone };
        return Expr::TypedString(TypedString {
            data_type: DataType::Timestamp(Some(precision), zone),
            value: text.clone(),
            uses_odbc_syntax: false,
        });
    }
    let kind = match kind {
        // A decimal literal has the precision of its digits.
        DataType::Decimal(ExactNumberInfo::None) => {
            let written = text.value.clone().into_string().unwrap_or_default();
            let count = |text: &str| text.chars().filter(char::is_ascii_digit).count();
            let scale = written.split_once('.').map_or(0, |(_, fraction)| count(fraction));
            let (precision, scale) = (u64::try_from(count(&written).max(1)), i64::try_from(scale));
            DataType::Decimal(ExactNumberInfo::PrecisionAndScale(precision.unwrap_or(38), scale.unwrap_or(0)))
        }
        other => other,
    };
    let mut literal = cast(CastKind::Cast, Expr::Value(text.clone()), kind);
    if !matches!(&literal, Expr::Cast { data_type: DataType::Date, .. }) {
        rewrite_cast(&mut literal);
    }
    literal
}

fn rewrite_cast(expr: &mut Expr) {
    let Expr::Cast { kind, expr: inner, data_type, .. } = expr else { return };
    let attempt = matches!(kind, CastKind::TryCast | CastKind::SafeCast);
    let mut take = || std::mem::replace(inner.as_mut(), null());
    let integer = |name: &str| format!("${}cast_{name}", if attempt { "try_" } else { "" });
    match data_type {
        DataType::Varchar(length) | DataType::Char(length) | DataType::CharVarying(length) => {
            let text = call("$cast_varchar", vec![take()]);
            *expr = match length {
                Some(CharacterLength::IntegerLength { length, .. }) => {
                    let number = |number: u64| Expr::value(Value::Number(number.to_string(), false));
                    call("substr", vec![text, number(1), number(*length)])
                }
                _ => text,
            };
        }
        DataType::BigInt(_) => *expr = call(&integer("bigint"), vec![take()]),
        DataType::Int(_) | DataType::Integer(_) => *expr = call(&integer("integer"), vec![take()]),
        DataType::SmallInt(_) => *expr = call(&integer("smallint"), vec![take()]),
        DataType::TinyInt(_) => *expr = call(&integer("tinyint"), vec![take()]),
        DataType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            let unit = match precision.unwrap_or(3) {
                0..=3 => "3",
                4..=6 => "6",
                _ => "9",
            };
            *expr = call(&integer(&format!("timestamp{unit}")), vec![take()]);
        }
        DataType::Timestamp(precision @ None, _) => *precision = Some(3),
        DataType::Decimal(info @ ExactNumberInfo::None) => *info = ExactNumberInfo::PrecisionAndScale(38, 0),
        _ => {}
    }
}

/// Functions whose integers have another type than Trino's bigint.
const BIGINTS: [&str; 9] =
    ["row_number", "rank", "dense_rank", "ntile", "length", "strpos", "levenshtein_distance", "array_position", "codepoint"];

fn rewrite_function(expr: &mut Expr) {
    let Expr::Function(function) = expr else { return };
    let name = function.name.to_string().trim_matches('"').to_lowercase();
    let simple = match &function.args {
        FunctionArguments::List(list) if list.clauses.is_empty() => {
            let exprs = list.args.iter().map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            });
            exprs.collect::<Option<Vec<Expr>>>()
        }
        FunctionArguments::None => Some(Vec::new()),
        _ => None,
    };
    let rename = |function: &mut Function, name: &str| {
        function.name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote('"', name))]);
    };
    let replace_arguments = |function: &mut Function, arguments: Vec<Expr>, distinct: bool| {
        if let FunctionArguments::List(list) = &mut function.args {
            list.args = arguments.into_iter().map(|argument| FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))).collect();
            list.duplicate_treatment = distinct.then_some(DuplicateTreatment::Distinct);
        }
    };
    let one = || Expr::value(Value::Number("1".to_owned(), false));
    match (name.as_str(), simple) {
        ("if", Some(arguments)) if (2..=3).contains(&arguments.len()) => {
            let mut arguments = arguments.into_iter();
            if let (Some(condition), Some(result)) = (arguments.next(), arguments.next()) {
                *expr = case(condition, result, arguments.next());
            }
        }
        ("count_if", Some(mut arguments)) if arguments.len() == 1 => {
            if let Some(condition) = arguments.pop() {
                rename(function, "count");
                replace_arguments(function, vec![case(condition, one(), None)], false);
            }
        }
        ("approx_distinct", Some(arguments)) if !arguments.is_empty() => {
            rename(function, "count");
            replace_arguments(function, arguments.into_iter().take(1).collect(), true);
        }
        ("concat", Some(arguments)) if arguments.len() >= 2 => {
            // A null part makes the result null, unlike in DataFusion's own function.
            if let Some(text) = arguments.into_iter().reduce(|left, right| binary(left, BinaryOperator::StringConcat, right)) {
                *expr = Expr::Nested(Box::new(text));
            }
        }
        ("greatest" | "least", Some(arguments)) => {
            let any_null = joined(arguments.iter().map(|argument| Expr::IsNull(Box::new(argument.clone()))).collect(), &BinaryOperator::Or);
            if let Some(any_null) = any_null {
                *expr = case(any_null, null(), Some(call(&name, arguments)));
            }
        }
        ("mod", Some(arguments)) if arguments.len() == 2 => {
            if let Some(modulo) = arguments.into_iter().reduce(|left, right| binary(left, BinaryOperator::Modulo, right)) {
                *expr = Expr::Nested(Box::new(modulo));
            }
        }
        // A part of a text that is the same for all rows: as a list, such as the changes of a clock, it would be written out in plans.
        ("element_at", Some(mut arguments)) if arguments.len() == 2 => {
            if let Some(parts) = parts_of_literal(&arguments[0])
                && let Some(index) = arguments.pop()
            {
                *expr = call("$part_of", parts.into_iter().chain([index]).collect());
            }
        }
        ("date", Some(mut arguments)) if arguments.len() == 1 => {
            if let Some(argument) = arguments.pop() {
                *expr = cast(CastKind::Cast, argument, DataType::Date);
            }
        }
        ("regexp_replace", Some(mut arguments)) if arguments.len() == 2 || arguments.len() == 3 => {
            if arguments.len() == 2 {
                arguments.push(string(""));
            }
            arguments.push(string("g"));
            replace_arguments(function, arguments, false);
        }
        ("nan", Some(arguments)) if arguments.is_empty() => {
            *expr = cast(CastKind::Cast, string("NaN"), DataType::Double(ExactNumberInfo::None));
        }
        ("infinity", Some(arguments)) if arguments.is_empty() => {
            *expr = cast(CastKind::Cast, string("Infinity"), DataType::Double(ExactNumberInfo::None));
        }
        ("now" | "current_timestamp", Some(arguments)) if arguments.is_empty() => {
            let now = call("now", Vec::new());
            *expr = cast(CastKind::Cast, now, DataType::Timestamp(Some(3), TimezoneInfo::WithTimeZone));
        }
        _ => {
            let renamed = match name.as_str() {
                "bitwise_or_agg" => "bit_or",
                "bitwise_and_agg" => "bit_and",
                "bitwise_xor_agg" => "bit_xor",
                "arbitrary" => "any_value",
                "every" => "bool_and",
                "contains" => "array_has",
                "array_join" => "array_to_string",
                "is_nan" => "isnan",
                "ceiling" => "ceil",
                "pow" => "power",
                "sign" => "signum",
                "split" => "string_to_array",
                "levenshtein_distance" => "levenshtein",
                _ => "",
            };
            if !renamed.is_empty() {
                rename(function, renamed);
            }
            if BIGINTS.contains(&name.as_str()) {
                let inner = std::mem::replace(expr, null());
                *expr = cast(CastKind::Cast, inner, DataType::BigInt(None));
            }
        }
    }
}

/// The arguments of `split`, which was renamed before, if they are literals.
fn parts_of_literal(list: &Expr) -> Option<Vec<Expr>> {
    let Expr::Function(function) = list else { return None };
    let FunctionArguments::List(arguments) = &function.args else { return None };
    let is_split = function.name.to_string().trim_matches('"') == "string_to_array" && arguments.args.len() == 2;
    let literal = |argument: &FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(literal @ Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(_), .. }))) => {
            Some(literal.clone())
        }
        _ => None,
    };
    if is_split { arguments.args.iter().map(literal).collect() } else { None }
}

/// The name and the query's text of `CREATE [OR REPLACE] VIEW name AS query`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ViewStatement {
    pub(crate) or_replace: bool,
    pub(crate) name: Vec<String>,
    pub(crate) query: String,
}

/// Reads a `CREATE VIEW`.
pub(crate) fn create_view(sql: &str) -> Result<ViewStatement, QueryError> {
    let (tokens, _) = tokens(sql)?;
    let mut rest = tokens.iter().filter(|token| !matches!(token.token, Token::Whitespace(_))).peekable();
    let word = |token: Option<&&TokenWithSpan>, expected: &str| matches!(token.map(|token| &token.token), Some(Token::Word(word)) if word.quote_style.is_none() && word.value.eq_ignore_ascii_case(expected));
    let mismatch = |token: Option<&&TokenWithSpan>, expected: &str| {
        let (place, found) = match token {
            Some(token) => (token.span.start, token.token.to_string()),
            None => (Location { line: 1, column: 1 }, "<EOF>".to_owned()),
        };
        let message = format!("line {}:{}: mismatched input '{found}'. Expecting: {expected}", place.line, place.column);
        QueryError::user("SYNTAX_ERROR", message)
    };
    let mut or_replace = false;
    for (expected, optional) in [("CREATE", false), ("OR", true), ("REPLACE", true), ("VIEW", false)] {
        if word(rest.peek(), expected) {
            or_replace |= expected == "REPLACE";
            rest.next();
        } else if !optional {
            return Err(mismatch(rest.peek(), &format!("'{expected}'")));
        }
    }
    let mut name = Vec::new();
    loop {
        match rest.peek().map(|token| &token.token) {
            Some(Token::Word(word)) => name.push(word.value.to_lowercase()),
            _ => return Err(mismatch(rest.peek(), "<identifier>")),
        }
        rest.next();
        if rest.next_if(|token| token.token == Token::Period).is_none() {
            break;
        }
    }
    if !word(rest.peek(), "AS") {
        return Err(mismatch(rest.peek(), "'AS'"));
    }
    let end: Span = rest.next().map_or(Span::empty(), |token| token.span);
    let query = sql[offset(sql, end.end)..].trim().trim_end_matches(';').trim_end().to_owned();
    if query.is_empty() {
        return Err(mismatch(None, "<query>"));
    }
    Ok(ViewStatement { or_replace, name, query })
}

/// The byte offset of a position of the tokenizer, which counts lines and characters from 1.
fn offset(sql: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, c) in sql.char_indices() {
        if (line, column) == (at.line, at.column) {
            return offset;
        }
        if c == '\n' {
            (line, column) = (line + 1, 1);
        } else {
            column += 1;
        }
    }
    sql.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(sql: &str) -> String {
        prepare(sql).unwrap().query.to_string()
    }

    #[test]
    fn names_have_no_case_but_results_keep_it() {
        let prepared = prepare("SELECT \"Symbol\", Close AS \"Last\", 1 + 1 FROM \"Bars\"").unwrap();
        assert_eq!(prepared.labels.unwrap(), ["Symbol", "Last", "_col2"]);
        assert!(prepared.query.to_string().starts_with("SELECT \"symbol\", Close AS \"last\""));
    }

    #[test]
    fn rows_in_a_list_become_conditions_on_each_column() {
        assert_eq!(
            rewritten("SELECT a FROM t WHERE (a, b) IN (('x', 1), ('x', 2), ('y', 1))"),
            "SELECT a FROM t WHERE (((a IN ('x', 'y') AND b IN (1, 2)) AND ((a = 'x' AND b IN (1, 2)) OR (a = 'y' AND b IN (1)))))"
        );
        let error = prepare("SELECT a FROM t WHERE (a, b) IN ((1, 2, 3))").unwrap_err();
        assert_eq!(error.name, "TYPE_MISMATCH");
    }

    #[test]
    fn a_view_keeps_its_text() {
        let view = create_view("CREATE OR REPLACE VIEW \"Market\".v AS\n SELECT 'ä', \"As\"\n FROM t;\n").unwrap();
        assert_eq!(
            view,
            ViewStatement {
                or_replace: true,
                name: vec!["market".to_owned(), "v".to_owned()],
                query: "SELECT 'ä', \"As\"\n FROM t".to_owned()
            }
        );
        assert_eq!(create_view("CREATE VIEW v SELECT 1").unwrap_err().message, "line 1:15: mismatched input 'SELECT'. Expecting: 'AS'");
    }

    #[test]
    fn syntax_errors_say_line_and_column() {
        let error = prepare("SELECT a\nFROM t WHERE").unwrap_err();
        assert!(error.reason().starts_with("SYNTAX_ERROR: line "), "{}", error.reason());
        let error = prepare("SELECT `a` FROM t").unwrap_err();
        assert!(error.message.starts_with("line 1:8: backquoted identifiers"), "{}", error.message);
    }
}
