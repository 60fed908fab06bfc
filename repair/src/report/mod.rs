//! A report on a run or a table: what was found, what came of it, and pictures in which a glitch is seen at a glance.
//!
//! `gather` reads, `picture` draws by pure functions, and `page` puts both together to one HTML file that needs neither a network nor a
//! script. Nothing here knows stocks: what is drawn as candles, and which column is drawn as a line, is said by the
//! [registry](repair_core::plugin::Registry::drawn_as).

mod csv;
mod gather;
mod model;
mod page;
pub(crate) mod picture;

use std::path::{Path, PathBuf};

/// Text of HTML in which data can do no harm, for pages beside the report.
pub mod markup {
    pub use super::picture::markup::{Attributes, Markup, count, grouped, shortened};
}

/// How pages look: the style of the report, and that of its pictures.
pub const STYLES: [&str; 2] = [page::PAGE_STYLE, picture::STYLE];

pub(crate) use self::gather::completeness::last_expected;
pub use self::model::{
    Bucket, Candle, CandleChart, Cell, CellSum, Defect, Doing, Edge, Exception, Fix, Graph, Held, HeldDay, KeyCandles, KeyCells, Listing,
    Node, Numbers, OnRecord, Point, Report, Series, Span, Subject, TableReport, Timeline, TimelineRow, Within,
};
use crate::open::{OpenLake, Repair};
use crate::request::awaitable;
use repair_core::price::PriceBook;

/// How many rows of a listing are in the page; all of them are in its CSV.
pub const MOST_ROWS: usize = 1_000;

/// Makes a report: await it. [`OpenLake::report_on`] makes it.
#[must_use = "nothing is gathered before this is awaited"]
pub struct ReportRequest<'a> {
    open: &'a OpenLake,
    subject: String,
    beside: Option<PathBuf>,
    prices: Option<PriceBook>,
}

impl ReportRequest<'_> {
    /// Says where the page will be. A listing that is too long to be embedded is then written beside it, as CSV.
    pub fn beside<'b>(mut self, page: impl Into<Option<&'b Path>>) -> Self {
        self.beside = page.into().map(Path::to_owned);
        self
    }

    /// Prices what was used by this book instead of those that the runs were started with.
    pub fn prices(mut self, prices: impl Into<Option<PriceBook>>) -> Self {
        self.prices = prices.into();
        self
    }
}

awaitable!(ReportRequest => Report);

impl OpenLake {
    /// Gathers a report on a run, by its id, or on a table, by its name, as the latest run examined it.
    ///
    /// # Errors
    /// `not-found` if there is no such run, and no run has examined such a table; those of the journal and the ledger. What cannot be
    /// looked at in the lake is in the report's notes instead.
    ///
    /// ```no_run
    /// # async fn example(lake: repair::OpenLake) -> repair::Result<()> {
    /// let report = lake.report_on("monday").await?;
    /// println!("{}", report.sentence);
    /// std::fs::write("monday.html", report.html()).unwrap();
    /// # Ok(())
    /// # }
    /// ```
    pub fn report_on(&self, run_or_table: impl Into<String>) -> ReportRequest<'_> {
        ReportRequest { open: self, subject: run_or_table.into(), beside: None, prices: None }
    }
}

/// Makes a report on a table that no run need have examined: await it. [`Repair::report_on_table`] makes it.
#[must_use = "nothing is gathered before this is awaited"]
pub struct TableReportRequest<'a> {
    repair: &'a Repair,
    table: String,
    from: Option<String>,
    to: Option<String>,
    beside: Option<PathBuf>,
}

impl TableReportRequest<'_> {
    /// Looks at this part of time: from an instant or date on, to an instant or the end of a date; they may be relative to now, such as `yesterday`.
    pub fn within<'b>(mut self, from: impl Into<Option<&'b str>>, to: impl Into<Option<&'b str>>) -> Self {
        self.from = from.into().map(str::to_owned);
        self.to = to.into().map(str::to_owned);
        self
    }

    /// As [`ReportRequest::beside`].
    pub fn beside<'b>(mut self, page: impl Into<Option<&'b Path>>) -> Self {
        self.beside = page.into().map(Path::to_owned);
        self
    }
}

awaitable!(TableReportRequest => Report);

impl Repair {
    /// Looks at a table of the workflow, and reports how complete it is, what was repaired in it, and what is left. It needs no run. What is expected
    /// is what the first detect step of the workflow expects that looks for missing rows of the table; without one, it is the table's own `keys`
    /// at all times, and a part of time has to be given. Nothing is written.
    ///
    /// Of a table whose key identifies a row, nothing says what is expected. The report says what the table [holds](Held), which rows have several
    /// versions, and what repairs make of them, in the time of the first detect step of the table, or in that which is given.
    ///
    /// # Errors
    /// `not-found` if the workflow has no such table; `invalid` if nothing says what is expected, or which time is meant; those of looking.
    pub fn report_on_table(&self, table: impl Into<String>) -> TableReportRequest<'_> {
        TableReportRequest { repair: self, table: table.into(), from: None, to: None, beside: None }
    }
}

impl Report {
    /// The report as one HTML file, which needs nothing else.
    pub fn html(&self) -> String {
        page::page(self)
    }

    /// How complete the first table is before and after, and its data points, as an SVG for pages that can show no HTML; `None` if no
    /// table was examined.
    pub fn svg(&self) -> Option<String> {
        use picture::heat::{self, When};
        let table = self.tables.first()?;
        let before = ("Before: the table's own rows".to_owned(), heat::map(table, When::Before));
        let after = ("After: with repairs + confirmed absences".to_owned(), heat::map(table, When::After));
        let points = (format!("Data points by key and {}", table.bucket.as_str()), picture::points::chart(table, picture::Size::Wide));
        let legends = [heat::legend(table), picture::points::legend()].map(|legend| vec![(String::new(), legend)]);
        let [of_heat, of_points] = legends;
        Some(picture::standalone(&self.sentence, &[vec![before, after], of_heat, vec![points], of_points]))
    }
}

#[cfg(test)]
mod tests;
