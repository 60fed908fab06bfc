//! A status as pictures: for a page, and as a file by itself.

use super::model::{Status, TableStatus};
use crate::report::markup::Markup;
use crate::report::picture::{calendar, standalone};

/// The colours and fonts of the pictures, as CSS for the page that holds them: for light and dark.
pub const STYLE: &str = crate::report::picture::STYLE;

/// The calendar of a table as an `<svg>` element of a page, with a text for those who do not see it: a row for each key, a column for each day,
/// coloured by what is worst of it. The page defines its colours by [`STYLE`]. Empty if no day was looked at.
pub fn picture_of(table: &TableStatus) -> String {
    calendar::map(table).map(|picture| picture.into_element()).unwrap_or_default()
}

/// As [`picture_of`], for a page that is made of markup, with the picture's title. `None` if no day was looked at.
pub fn element_of(table: &TableStatus) -> Option<(String, Markup)> {
    calendar::map(table).map(|picture| (picture.title.clone(), picture.element()))
}

/// The calendars of all tables as elements of a page, one after the other; see [`picture_of`].
pub fn picture(status: &Status) -> String {
    status.tables.iter().map(picture_of).collect()
}

/// The calendars of all tables as an SVG file, with its own colours.
pub fn page(status: &Status) -> String {
    let row = |table: &TableStatus| calendar::map(table).map(|picture| vec![(format!("Table {}", table.table), picture)]);
    let rows: Vec<_> = status.tables.iter().filter_map(row).collect();
    standalone(&format!("Status at {:.0}", status.as_of), &rows)
}
