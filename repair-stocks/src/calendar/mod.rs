//! Trading calendars: when a market is open, and therefore which bars are expected.
//!
//! | name | market | covers | hours, local | closed over lunch |
//! | --- | --- | --- | --- | --- |
//! | `XNYS` | New York Stock Exchange | 1990 to 2026 | 09:30 to 16:00, half days to 13:00 (14:00 until 1992) | |
//! | `XTKS` | Tokyo Stock Exchange | 2011-11-21 to 2026 | 09:00 to 15:00, to 15:30 since 2024-11-05 | 11:30 to 12:30 |
//!
//! `24x7` is the core's own [`Always`](repair_core::model::Always).
//!
//! The tables hold the hours of ordinary weekdays, the dates from which they apply, and every weekday that differed. A script beside them
//! writes them from a maintained source. They cover sessions, and not what happened within one: during a halt (New York on 2015-07-08, 11:32
//! to 15:10) or before a delayed opening, bars stay expected until a source confirms that nothing traded.
//!
//! A calendar must not know what is stored, requested or missing. It says when a market is open, or that it does not know.

mod exchange;
mod table;

use std::sync::{Arc, LazyLock};

use repair_core::Result;
use repair_core::model::Calendar;

pub use self::exchange::ExchangeCalendar;
use self::table::{Csv, Table};

const HOURS: Csv = Csv { name: "hours.csv", text: include_str!("tables/hours.csv") };

/// The markets of `hours.csv`, each with its exceptions.
const MARKETS: [(&str, Csv); 2] = [
    ("XNYS", Csv { name: "xnys.csv", text: include_str!("tables/xnys.csv") }),
    ("XTKS", Csv { name: "xtks.csv", text: include_str!("tables/xtks.csv") }),
];

/// A market whose table cannot be read is left out, so that every caller refuses its name; a test keeps this from being shipped.
static CALENDARS: LazyLock<Vec<Arc<ExchangeCalendar>>> = LazyLock::new(|| {
    let read = |(market, exceptions)| {
        load(market, exceptions).inspect_err(|error| tracing::error!(market, error = %error.full(), "calendar left out")).ok()
    };
    MARKETS.into_iter().filter_map(read).map(Arc::new).collect()
});

fn load(market: &'static str, exceptions: Csv) -> Result<ExchangeCalendar> {
    ExchangeCalendar::new(market, &Table::read(market, HOURS, exceptions)?)
}

/// The calendar of a market, by its market identifier code (ISO 10383).
///
/// ```
/// let nyse = repair_stocks::calendar::calendar("XNYS").ok_or("no such market")?;
/// let christmas_eve = "2015-12-24".parse()?;
/// let session = &nyse.sessions(christmas_eve, christmas_eve)?[0];
/// assert_eq!(session.hours.to_string(), "2015-12-24T14:30:00Z to 2015-12-24T18:00:00Z");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn calendar(name: &str) -> Option<Arc<dyn Calendar>> {
    calendars().into_iter().find(|calendar| calendar.name() == name)
}

/// All calendars of this crate.
pub fn calendars() -> Vec<Arc<dyn Calendar>> {
    CALENDARS.iter().map(|calendar| Arc::clone(calendar) as Arc<dyn Calendar>).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_table_can_be_read() {
        for (market, exceptions) in MARKETS {
            if let Err(error) = load(market, exceptions) {
                panic!("{market}: {}", error.full());
            }
        }
        assert_eq!(calendars().len(), MARKETS.len());
    }
}
