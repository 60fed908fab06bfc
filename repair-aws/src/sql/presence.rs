//! What is counted: presence as bits of slots, and rows in stretches of time.

use repair_core::Result;
use repair_core::lake::Layer;
use repair_core::lake::overlay::retraction::Kind as RetractedKind;
use repair_core::lake::overlay::{Op, columns};
use repair_core::lake::partition::TimeBounds;
use repair_core::model::{Key, MAX_EXAMPLES, SlotGrid, SlotRange};

use super::judged::Prepared;
use super::slots::Slots;
use super::{Shape, Source, Wanted, filter, in_bounds, instant, milliseconds, name, one_of, text};

impl Source<'_> {
    /// The number of rows of a table without a cadence in stretches of time, counted from one that begins at `base_s`. The columns of the
    /// result are the key, if it is wanted, then the stretch, how many rows there are, how many of them have no key, and what cannot be read
    /// of them; those have no stretch.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn row_counts(&self, wanted: &Wanted<'_>, by_key: bool, (base_s, every_s): (i64, i64)) -> Result<String> {
        let names = self.key_names();
        let keys = if by_key { names.iter().map(|key| format!("{key}, ")).collect() } else { String::new() };
        let no_key = match names.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>() {
            none if none.is_empty() => "false".to_owned(),
            some => some.join(" OR "),
        };
        let path = if self.is_judged(&[])? { "repair_path" } else { "CAST(NULL AS varchar) AS repair_path" };
        Ok(format!(
            "SELECT {keys}repair_stretch, count(*), count(*) FILTER (WHERE repair_no_key), repair_path FROM (SELECT *, CASE WHEN repair_path IS NULL \
             THEN (repair_ms - {base}) / {every} END AS repair_stretch FROM (SELECT {keys}repair_ms, {no_key} AS repair_no_key, {path} FROM ({rows}))) \
             GROUP BY {keys}repair_stretch, repair_path",
            base = base_s * 1_000,
            every = every_s * 1_000,
            rows = self.rows(Layer::Raw, wanted)?,
        ))
    }

    /// Presence, as bits of slots. The result has one row for each word (a group of neighbouring slots) of each requested key, and some for
    /// all other rows. Its columns are the key, the word counted from the first, whether the key was requested, and the bits of the raw rows;
    /// then how many raw rows there are, how many of them are off the grid, and how many have no key; then the bits of repairs that insert,
    /// of repairs that replace, of exceptions, and of repairs that remove; then how many raw rows are in the folder of another time, what cannot be read of them, and when the first of the exceptions expires
    /// (milliseconds since 1970). The word of rows of other keys is -1, and that of rows that are not used is one of [`words`]. The last column is null, except for rows of
    /// other keys: of these, there is a row for each of the first few keys, and all of them say how many raw rows other keys have together.
    ///
    /// # Errors
    /// As [`Source::scan`].
    pub(crate) fn presence(&self, grid: &SlotGrid, slots: SlotRange, keys: Option<&[Key]>, as_of: jiff::Timestamp) -> Result<String> {
        let bounds = TimeBounds::of_slots(grid, slots);
        let per_word = i64::from(grid.cadence().slots_per_word());
        let key_names = self.key_names();
        let key_list = |prefix: &str| key_names.iter().map(|key| format!("{prefix}{key}, ")).collect::<String>();
        let wanted = Wanted { bounds, keys: None, columns: &[] };
        let off = Slots::new(*grid, &bounds)?.is_off();
        let no_until = "CAST(NULL AS bigint)";
        let plain = format!("0, CAST(NULL AS varchar), {no_until}");
        let mut layers = vec![if self.is_judged(&[])? {
            let Prepared { sql } = self.prepared(&wanted, Shape::Exact, true)?;
            let inside = in_bounds(&bounds).unwrap_or_else(|| "true".to_owned());
            format!(
                "SELECT {keys}0 AS repair_layer, CASE WHEN repair_class < 2 THEN repair_slot END AS repair_slot, {off} AS repair_off, repair_class, \
                 repair_path, {no_until} AS repair_until FROM (SELECT *, CASE WHEN repair_reason IS NOT NULL THEN {bad} WHEN repair_far = 2 THEN {stray} WHEN {inside} THEN \
                 repair_far ELSE {outside} END AS repair_class, CASE WHEN repair_reason IS NOT NULL THEN repair_reason || '|' || repair_file WHEN \
                 repair_far = 2 THEN repair_file END AS repair_path, {slot} AS repair_slot FROM ({sql}))",
                keys = key_list(""),
                bad = -words::BAD,
                stray = -words::STRAY,
                outside = -words::OUTSIDE,
                slot = self.slot("repair_ms", &bounds)?,
            )
        } else {
            format!(
                "SELECT {}0 AS repair_layer, repair_slot, {off} AS repair_off, 0 AS repair_class, CAST(NULL AS varchar) AS repair_path, \
                 {no_until} AS repair_until FROM ({})",
                key_list(""),
                self.raw_rows(&wanted, Shape::Exact)?
            )
        }];
        if let Some(repairs) = self.repairs {
            layers.push(format!(
                "SELECT {}CASE {} WHEN {} THEN 2 WHEN {} THEN 4 ELSE 1 END, repair_slot, false, {plain} FROM ({})",
                key_list(""),
                name(columns::OP),
                text(Op::Replace.as_str()),
                text(Op::Remove.as_str()),
                self.winners(repairs, &wanted, Shape::Exact)?
            ));
        }
        if let Some(exceptions) = self.exceptions {
            let mut conditions = self.within(exceptions, &bounds)?;
            conditions.push(format!("{} > {}", name(columns::RECHECK_AFTER), instant(as_of.as_microsecond())));
            let mut select = self.slot_columns(exceptions, &bounds)?;
            select.extend(self.of_retractions());
            select.push(format!("{} AS repair_until", milliseconds(&name(columns::RECHECK_AFTER))));
            let live = format!("SELECT {} FROM {}{}", select.join(", "), exceptions.quoted(), filter(&conditions));
            layers.push(format!(
                "SELECT {}3, repair_slot, false, 0, CAST(NULL AS varchar), repair_until FROM ({})",
                key_list(""),
                self.not_retracted(live, RetractedKind::Exceptions, &bounds)?
            ));
        }
        let asked = match keys {
            None => "repair_class < 2".to_owned(),
            Some(keys) => format!("repair_class < 2 AND coalesce({}, false)", one_of(&key_names, keys)),
        };
        let no_key = match key_names.iter().map(|key| format!("{key} IS NULL")).collect::<Vec<_>>() {
            none if none.is_empty() => "false".to_owned(),
            some => format!("repair_class < 2 AND ({})", some.join(" OR ")),
        };
        // Other keys are named, unless there is something wrong with their rows.
        let is_shown = "repair_asked OR (repair_class < 2 AND repair_slot IS NOT NULL)";
        let shown = key_names.iter().map(|key| format!("CASE WHEN {is_shown} THEN {key} END AS {key}, ")).collect::<String>();
        // Words count from the first slot's, so that nothing negative is divided; a row without a time has no word.
        let first_word = slots.first.div_euclid(per_word);
        let base = first_word * per_word;
        let bits =
            |layer: u8| format!("bitwise_or_agg(repair_bit) FILTER (WHERE repair_asked AND repair_layer = {layer} AND NOT repair_off)");
        let words = format!(
            "SELECT {keys}repair_word, repair_asked, {raw} AS repair_raw, count(*) FILTER (WHERE repair_layer = 0) AS repair_rows, \
             count(*) FILTER (WHERE repair_layer = 0 AND repair_asked AND repair_off) AS repair_off, \
             count(*) FILTER (WHERE repair_layer = 0 AND repair_no_key) AS repair_keyless, {inserted} AS repair_inserted, \
             {replaced} AS repair_replaced, {absent} AS repair_absent, {removed} AS repair_removed, \
             count(*) FILTER (WHERE repair_asked AND repair_class = 1) AS repair_misplaced, repair_path, \
             min(repair_until) FILTER (WHERE repair_asked) AS repair_until \
             FROM (SELECT {shown}CASE WHEN repair_class > 1 THEN -repair_class WHEN repair_asked OR repair_slot IS NULL THEN (repair_slot - {base}) / \
             {per_word} ELSE -1 END AS repair_word, repair_asked, repair_layer, repair_off, repair_no_key, repair_class, repair_path, repair_until, \
             bitwise_left_shift(BIGINT '1', CAST((repair_slot - {base}) % {per_word} AS integer)) AS repair_bit \
             FROM (SELECT *, {asked} AS repair_asked, {no_key} AS repair_no_key FROM ({layers}))) \
             GROUP BY {keys}repair_word, repair_asked, repair_path",
            keys = key_list(""),
            raw = bits(0),
            inserted = bits(1),
            replaced = bits(2),
            absent = bits(3),
            removed = bits(4),
            layers = layers.join(" UNION ALL "),
        );
        let rest = "repair_inserted, repair_replaced, repair_absent, repair_removed, repair_misplaced, repair_path, repair_until";
        if key_names.is_empty() || keys.is_none() {
            return Ok(format!(
                "SELECT {keys}repair_word, repair_asked, repair_raw, repair_rows, repair_off, repair_keyless, {rest}, CAST(NULL AS bigint) FROM ({words})",
                keys = key_list("")
            ));
        }
        // The rows of a key that was asked for are a window of their own, so that no window is large but that of other keys.
        let window = key_names.iter().map(|key| format!("CASE WHEN NOT repair_other THEN {key} END")).collect::<Vec<_>>().join(", ");
        let window = format!("PARTITION BY repair_other, {window}");
        Ok(format!(
            "SELECT {keys}repair_word, repair_asked, repair_raw, repair_rows, repair_off, \
             CASE WHEN repair_other THEN repair_all_keyless ELSE repair_keyless END, {rest}, CASE WHEN repair_other THEN repair_all END \
             FROM (SELECT *, row_number() OVER ({window} ORDER BY CASE WHEN repair_rows > 0 THEN 0 ELSE 1 END, {by}) AS repair_place, \
             sum(repair_rows) OVER ({window}) AS repair_all, sum(repair_keyless) OVER ({window}) AS repair_all_keyless \
             FROM (SELECT *, NOT repair_asked AND coalesce(repair_word, 0) = -1 AS repair_other FROM ({words}))) \
             WHERE NOT repair_other OR repair_place <= {MAX_EXAMPLES}",
            keys = key_list(""),
            by = key_names.join(", "),
        ))
    }
}

/// The words of rows that are not used, in a result of presence.
pub(crate) mod words {
    /// Rows in a folder of a time far from theirs.
    pub(crate) const STRAY: i64 = -2;
    /// Rows that cannot be read.
    pub(crate) const BAD: i64 = -3;
    /// Rows of other times.
    pub(crate) const OUTSIDE: i64 = -4;
}
