//! Trading calendars: when a market is open, and therefore which bars are expected.
//!
//! | name | market | days | hours from | ordinary hours, local |
//! | --- | --- | --- | --- | --- |
//! | `XNYS` | New York Stock Exchange | 1990-01-01 to 2028-12-31 | 1990-01-01 | 09:30-16:00 |
//! | `XNAS` | Nasdaq | 1990-01-01 to 2028-12-31 | 1990-01-01 | 09:30-16:00 |
//! | `ARCX` | NYSE Arca | 1990-01-01 to 2028-12-31 | 1990-01-01 | 09:30-16:00 |
//! | `XTSE` | Toronto | 2002-01-01 to 2027-12-31 | 2010-01-01 | 09:30-16:00 |
//! | `XLON` | London | 2000-01-01 to 2028-12-31 | 2010-01-01 | 08:00-16:30 |
//! | `XETR` | Xetra, Frankfurt | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XPAR` | Euronext Paris | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XAMS` | Euronext Amsterdam | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XSWX` | SIX, Zurich | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XMIL` | Milan | 2010-01-01 to 2027-12-31 | 2015-11-23 | 09:00-17:30 |
//! | `XMAD` | Madrid | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XSTO` | Nasdaq Stockholm | 2010-01-01 to 2027-12-31 | 2010-01-01 | 09:00-17:30 |
//! | `XHKG` | Hong Kong | 2005-01-01 to 2027-12-31 | 2012-03-05 | 09:30-12:00 13:00-16:00 |
//! | `XTKS` | Tokyo | 1997-01-01 to 2027-12-31 | 2011-11-21 | 09:00-11:30 12:30-15:00; since 2024-11-05 09:00-11:30 12:30-15:30 |
//! | `XSHG` | Shanghai | 2005-01-01 to 2026-12-31 | 2010-01-01 | 09:30-11:30 13:00-15:00 |
//! | `XSHE` | Shenzhen | 2005-01-01 to 2026-12-31 | 2010-01-01 | 09:30-11:30 13:00-15:00 |
//! | `XKRX` | Korea Exchange, Seoul | 2005-01-01 to 2026-12-31 | 2010-01-01 | 09:00-15:00; since 2016-08-01 09:00-15:30 |
//! | `XBOM` | BSE, Mumbai | 2010-10-18 to 2026-12-31 | 2010-10-18 | 09:15-15:30 |
//! | `XASX` | ASX, Sydney | 2005-01-01 to 2027-12-31 | 2010-01-01 | 10:00-16:00 |
//! | `XSES` | Singapore | 2010-01-01 to 2026-12-31 | 2017-11-13 | 09:00-12:00 13:00-17:00 |
//! | `BVMF` | B3, São Paulo | 2015-12-21 to 2026-12-31 | 2015-12-21 | 10:00-18:00, 10:00-17:00 while New York is an hour behind |
//! | `XJSE` | Johannesburg | 2005-01-01 to 2027-12-31 | 2015-01-01 | 09:00-17:00 |
//! | `CMES` | CME Globex, equity products, Chicago | 2015-09-21 to 2027-12-31 | 2015-09-21 | <17:00-15:15 15:30-16:00; since 2021-06-28 <17:00-16:00 |
//!
//! A time after `<` is on the day before the session's date. `24x7` is the core's own [`Always`](repair_core::model::Always).
//!
//! The tables hold the hours of ordinary weekdays, the dates from which they apply, and every day that differed. A script beside them
//! writes them from a maintained source, and says what each covers and why. They cover sessions, and not what happened within one: during a
//! halt (New York on 2015-07-08, 11:32 to 15:10), before a delayed opening or after a typhoon in the morning, bars stay expected until a source
//! confirms that nothing traded. Sessions of an hour on a holiday (Mumbai on the evening of Laxmi Pujan) are left out.
//!
//! A calendar must not know what is stored, requested or missing. It says when a market is open, or that it does not know.

mod market;
mod table;

use std::sync::{Arc, LazyLock};

use repair_core::model::Calendar;

use self::market::Market;
use self::table::{Csv, Tables};

const TABLES: Tables = Tables {
    markets: Csv { name: "markets.csv", text: include_str!("tables/markets.csv") },
    hours: Csv { name: "hours.csv", text: include_str!("tables/hours.csv") },
};

const NEW_YORK: Csv = Csv { name: "xnys.csv", text: include_str!("tables/xnys.csv") };
const SHANGHAI: Csv = Csv { name: "xshg.csv", text: include_str!("tables/xshg.csv") };

/// The markets of `markets.csv`, each with the days that differ.
const MARKETS: [(&str, Csv); 23] = [
    ("XNYS", NEW_YORK),
    ("XNAS", NEW_YORK),
    ("ARCX", NEW_YORK),
    ("XTSE", Csv { name: "xtse.csv", text: include_str!("tables/xtse.csv") }),
    ("XLON", Csv { name: "xlon.csv", text: include_str!("tables/xlon.csv") }),
    ("XETR", Csv { name: "xetr.csv", text: include_str!("tables/xetr.csv") }),
    ("XPAR", Csv { name: "xpar.csv", text: include_str!("tables/xpar.csv") }),
    ("XAMS", Csv { name: "xams.csv", text: include_str!("tables/xams.csv") }),
    ("XSWX", Csv { name: "xswx.csv", text: include_str!("tables/xswx.csv") }),
    ("XMIL", Csv { name: "xmil.csv", text: include_str!("tables/xmil.csv") }),
    ("XMAD", Csv { name: "xmad.csv", text: include_str!("tables/xmad.csv") }),
    ("XSTO", Csv { name: "xsto.csv", text: include_str!("tables/xsto.csv") }),
    ("XHKG", Csv { name: "xhkg.csv", text: include_str!("tables/xhkg.csv") }),
    ("XTKS", Csv { name: "xtks.csv", text: include_str!("tables/xtks.csv") }),
    ("XSHG", SHANGHAI),
    ("XSHE", SHANGHAI),
    ("XKRX", Csv { name: "xkrx.csv", text: include_str!("tables/xkrx.csv") }),
    ("XBOM", Csv { name: "xbom.csv", text: include_str!("tables/xbom.csv") }),
    ("XASX", Csv { name: "xasx.csv", text: include_str!("tables/xasx.csv") }),
    ("XSES", Csv { name: "xses.csv", text: include_str!("tables/xses.csv") }),
    ("BVMF", Csv { name: "bvmf.csv", text: include_str!("tables/bvmf.csv") }),
    ("XJSE", Csv { name: "xjse.csv", text: include_str!("tables/xjse.csv") }),
    ("CMES", Csv { name: "cmes.csv", text: include_str!("tables/cmes.csv") }),
];

static CALENDARS: LazyLock<Vec<Arc<Market>>> =
    LazyLock::new(|| MARKETS.into_iter().map(|(market, days)| Arc::new(Market::new(market, days))).collect());

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
        for market in CALENDARS.iter() {
            if let Err(error) = market.table() {
                panic!("{market:?}: {}", error.full());
            }
        }
        assert_eq!(calendars().len(), MARKETS.len());
    }
}
