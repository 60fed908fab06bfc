//! Trino's functions and syntax on the sandbox's Athena: each against the value that Trino's documentation gives for it, or that a real
//! Trino gave.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that fails, panics")]

use crate::common::World;

/// Expression, value, type.
const EXPRESSIONS: &[(&str, &str, &str)] = &[
    // Literals and their types.
    ("BIGINT '1'", "1", "bigint"),
    ("INTEGER '7'", "7", "integer"),
    ("1.50", "1.50", "decimal"),
    ("1e0", "1.0", "double"),
    ("DOUBLE '1.5'", "1.5", "double"),
    ("true", "true", "boolean"),
    ("'it''s'", "it's", "varchar"),
    ("date '2026-01-31'", "2026-01-31", "date"),
    ("timestamp '2026-01-01 00:00:00.000'", "2026-01-01 00:00:00.000", "timestamp"),
    ("timestamp '2026-01-01 10:00:00 UTC'", "2026-01-01 10:00:00.000 UTC", "timestamp with time zone"),
    // Bits.
    ("bitwise_and(19, 25)", "17", "bigint"),
    ("bitwise_or(19, 25)", "27", "bigint"),
    ("bitwise_xor(19, 25)", "10", "bigint"),
    ("bitwise_not(19)", "-20", "bigint"),
    ("bitwise_left_shift(BIGINT '1', 2)", "4", "bigint"),
    ("bitwise_left_shift(BIGINT '1', 63)", "-9223372036854775808", "bigint"),
    ("bitwise_left_shift(BIGINT '1', 64)", "0", "bigint"),
    ("bitwise_left_shift(BIGINT '1', CAST(5 AS integer))", "32", "bigint"),
    ("bitwise_right_shift(BIGINT '-8', 3)", "2305843009213693951", "bigint"),
    ("bitwise_right_shift_arithmetic(-8, 3)", "-1", "bigint"),
    ("bit_count(9, 64)", "2", "bigint"),
    ("bit_count(-7, 8)", "6", "bigint"),
    // Numbers.
    ("7 / 2", "3", "bigint"),
    ("-7 / 2", "-3", "bigint"),
    ("-7 % 60", "-7", "bigint"),
    ("mod(10, 3)", "1", "bigint"),
    ("floor(-1.5e0)", "-2.0", "double"),
    ("ceil(-1.5e0)", "-1.0", "double"),
    ("ceiling(1.2)", "2", "decimal"),
    ("floor(-1.2)", "-2", "decimal"),
    ("floor(BIGINT '5')", "5", "bigint"),
    ("round(2.5e0)", "3.0", "double"),
    ("round(-2.5e0)", "-3.0", "double"),
    ("round(1.2345e0, 2)", "1.23", "double"),
    ("round(DECIMAL '1.25', 1)", "1.30", "decimal"),
    ("abs(-3)", "3", "bigint"),
    ("power(2, 10)", "1024.0", "double"),
    ("greatest(1, 3, 2)", "3", "bigint"),
    ("least(1, null, 2)", "∅", "bigint"),
    ("greatest('a', 'b')", "b", "varchar"),
    // Casts.
    ("CAST(1.0E7 AS varchar)", "1.0E7", "varchar"),
    ("CAST(0.1e0 AS varchar)", "1.0E-1", "varchar"),
    ("CAST(4.35e0 AS varchar)", "4.35E0", "varchar"),
    ("CAST(0e0 AS varchar)", "0E0", "varchar"),
    ("CAST(nan() AS varchar)", "NaN", "varchar"),
    ("CAST(infinity() AS varchar)", "Infinity", "varchar"),
    ("CAST(123 AS varchar)", "123", "varchar"),
    ("CAST(12345 AS varchar(3))", "123", "varchar"),
    ("CAST(DATE '2026-01-02' AS varchar)", "2026-01-02", "varchar"),
    ("CAST(timestamp '2026-01-01 01:02:03.004' AS varchar)", "2026-01-01 01:02:03.004", "varchar"),
    ("CAST(2.5e0 AS bigint)", "3", "bigint"),
    ("CAST(-2.5e0 AS integer)", "-3", "integer"),
    ("CAST(DECIMAL '2.5' AS bigint)", "3", "bigint"),
    ("CAST('12' AS integer)", "12", "integer"),
    ("CAST('2026-03-05 14:30:00' AS timestamp)", "2026-03-05 14:30:00.000", "timestamp"),
    ("CAST(timestamp '2026-01-01 00:00:00.999500' AS timestamp(3))", "2026-01-01 00:00:01.000", "timestamp"),
    ("CAST(timestamp '2026-03-05 14:30:00 +02:00' AT TIME ZONE 'UTC' AS timestamp(3))", "2026-03-05 12:30:00.000", "timestamp"),
    ("TRY_CAST('x' AS bigint)", "∅", "bigint"),
    ("TRY(CAST('x' AS double))", "∅", "double"),
    ("TRY(1 / 0)", "∅", "bigint"),
    ("TRY_CAST('2026-03-05T14:30:00' AS timestamp(3))", "∅", "timestamp"),
    ("TRY_CAST('2026-03-05' AS timestamp(3))", "2026-03-05 00:00:00.000", "timestamp"),
    // Dates and instants.
    ("to_unixtime(timestamp '1969-12-31 23:59:59.500')", "-0.5", "double"),
    ("to_unixtime(timestamp '2026-01-01 00:00:00.123')", "1.767225600123E9", "double"),
    ("from_unixtime(1.5)", "1970-01-01 00:00:01.500 UTC", "timestamp with time zone"),
    ("from_unixtime_nanos(1767225600123456789)", "2026-01-01 00:00:00.123456789 UTC", "timestamp with time zone"),
    ("CAST(from_unixtime_nanos(1767225600123000000) AS timestamp(3))", "2026-01-01 00:00:00.123", "timestamp"),
    ("from_iso8601_timestamp('2026-03-05T14:30:00Z')", "2026-03-05 14:30:00.000 UTC", "timestamp with time zone"),
    ("from_iso8601_timestamp('2026-03-05T14:30:00.123456Z')", "2026-03-05 14:30:00.123 UTC", "timestamp with time zone"),
    ("from_iso8601_date('2026-03-05')", "2026-03-05", "date"),
    ("to_iso8601(timestamp '2026-01-01 00:00:00.000')", "2026-01-01T00:00:00.000", "varchar"),
    ("to_iso8601(date '2026-01-01')", "2026-01-01", "varchar"),
    ("to_iso8601(from_unixtime(0))", "1970-01-01T00:00:00.000Z", "varchar"),
    ("date_trunc('hour', timestamp '2001-08-22 03:04:05.321')", "2001-08-22 03:00:00.000", "timestamp"),
    ("date_trunc('week', timestamp '2001-08-22 03:04:05.321')", "2001-08-20 00:00:00.000", "timestamp"),
    ("date_trunc('quarter', timestamp '2001-08-22 03:04:05.321')", "2001-07-01 00:00:00.000", "timestamp"),
    ("date_trunc('month', date '2001-08-22')", "2001-08-01", "date"),
    ("date_add('second', 86, timestamp '2020-03-01 00:00:00.000')", "2020-03-01 00:01:26.000", "timestamp"),
    ("date_add('month', 1, date '2026-01-31')", "2026-02-28", "date"),
    ("date_add('month', -1, timestamp '2020-03-31 00:00:00.000')", "2020-02-29 00:00:00.000", "timestamp"),
    ("date_diff('second', timestamp '2020-03-01 00:00:00.000', timestamp '2020-03-02 00:00:00.000')", "86400", "bigint"),
    ("date_diff('day', date '2020-03-01', date '2020-03-02')", "1", "bigint"),
    ("date_diff('month', date '2026-01-31', date '2026-02-28')", "1", "bigint"),
    ("date_diff('millisecond', timestamp '1970-01-01 00:00:00.000', timestamp '1969-12-31 23:59:59.999')", "-1", "bigint"),
    ("date_diff('minute', timestamp '1970-01-01 00:00:00.000', timestamp '1969-12-31 23:59:30.000')", "0", "bigint"),
    ("date_format(timestamp '2022-10-20 05:10:00.000', '%m-%d-%Y %H')", "10-20-2022 05", "varchar"),
    (
        "date_format(timestamp '2022-10-20 17:10:09.123', '%W %M %e, %l:%i:%s.%f %p %%')",
        "Thursday October 20, 5:10:09.123000 PM %",
        "varchar",
    ),
    ("date_parse('2022/10/20/05', '%Y/%m/%d/%H')", "2022-10-20 05:00:00.000", "timestamp"),
    ("date('2026-02-03')", "2026-02-03", "date"),
    ("date(timestamp '1969-12-31 23:00:00.000')", "1969-12-31", "date"),
    ("year(date '2026-02-03')", "2026", "bigint"),
    ("minute(timestamp '2026-02-03 04:05:06.789')", "5", "bigint"),
    ("day_of_week(date '2026-11-24')", "2", "bigint"),
    ("week(date '2026-01-01')", "1", "bigint"),
    ("extract(DOW FROM date '2026-11-22')", "7", "bigint"),
    ("extract(HOUR FROM timestamp '2026-02-03 04:05:06.789')", "4", "bigint"),
    ("last_day_of_month(date '2024-02-03')", "2024-02-29", "date"),
    ("timestamp '2026-01-01 00:00:00.000' + interval '90' minute", "2026-01-01 01:30:00.000", "timestamp"),
    ("date '2026-01-31' + interval '1' day", "2026-02-01", "date"),
    ("timestamp '2026-01-01 00:00:00.000' AT TIME ZONE 'UTC'", "2026-01-01 00:00:00.000 UTC", "timestamp with time zone"),
    (
        "timestamp '2026-01-01 00:00:00.000' AT TIME ZONE 'America/New_York'",
        "2025-12-31 19:00:00.000 America/New_York",
        "timestamp with time zone",
    ),
    // Text.
    ("concat('a', null)", "∅", "varchar"),
    ("concat('a', 'b', 'c')", "abc", "varchar"),
    ("'a' || 'b'", "ab", "varchar"),
    ("length('héllo')", "5", "bigint"),
    ("strpos('high', 'g')", "3", "bigint"),
    ("position('g' IN 'high')", "3", "bigint"),
    ("substr('hello', 2, 3)", "ell", "varchar"),
    ("regexp_replace('1a 2b', '\\d', 'x')", "xa xb", "varchar"),
    ("regexp_like('1a 2b', '\\d+b')", "true", "boolean"),
    ("split_part('a-b-c', '-', 2)", "b", "varchar"),
    ("upper('abc')", "ABC", "varchar"),
    ("json_extract_scalar('{\"a\": {\"b\": [1, \"x\"]}}', '$.a.b[1]')", "x", "varchar"),
    // Conditions.
    ("IF(1 > 2, 'a', 'b')", "b", "varchar"),
    ("IF(1 > 2, 'a')", "∅", "varchar"),
    ("coalesce(null, 2)", "2", "bigint"),
    ("nullif(1, 1)", "∅", "bigint"),
    ("null IS DISTINCT FROM null", "false", "boolean"),
    ("1 IS DISTINCT FROM null", "true", "boolean"),
    ("(1, 'x') IN ((1, 'x'), (2, 'y'))", "true", "boolean"),
    ("(1, 'y') IN ((1, 'x'), (2, 'y'))", "false", "boolean"),
    // Arrays.
    ("sequence(1, 5)", "[1, 2, 3, 4, 5]", "array"),
    ("sequence(5, 1, -2)", "[5, 3, 1]", "array"),
    ("sequence(date '2026-01-30', date '2026-02-01')", "[2026-01-30, 2026-01-31, 2026-02-01]", "array"),
    (
        "sequence(timestamp '2026-01-01 00:00:00.000', timestamp '2026-01-01 01:00:00.000', interval '30' minute)",
        "[2026-01-01 00:00:00.000, 2026-01-01 00:30:00.000, 2026-01-01 01:00:00.000]",
        "array",
    ),
    ("ARRAY[1, 2][2]", "2", "bigint"),
    ("element_at(ARRAY['a', 'b'], -1)", "b", "varchar"),
    ("element_at(ARRAY['a', 'b'], 3)", "∅", "varchar"),
    ("cardinality(ARRAY[1, 2, 3])", "3", "bigint"),
    ("contains(ARRAY[1, 2], 2)", "true", "boolean"),
    ("array_join(ARRAY['a', 'b'], ',')", "a,b", "varchar"),
    ("typeof(CAST(1 AS bigint))", "bigint", "varchar"),
];

/// Where the sandbox is not as Trino is: what Trino gives. Whole numbers have one type here, a null has the type of what is beside it, and
/// times have at least milliseconds.
const UNLIKE_TRINO: &[(&str, &str, &str)] = &[
    ("timestamp '2026-01-01 10:00:00 UTC'", "2026-01-01 10:00:00 UTC", "timestamp with time zone"),
    ("bitwise_right_shift_arithmetic(-8, 3)", "-1", "integer"),
    ("7 / 2", "3", "integer"),
    ("-7 / 2", "-3", "integer"),
    ("-7 % 60", "-7", "integer"),
    ("mod(10, 3)", "1", "integer"),
    ("abs(-3)", "3", "integer"),
    ("greatest(1, 3, 2)", "3", "integer"),
    ("least(1, null, 2)", "∅", "integer"),
    ("CAST(12345 AS varchar(3))", "INVALID_CAST_ARGUMENT: Value 12345 cannot be represented as varchar(3)", ""),
    ("TRY(1 / 0)", "∅", "integer"),
    ("concat('a', null)", "∅", "array"),
    ("coalesce(null, 2)", "2", "integer"),
    ("nullif(1, 1)", "∅", "integer"),
    ("ARRAY[1, 2][2]", "2", "integer"),
];

#[tokio::test(flavor = "multi_thread")]
async fn expressions_are_what_trino_says() {
    let world = World::of_trino().await;
    let mut wrong = Vec::new();
    for expected in EXPRESSIONS {
        let unlike = UNLIKE_TRINO.iter().find(|unlike| unlike.0 == expected.0 && crate::common::trino().is_some());
        let (expression, value, kind) = unlike.unwrap_or(expected);
        match world.run(&format!("SELECT {expression}")).await {
            Err(failed) if failed.reason == *value => {}
            Err(failed) => wrong.push(format!("{expression}: {}", failed.reason)),
            Ok(execution) => {
                let id = execution.query_execution_id.unwrap();
                let found = crate::common::lines(&world.rows_of(&id).await[1..]);
                let page = world.athena.get_query_results().query_execution_id(&id).send().await.unwrap();
                let metadata = page.result_set.unwrap().result_set_metadata.unwrap().column_info.unwrap();
                if found != *value || metadata[0].r#type != *kind {
                    wrong.push(format!("{expression}: {found} ({}), not {value} ({kind})", metadata[0].r#type));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), EXPRESSIONS.len(), wrong.join("\n"));
}
